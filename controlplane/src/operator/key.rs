//! API keys.

use std::ops::Bound;

use postern_shared::ids::KeyId;
use postern_shared::scope::ScopeSet;
use postern_shared::time::Ttl;

use super::answer::{Answer, KeyView, LockedKey, MintedKey, Named, OriginView, Page, Revealed};
use super::pair::{gone, pair_name};
use super::request::{OriginAsked, Reference};
use super::{Desk, OperatorError, find};
use crate::domain::{Command, Key, Label, OrgRow, Origin, State};
use crate::drafts::{self, NewPair};

impl Desk<'_> {
    pub(super) async fn mint_key(
        &self,
        name: Label,
        scopes: ScopeSet,
        origins: Vec<OriginAsked>,
        lifetime: Option<Ttl>,
    ) -> Result<MintedKey, OperatorError> {
        let origins = self.read(|state, org| resolve(state, org, origins))?;
        let (key, secret) = drafts::key(self.engine, self.org, name, scopes, origins, lifetime);
        let view = self.read(|state, _| Ok(view(state, &key)))?;
        self.submit(Command::MintKey(key)).await?;
        let secret = Revealed::new(secret.expose().to_owned());
        Ok(MintedKey { key: view, secret })
    }

    pub(super) async fn mint_locked_key(
        &self,
        name: Label,
        scopes: ScopeSet,
        lifetime: Option<Ttl>,
    ) -> Result<Answer, OperatorError> {
        let NewPair { pair, bookmark, .. } =
            NewPair::draw(self.engine, self.org, name.clone(), self.plane.ttl);
        let origins = vec![Origin::Pair(pair.id)];
        let (key, secret) = drafts::key(self.engine, self.org, name, scopes, origins, lifetime);
        let id = key.id;
        self.submit(Command::MintLockedKey { key: Box::new(key), pair: Box::new(pair) }).await?;
        let view =
            self.read(|state, _| state.key(id).map(|key| view(state, key)).ok_or_else(gone))?;
        Ok(Answer::LockedKeyMinted(LockedKey {
            minted: MintedKey { key: view, secret: Revealed::new(secret.expose().to_owned()) },
            bookmark: Revealed::new(format!("{}/b/{}", self.plane.url, bookmark.expose())),
        }))
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

    pub(super) async fn narrow_key(
        &self,
        key: &Reference,
        scopes: Option<ScopeSet>,
        origins: Option<Vec<OriginAsked>>,
    ) -> Result<Answer, OperatorError> {
        let (key, command) = self.read(|state, org| {
            let key = find::key(state, org, key)?;
            let row = state.key_row(key).ok_or_else(gone)?;
            let origins = origins.map(|origins| resolve(state, org, origins)).transpose()?;
            let command = Command::NarrowKey {
                org: self.org,
                key,
                scopes: scopes.unwrap_or(row.record.scopes),
                origins: origins.unwrap_or_else(|| row.record.origins.clone()),
                expected: Some(row.revision),
            };
            Ok((key, command))
        })?;
        self.submit(command).await?;
        let view =
            self.read(|state, _| state.key(key).map(|key| view(state, key)).ok_or_else(gone))?;
        Ok(Answer::KeyNarrowed(view))
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
