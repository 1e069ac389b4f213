//! API keys: a secret, scopes, and the origins from which the secret is worth anything.

use std::net::IpAddr;

use postern_shared::ids::{AgentId, KeyId, OrgId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::scope::{Scope, ScopeSet};
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::token::TokenHash;
use serde::{Deserialize, Serialize};

use super::account::{self, Factor};
use super::command::{Command, Decision, Order};
use super::org::Role;
use super::pair::{self, Pair};
use super::rejection::{Rejection, check_unchanged};
use super::state::State;
use super::text::Label;
use super::{Actor, Change, Event};

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The key.
    pub id: KeyId,
    /// Its org.
    pub org: OrgId,
    /// Its name.
    pub name: Label,
    /// The hash of its secret.
    pub hash: TokenHash,
    /// What it may do.
    pub scopes: ScopeSet,
    /// From where it works; empty means from nowhere.
    pub origins: Vec<Origin>,
    /// When it was minted.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires: Expiry,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// From where a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From a network.
    Network(Network),
    /// From whatever a pair's bookmark last reported, until that is stale ("recursive lockdown").
    Pair(PairId),
}

impl Origin {
    /// Says whether a key that works from here works from all of `other`.
    fn covers(self, other: Origin) -> bool {
        match (self, other) {
            (Origin::Network(wide), Origin::Network(narrow)) => wide.covers(narrow),
            (Origin::Pair(one), Origin::Pair(other)) => one == other,
            (Origin::Network(_), Origin::Pair(_)) | (Origin::Pair(_), Origin::Network(_)) => false,
        }
    }
}

/// Who a secret belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Credential {
    /// An API key.
    Key(OrgId, KeyId),
    /// An agent.
    Agent(OrgId, AgentId),
}

impl Credential {
    /// Its org and its holder, as the audit names them.
    pub fn actor(self) -> (OrgId, Actor) {
        match self {
            Credential::Key(org, key) => (org, Actor::Key(key)),
            Credential::Agent(org, agent) => (org, Actor::Agent(agent)),
        }
    }
}

/// What a credential is worth from an address at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The secret counts, and the address is one of its origins.
    Good,
    /// The secret counts, but not from this address.
    ForbiddenOrigin,
    /// Unknown, revoked or expired: which of them is not for the caller to know.
    Unknown,
}

/// Most keys that an org may have, revoked ones not counted.
const KEYS_MAX: usize = 1_000;
/// Most origins that a key may have.
const ORIGINS_MAX: usize = 64;

impl State {
    /// Says what `credential` is worth from `address` at `now`.
    pub fn standing(&self, credential: Credential, address: IpAddr, now: Timestamp) -> Standing {
        let origin_is_good = match credential {
            Credential::Key(_, id) => match self.key(id) {
                Some(key) if key.revoked_at.is_none() && key.expires.is_live_at(now) => {
                    key.origins.iter().any(|origin| self.admits(*origin, address, now))
                }
                Some(_) | None => return Standing::Unknown,
            },
            Credential::Agent(_, id) => match self.agent(id) {
                Some(agent) if agent.revoked_at.is_none() => {
                    self.admits(Origin::Pair(agent.pair), address, now)
                }
                Some(_) | None => return Standing::Unknown,
            },
        };
        if origin_is_good { Standing::Good } else { Standing::ForbiddenOrigin }
    }

    /// Until when `credential` is worth something from `address`, if nothing else happens.
    pub fn standing_ends(&self, credential: Credential, address: IpAddr) -> Expiry {
        let ends = |origin: &Origin| match origin {
            Origin::Network(network) => network.contains(address).then_some(Expiry::Never),
            Origin::Pair(id) => self.pair(*id)?.stale_at(address).map(Expiry::At),
        };
        let ended = Expiry::At(Timestamp::EPOCH);
        match credential {
            Credential::Key(_, id) => self.key(id).map_or(ended, |key| {
                key.origins.iter().filter_map(ends).max().unwrap_or(ended).min(key.expires)
            }),
            Credential::Agent(_, id) => {
                self.agent(id).and_then(|agent| ends(&Origin::Pair(agent.pair))).unwrap_or(ended)
            }
        }
    }

    /// Says whether `credential` has `scope`. Agents have none: their routes are their own.
    pub fn has_scope(&self, credential: Credential, scope: Scope) -> bool {
        match credential {
            Credential::Key(_, id) => self.key(id).is_some_and(|key| key.scopes.allows(scope)),
            Credential::Agent(..) => false,
        }
    }

    fn admits(&self, origin: Origin, address: IpAddr, now: Timestamp) -> bool {
        match origin {
            Origin::Network(network) => network.contains(address),
            Origin::Pair(id) => {
                let stale_at = self.pair(id).and_then(|row| row.stale_at(address));
                stale_at.is_some_and(|stale_at| now < stale_at)
            }
        }
    }
}

pub(super) fn mint(state: &State, key: &Key) -> Result<Decision, Rejection> {
    check_room(state, key)?;
    for origin in &key.origins {
        if let Origin::Pair(pair) = origin {
            state.live_pair(key.org, *pair)?;
        }
    }
    Ok(minted(key.clone()))
}

/// Makes `pair` together with a key that works only from where it is ("recursive lockdown").
pub(super) fn mint_locked(state: &State, key: &Key, pair: &Pair) -> Result<Decision, Rejection> {
    if pair.org != key.org {
        return Err(Rejection::NotFound);
    }
    check_room(state, key)?;
    let locked = Key { origins: vec![Origin::Pair(pair.id)], ..key.clone() };
    Ok(pair::create(state, pair)?.and(minted(locked)))
}

fn check_room(state: &State, key: &Key) -> Result<(), Rejection> {
    let org = state.org_row(key.org)?;
    let live = org.keys.iter().filter_map(|id| state.key(*id));
    if KEYS_MAX <= live.filter(|key| key.revoked_at.is_none()).count() {
        return Err(Rejection::Limit { what: "keys of an org", max: KEYS_MAX });
    }
    if ORIGINS_MAX < key.origins.len() {
        return Err(Rejection::Limit { what: "origins of a key", max: ORIGINS_MAX });
    }
    Ok(())
}

fn minted(key: Key) -> Decision {
    let event = Event::KeyMinted {
        key: key.id,
        name: key.name.clone(),
        scopes: key.scopes,
        origins: key.origins.clone(),
        expires: key.expires,
    };
    Decision::new(event, [Change::PutKey(key)])
}

/// Mints a key for an admin, and uses up the code that the admin has shown for it.
pub(super) fn mint_as(
    state: &State,
    user: UserId,
    factor: &Factor,
    (key, pair): (&Key, Option<&Pair>),
    now: Timestamp,
) -> Result<Decision, Rejection> {
    if state.live_user(key.org, user)?.role != Role::Admin {
        return Err(Rejection::Conflict("only an admin mints keys"));
    }
    if let Factor::Recovery(_) = factor {
        return Err(Rejection::Conflict(
            "a key needs a code of the authenticator, no recovery code",
        ));
    }
    let account = account::consume_signed_in(account::active(state, user)?, factor, now)?;
    let mut decision = match pair {
        Some(pair) => mint_locked(state, key, pair)?,
        None => mint(state, key)?,
    };
    decision.changes.push(Change::PutAccount(account));
    Ok(decision)
}

/// Refuses to take from a key the place from which that very key asks for it: nobody shall lock itself out
/// by mistake, and whoever wants the key gone can revoke it. For an order that may be carried out else.
pub(super) fn check_own_place(
    state: &State,
    order: &Order,
    now: Timestamp,
) -> Result<(), Rejection> {
    let (Actor::Key(caller), Some(source)) = (order.actor, order.source) else { return Ok(()) };
    let Command::NarrowKey { key, origins, .. } = &order.command else { return Ok(()) };
    let keeps_all = state.key(*key).is_some_and(|key| key.origins == *origins);
    let is_kept = |origin: &Origin| state.admits(*origin, source, now);
    if caller != *key || keeps_all || origins.iter().any(is_kept) {
        return Ok(());
    }
    let reason = format!(
        "leaves out {source}, from where this very key asks; keep that place, or revoke the key"
    );
    Err(Rejection::Invalid { field: "origins", reason })
}

/// Takes rights and origins away from a key: what it has afterwards lies within what it had.
pub(super) fn narrow(
    state: &State,
    org: OrgId,
    id: KeyId,
    (scopes, origins): (ScopeSet, &[Origin]),
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let row = state.key_row(id).filter(|row| row.record.org == org).ok_or(Rejection::NotFound)?;
    check_unchanged(expected, row.revision)?;
    let key = &row.record;
    if key.revoked_at.is_some() {
        return Err(Rejection::Conflict("the key is revoked; mint another one"));
    }
    if key.scopes == scopes && key.origins == origins {
        return Ok(Decision::nothing());
    }
    if ORIGINS_MAX < origins.len() {
        return Err(Rejection::Limit { what: "origins of a key", max: ORIGINS_MAX });
    }
    if scopes.is_empty() || origins.is_empty() {
        return Err(Rejection::Conflict("leave the key a scope and an origin, or revoke it"));
    }
    if let Some(new) = scopes.iter().find(|scope| !key.scopes.allows(*scope)) {
        let reason = format!("would gain {new}; mint another key for more rights");
        return Err(Rejection::Invalid { field: "scopes", reason });
    }
    if let Some(new) = origins.iter().find(|new| !key.origins.iter().any(|old| old.covers(**new))) {
        let new = match new {
            Origin::Network(network) => network.to_string(),
            Origin::Pair(pair) => format!("the pair {pair}"),
        };
        let reason = format!("would gain {new}; mint another key for more places");
        return Err(Rejection::Invalid { field: "origins", reason });
    }
    let narrowed = Key { scopes, origins: origins.to_vec(), ..key.clone() };
    let event = Event::KeyNarrowed {
        key: id,
        name: key.name.clone(),
        scopes,
        origins: narrowed.origins.clone(),
    };
    Ok(Decision::new(event, [Change::PutKey(narrowed)]))
}

pub(super) fn revoke(
    state: &State,
    org: OrgId,
    id: KeyId,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let key = state.key(id).filter(|key| key.org == org).ok_or(Rejection::NotFound)?;
    if key.revoked_at.is_some() {
        return Ok(Decision::nothing());
    }
    let revoked = Key { revoked_at: Some(now), ..key.clone() };
    let event = Event::KeyRevoked { key: id, name: key.name.clone() };
    Ok(Decision::new(event, [Change::PutKey(revoked)]))
}
