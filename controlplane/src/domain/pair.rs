//! Pairs: roving persons, devices and servers, and where they last were.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_shared::ids::{OrgId, PairId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::token::TokenHash;
use serde::{Deserialize, Serialize};

use super::command::Decision;
use super::rejection::{Rejection, check_unchanged};
use super::state::{PairRow, State};
use super::text::{Email, Label};
use super::{Change, Event};

/// A roving person, device or server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The pair.
    pub id: PairId,
    /// Its org.
    pub org: OrgId,
    /// Its running number in the org.
    pub number: u64,
    /// Its name.
    pub name: Label,
    /// Whom to write to about it.
    pub contact_email: Option<Email>,
    /// How long a reported address counts.
    pub ttl: Ttl,
    /// The hash of the bookmark, with which it reports.
    pub bookmark: TokenHash,
    /// The hash of the server key, with which one host reads it.
    pub server_key: TokenHash,
    /// Whether a plain GET of the predecessor's URL reports, too.
    pub reports_by_get: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was deleted: its secrets died then, its name stays for the audit.
    pub deleted_at: Option<Timestamp>,
}

/// Where a pair is, as published: known to agents and to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The pair.
    pub pair: PairId,
    /// Its IPv4 address.
    pub ipv4: Option<Spot<Ipv4Addr>>,
    /// Its IPv6 address.
    pub ipv6: Option<Spot<Ipv6Addr>>,
    /// The visit that the newest address belongs to.
    pub visit: Visit,
}

/// An address with the time of its newest published report. Each family has its own, so that
/// reports over one lengthen nothing for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot<A> {
    /// The address.
    pub address: A,
    /// When it was reported.
    pub at: Timestamp,
}

/// Joins the reports of both families that one person makes at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// A random number, told to the reporter.
    pub id: u64,
    /// When the visit began.
    pub began: Timestamp,
}

/// Most pairs that an org may have, deleted ones not counted.
const PAIRS_MAX: usize = 1_000_000;

/// What to change of a pair; `None` leaves as is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairEdit {
    /// A new name.
    pub name: Option<Label>,
    /// A new contact, or none any more.
    pub contact_email: Option<Option<Email>>,
    /// A new lifetime.
    pub ttl: Option<Ttl>,
    /// Whether a plain GET of the predecessor's URL reports, too.
    pub reports_by_get: Option<bool>,
}

impl Report {
    /// The addresses, each as a network of one with the time of its report.
    pub fn networks(&self) -> impl Iterator<Item = (Network, Timestamp)> + use<> {
        let v4 = self.ipv4.map(|spot| (Network::host(spot.address.into()), spot.at));
        let v6 = self.ipv6.map(|spot| (Network::host(spot.address.into()), spot.at));
        v4.into_iter().chain(v6)
    }

    /// When `address` was reported, if it is one of the addresses.
    pub fn reported_at(&self, address: IpAddr) -> Option<Timestamp> {
        let host = Network::host(address);
        self.networks().find(|(network, _)| *network == host).map(|(_, at)| at)
    }
}

pub(super) fn create(state: &State, pair: &Pair) -> Result<Decision, Rejection> {
    let org = state.org_row(pair.org)?;
    if PAIRS_MAX <= org.pairs_live {
        return Err(Rejection::Limit { what: "pairs of an org", max: PAIRS_MAX });
    }
    let number = org.record.pairs_numbered + 1;
    let numbered = Pair { number, ..pair.clone() };
    let counted = super::Org { pairs_numbered: number, ..org.record.clone() };
    let event =
        Event::PairCreated { pair: pair.id, number, name: pair.name.clone(), ttl: pair.ttl };
    Ok(Decision::new(event, [Change::PutOrg(counted), Change::PutPair(numbered)]))
}

pub(super) fn edit(
    state: &State,
    org: OrgId,
    id: PairId,
    edit: &PairEdit,
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let row = state.live_pair(org, id)?;
    check_unchanged(expected, row.revision)?;
    let mut pair = row.record.clone();
    if let Some(name) = &edit.name {
        pair.name = name.clone();
    }
    if let Some(contact) = &edit.contact_email {
        pair.contact_email = contact.clone();
    }
    pair.ttl = edit.ttl.unwrap_or(pair.ttl);
    pair.reports_by_get = edit.reports_by_get.unwrap_or(pair.reports_by_get);
    if pair == row.record {
        return Ok(Decision::nothing());
    }
    let event = Event::PairEdited {
        pair: id,
        name: pair.name.clone(),
        ttl: pair.ttl,
        contact_email: pair.contact_email.clone(),
        reports_by_get: pair.reports_by_get,
    };
    Ok(Decision::new(event, [Change::PutPair(pair)]))
}

pub(super) fn delete(
    state: &State,
    org: OrgId,
    id: PairId,
    expected: Option<Revision>,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let row = free(state, org, id, expected)?;
    Ok(Decision::new(
        Event::PairDeleted { pair: id, name: row.record.name.clone() },
        delete_changes(state, id, now),
    ))
}

/// The changes that take a pair away: its memberships first, then its life.
pub(super) fn delete_changes(state: &State, id: PairId, now: Timestamp) -> Vec<Change> {
    let Some(row) = state.pair(id) else { return Vec::new() };
    let memberships = row.memberships.iter();
    let mut changes: Vec<Change> =
        memberships.map(|(group, member)| Change::DeleteMember(*group, *member)).collect();
    changes.push(Change::PutPair(Pair { deleted_at: Some(now), ..row.record.clone() }));
    changes
}

/// Replaces the bookmark. The address closes with it: whoever held the old bookmark may have been
/// the last to report, and so chosen it.
pub(super) fn rotate_bookmark(
    state: &State,
    org: OrgId,
    id: PairId,
    bookmark: TokenHash,
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let row = free(state, org, id, expected)?;
    let event = Event::BookmarkRotated { pair: id, name: row.record.name.clone() };
    let rotated = Change::PutPair(Pair { bookmark, ..row.record.clone() });
    let closed = row.report.map(|_| Change::DeleteReport(id));
    Ok(Decision::new(event, [rotated].into_iter().chain(closed)))
}

/// Replaces the server key. It only reads, so nothing closes.
pub(super) fn rotate_server_key(
    state: &State,
    org: OrgId,
    id: PairId,
    server_key: TokenHash,
    expected: Option<Revision>,
) -> Result<Decision, Rejection> {
    let row = free(state, org, id, expected)?;
    let event = Event::ServerKeyRotated { pair: id, name: row.record.name.clone() };
    Ok(Decision::new(event, [Change::PutPair(Pair { server_key, ..row.record.clone() })]))
}

/// Forgets where a pair is. Its bookmark stays: the next report opens again.
pub(super) fn close_addresses(
    state: &State,
    org: OrgId,
    id: PairId,
) -> Result<Decision, Rejection> {
    let row = free(state, org, id, None)?;
    if row.report.is_none() {
        return Ok(Decision::nothing());
    }
    let event = Event::AddressesClosed { pair: id, name: row.record.name.clone() };
    Ok(Decision::new(event, [Change::DeleteReport(id)]))
}

/// Notes that the bookmark goes to the owner by mail. Nothing changes by it.
pub(super) fn note_mailed(
    state: &State,
    org: OrgId,
    id: PairId,
    bookmark: TokenHash,
    to: &Email,
) -> Result<Decision, Rejection> {
    let pair = &state.live_pair(org, id)?.record;
    if pair.bookmark != bookmark {
        return Err(Rejection::Conflict("the bookmark is not in force any more; make a new one"));
    }
    if pair.contact_email.as_ref() != Some(to) {
        return Err(Rejection::Conflict("the pair has another owner by now; look at it again"));
    }
    let event = Event::BookmarkMailed { pair: id, name: pair.name.clone(), to: to.clone() };
    Ok(Decision::new(event, []))
}

/// A pair whose secrets are not an agent's, still at `expected`.
fn free(
    state: &State,
    org: OrgId,
    id: PairId,
    expected: Option<Revision>,
) -> Result<&PairRow, Rejection> {
    let row = state.live_pair(org, id)?;
    check_unchanged(expected, row.revision)?;
    if state.agents_of(org).any(|agent| agent.pair == id && agent.revoked_at.is_none()) {
        return Err(Rejection::Conflict("the pair is an agent's own; revoke the agent instead"));
    }
    Ok(row)
}
