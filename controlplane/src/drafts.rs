//! Records that are still to be made, with the secrets that are told of them once.

use postern_shared::ids::{KeyId, OrgId, PairId};
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Ttl};
use postern_shared::token::{Token, TokenKind};

use crate::domain::{Key, Label, Origin, Pair};
use crate::engine::Engine;

/// A pair that nobody has yet.
pub(crate) struct NewPair {
    pub(crate) pair: Pair,
    pub(crate) bookmark: Token,
    /// Told to nobody where the pair only says where a key or a host is.
    pub(crate) server_key: Token,
}

impl NewPair {
    /// Draws its secrets. The decision gives it its number.
    pub(crate) fn draw(engine: &Engine, org: OrgId, name: Label, ttl: Ttl) -> NewPair {
        let chance = engine.chance();
        let bookmark = chance.token(TokenKind::Bookmark);
        let server_key = chance.token(TokenKind::Server);
        let pair = Pair {
            id: PairId::from_random(chance.id()),
            org,
            number: 0,
            name,
            contact_email: None,
            ttl,
            bookmark: bookmark.hash(),
            server_key: server_key.hash(),
            reports_by_get: false,
            created_at: engine.now(),
            deleted_at: None,
        };
        NewPair { pair, bookmark, server_key }
    }
}

/// A key that is still to be minted, and its secret.
pub(crate) fn key(
    engine: &Engine,
    org: OrgId,
    name: Label,
    scopes: ScopeSet,
    origins: Vec<Origin>,
    lifetime: Option<Ttl>,
) -> (Key, Token) {
    let (chance, now) = (engine.chance(), engine.now());
    let secret = chance.token(TokenKind::Key);
    let ends_at = lifetime.map(|lifetime| now.saturating_add(lifetime.as_duration()));
    let key = Key {
        id: KeyId::from_random(chance.id()),
        org,
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
