//! API keys.

use std::ops::Bound;

use postern_shared::ids::{KeyId, PairId};
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Ttl};
use postern_shared::token::{Token, TokenKind};

use super::answer::{Answer, KeyView, LockedKey, MintedKey, Named, OriginView, Page, Revealed};
use super::pair::{gone, pair_name};
use super::request::{OriginAsked, Reference};
use super::{Desk, OperatorError, find};
use crate::domain::{Command, Key, Label, OrgRow, Origin, Pair, State};

impl Desk<'_> {
    pub(super) async fn mint_key(
        &self,
        name: Label,
        scopes: ScopeSet,
        origins: Vec<OriginAsked>,
        lifetime: Option<Ttl>,
    ) -> Result<MintedKey, OperatorError> {
        let origins = self.read(|state, org| resolve(state, org, origins))?;
        let (key, secret) = self.new_key(name, scopes, origins, lifetime);
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
        let (pair, bookmark) = self.new_pair(name.clone());
        let (key, secret) = self.new_key(name, scopes, vec![Origin::Pair(pair.id)], lifetime);
        let id = key.id;
        self.submit(Command::MintLockedKey { key: Box::new(key), pair: Box::new(pair) }).await?;
        let view =
            self.read(|state, _| state.key(id).map(|key| view(state, key)).ok_or_else(gone))?;
        Ok(Answer::LockedKeyMinted(LockedKey {
            minted: MintedKey { key: view, secret: Revealed::new(secret.expose().to_owned()) },
            bookmark: Revealed::new(format!("{}/b/{}", self.plane.url, bookmark.expose())),
        }))
    }

    /// A key that is still to be minted, and its secret.
    fn new_key(
        &self,
        name: Label,
        scopes: ScopeSet,
        origins: Vec<Origin>,
        lifetime: Option<Ttl>,
    ) -> (Key, Token) {
        let (chance, now) = (self.engine.chance(), self.now());
        let secret = chance.token(TokenKind::Key);
        let ends_at = lifetime.map(|lifetime| now.saturating_add(lifetime.as_duration()));
        let key = Key {
            id: KeyId::from_random(chance.id()),
            org: self.org,
            name,
            hash: secret.hash(),
            scopes,
            origins,
            created_at: now,
            expires: Expiry::from(ends_at),
            revoked_at: None,
        };
        (key, secret)
    }

    /// A pair that only locks a key, and its bookmark; its server key is told to nobody.
    fn new_pair(&self, name: Label) -> (Pair, Token) {
        let chance = self.engine.chance();
        let bookmark = chance.token(TokenKind::Bookmark);
        let pair = Pair {
            id: PairId::from_random(chance.id()),
            org: self.org,
            number: 0, // given by the decision
            name,
            contact_email: None,
            ttl: self.plane.ttl,
            bookmark: bookmark.hash(),
            server_key: chance.token(TokenKind::Server).hash(),
            reports_by_get: false,
            created_at: self.now(),
            deleted_at: None,
        };
        (pair, bookmark)
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
