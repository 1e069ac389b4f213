//! What a report means: a heartbeat that stays in memory, or a change that must be durable.

use std::net::IpAddr;
use std::time::Duration;

use postern_shared::ids::PairId;
use postern_shared::network::Network;
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::token::TokenHash;

use super::command::Decision;
use super::pair::{Report, Spot, Visit};
use super::rejection::Rejection;
use super::state::{PairRow, State};
use super::{Change, Event};

/// How long a report of the other family may still join a visit.
const VISIT: Duration = Duration::from_secs(60);
/// A report of an unchanged address is published when it lengthens the deadline by at least this
/// part of the lifetime: that is how seldom agents hear of a pair that stays where it is.
const PUBLISHED_PARTS: u32 = 16;

/// What a reporter brings along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The address that was seen.
    pub address: IpAddr,
    /// The visit that the reporter says it belongs to.
    pub visit: Option<u64>,
    /// A random number, for a new visit.
    pub fresh_visit: u64,
}

/// What a report means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that anybody else must know: the address is as published, and so, nearly, is its
    /// deadline.
    Heartbeat(Report),
    /// To be committed before it is answered.
    Publish {
        /// The visit that it belongs to.
        visit: Visit,
        /// Whether it takes away an address that counts, so that somebody may be shut out by it.
        evicts: bool,
    },
}

/// Says what a report of a live pair means, without deciding anything. `ttl` is the shortest
/// lifetime that the pair's address has anywhere.
pub fn hear(row: &PairRow, ttl: Ttl, seen: Seen, now: Timestamp) -> Heard {
    let fresh = Visit { id: seen.fresh_visit, began: now };
    let Some(report) = row.report else { return Heard::Publish { visit: fresh, evicts: false } };
    match report.reported_at(seen.address) {
        Some(at) if now.since(at) < ttl.as_duration() / PUBLISHED_PARTS => Heard::Heartbeat(report),
        Some(_) => Heard::Publish { visit: report.visit, evicts: false },
        None if joins(row, &report, seen.visit, now) => {
            let is_v4 = seen.address.to_canonical().is_ipv4();
            let evicts = counting(row, &report, now).any(|it| it.is_ipv4() == is_v4);
            Heard::Publish { visit: report.visit, evicts }
        }
        None => {
            let evicts = counting(row, &report, now).next().is_some();
            Heard::Publish { visit: fresh, evicts }
        }
    }
}

/// The addresses of a pair that are not stale: the others are in no list any more.
fn counting(row: &PairRow, report: &Report, now: Timestamp) -> impl Iterator<Item = IpAddr> {
    let addresses = report.networks().map(|(network, _)| network.address());
    addresses.filter(move |address| row.stale_at(*address).is_some_and(|at| now < at))
}

/// Says whether a report that names `visit` belongs to the published one: the visit has just begun
/// or, since a heartbeat is told the visit that it stays in, the pair was heard of just now.
fn joins(row: &PairRow, report: &Report, visit: Option<u64>, now: Timestamp) -> bool {
    let is_young = |since: Timestamp| now.since(since) < VISIT;
    visit == Some(report.visit.id)
        && (is_young(report.visit.began) || row.last_seen().is_some_and(is_young))
}

/// The report that follows on `before`.
///
/// An address that is not new, and one of the same visit, leave the other family's address as it
/// is; any other address means that the pair has moved, and replaces both.
fn follow_on(
    before: Option<&Report>,
    pair: PairId,
    seen: (IpAddr, Visit),
    now: Timestamp,
) -> Report {
    let (address, visit) = seen;
    let stays =
        |before: &&Report| before.visit.id == visit.id || before.reported_at(address).is_some();
    let kept = before.filter(stays);
    let mut next = Report {
        pair,
        ipv4: kept.and_then(|kept| kept.ipv4),
        ipv6: kept.and_then(|kept| kept.ipv6),
        visit,
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => next.ipv4 = Some(Spot { address: v4, at: now }),
        IpAddr::V6(v6) => next.ipv6 = Some(Spot { address: v6, at: now }),
    }
    next
}

pub(super) fn report(
    state: &State,
    pair: PairId,
    bookmark: TokenHash,
    (address, visit): (IpAddr, Visit),
    now: Timestamp,
) -> Result<Decision, Rejection> {
    // The bookmark may have been replaced while the report waited for its turn.
    let is_good = |row: &&PairRow| row.is_live() && row.record.bookmark == bookmark;
    let row = state.pair(pair).filter(is_good).ok_or(Rejection::NotFound)?;
    if let Some(why) = Network::host(address).ungrantable() {
        let reason = format!("{address} is among the {why}, which may never be granted");
        return Err(Rejection::Invalid { field: "address", reason });
    }
    let before = row.report.as_ref();
    let next = follow_on(before, pair, (address, visit), now);
    let addresses = |report: &Report| {
        (report.ipv4.map(|spot| spot.address), report.ipv6.map(|spot| spot.address))
    };
    let moved = before.is_none_or(|before| addresses(before) != addresses(&next));
    let event = Event::PairReported { pair, ipv4: next.ipv4, ipv6: next.ipv6, moved };
    Ok(Decision::new(event, [Change::PutReport(next)]))
}
