//! API keys.

use std::ops::Bound;

use postern_shared::ids::KeyId;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Ttl};
use postern_shared::token::TokenKind;

use super::answer::{Answer, KeyView, MintedKey, Named, OriginView, Page, Revealed};
use super::pair::pair_name;
use super::request::{OriginAsked, Reference};
use super::{Desk, OperatorError, find};
use crate::domain::{Command, Key, Label, OrgRow, Origin, State};

impl Desk<'_> {
    pub(super) async fn mint_key(
        &self,
        name: Label,
        scopes: ScopeSet,
        origins: Vec<OriginAsked>,
        lifetime: Option<Ttl>,
    ) -> Result<MintedKey, OperatorError> {
        let origins = self.read(|state, org| resolve(state, org, origins))?;
        let chance = self.engine.chance();
        let (id, secret) = (KeyId::from_random(chance.id()), chance.token(TokenKind::Key));
        let now = self.now();
        let ends_at = lifetime.map(|lifetime| now.saturating_add(lifetime.as_duration()));
        let key = Key {
            id,
            org: self.org,
            name,
            hash: secret.hash(),
            scopes,
            origins,
            created_at: now,
            expires: Expiry::from(ends_at),
            revoked_at: None,
        };
        let view = self.read(|state, _| Ok(view(state, &key)))?;
        self.submit(Command::MintKey(key)).await?;
        let secret = Revealed::new(secret.expose().to_owned());
        Ok(MintedKey { key: view, secret })
    }

    pub(super) fn list_keys(
        &self,
        all: bool,
        after: Option<KeyId>,
    ) -> Result<Answer, OperatorError> {
        self.read(|state, org| {
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            let keys = org.keys.range((after, Bound::Unbounded)).filter_map(|id| state.key(*id));
            let shown = keys.filter(|key| all || key.revoked_at.is_none());
            Ok(Answer::Keys(Page::of(shown.map(|key| view(state, key)), |view| view.id)))
        })
    }

    pub(super) async fn revoke_key(&self, key: &Reference) -> Result<Answer, OperatorError> {
        let (id, name) = self.read(|state, org| {
            let id = find::key(state, org, key)?;
            Ok((id, state.key(id).map(|key| key.name.clone())))
        })?;
        self.submit(Command::RevokeKey { org: self.org, key: id }).await?;
        Ok(Answer::Removed(Named::new(id, name.as_ref())))
    }
}

fn resolve(
    state: &State,
    org: &OrgRow,
    asked: Vec<OriginAsked>,
) -> Result<Vec<Origin>, OperatorError> {
    let origin = |asked| match asked {
        OriginAsked::Network(network) => Ok(Origin::Network(network)),
        OriginAsked::Pair(pair) => find::pair(state, org, &pair).map(Origin::Pair),
    };
    asked.into_iter().map(origin).collect()
}

fn view(state: &State, key: &Key) -> KeyView {
    let origin = |origin: &Origin| match origin {
        Origin::Network(network) => Some(OriginView::Network(*network)),
        Origin::Pair(id) => state.pair(*id).map(|row| OriginView::Pair(pair_name(&row.record))),
    };
    KeyView {
        id: key.id,
        name: key.name.clone(),
        scopes: key.scopes,
        origins: key.origins.iter().filter_map(origin).collect(),
        created_at: key.created_at,
        expires_at: key.expires,
        revoked_at: key.revoked_at,
    }
}
