//! Carrying a report out, and how far it got.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_shared::ids::{Epoch, GroupId, OrgId, PairId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::wire::v1::{BeaconAnswer, Confirmation};

use super::Bookmark;
use super::freeze::take_move;
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{Actor, Command, Heard, Order, PairRow, Refusal, Report, Seen, State, hear};
use crate::http::ApiError;
use crate::http::limit::{Caller, Tier};

/// Longest time between two reports that a pair is asked for.
const NEXT_SECS_MAX: u64 = 15 * 60;
/// Shortest, unless the lifetime of the address leaves less.
const NEXT_SECS_MIN: u64 = 60;

/// What a report led to.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) pair: PairId,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) expires_at: Timestamp,
    pub(super) org: OrgId,
    moved: bool,
    next: u64,
    visit: u64,
    pub(super) epoch: Epoch,
    /// The lists that hold the address, at the commit that put it there.
    pub(super) lists: BTreeMap<GroupId, Revision>,
}

/// Reports that the pair of `bookmark` is at `address`. A heartbeat is noted beside all other readers; whatever
/// anybody else must know is durable before this returns.
pub(crate) async fn report(
    app: &App,
    bookmark: &Bookmark,
    address: IpAddr,
    visit: Option<u64>,
) -> Result<Reported, ApiError> {
    let Bookmark { pair, hash } = *bookmark;
    if let Some(detail) = app.settings().refuses(Network::host(address)) {
        return Err(ApiError::field("", detail));
    }
    let (before, visit, evicts) = {
        let now = app.engine().now();
        let state = app.engine().state();
        let is_good = |row: &&PairRow| row.is_live() && row.record.bookmark == hash;
        let row = state.pair(pair).filter(is_good).ok_or(ApiError::NotFound)?;
        let seen = Seen { address, visit, fresh_visit: app.spread() };
        match hear(row, state.shortest_ttl(row), seen, now) {
            Heard::Heartbeat(report) => {
                row.heard_at(now);
                count("heartbeat");
                return Ok(Reported::new(app, &state, row, &report, (address, false)));
            }
            Heard::Publish { visit, evicts } => (row.report, visit, evicts),
        }
    };
    // A heartbeat costs no more than its refusal would; what must be committed has a budget.
    let now = app.engine().now();
    let budget = app.limiter().take(Tier::Write, Caller::record(pair.as_bytes()), now);
    if let Err(exhausted) = budget {
        app.count_refusal(bookmark.who(app), Refusal::RateLimited, address);
        return Err(exhausted.into());
    }
    if evicts {
        take_move(app, bookmark, address, now).inspect_err(|_| count("frozen"))?;
    }
    let command = Command::Report { pair, bookmark: hash, address, visit };
    let order = Order { actor: Actor::Pair(pair), source: Some(address), command };
    app.engine().submit(order).await.map_err(refused)?;

    let state = app.engine().state();
    let row = state.pair(pair).filter(|row| row.is_live()).ok_or(ApiError::NotFound)?;
    row.heard_at(now);
    let report = row.report.ok_or(ApiError::NotFound)?;
    let moved = before.is_none_or(|before| before.reported_at(address).is_none());
    count(if moved { "moved" } else { "renewed" });
    Ok(Reported::new(app, &state, row, &report, (address, moved)))
}

fn count(outcome: &'static str) {
    metrics::counter!("postern_reports_total", "outcome" => outcome).increment(1);
}

impl Reported {
    fn new(
        app: &App,
        state: &State,
        row: &PairRow,
        report: &Report,
        (address, moved): (IpAddr, bool),
    ) -> Reported {
        let ttl = state.shortest_ttl(row);
        let lists = row.memberships.keys().filter_map(|id| {
            let group = state.group(*id)?;
            Some((*id, group.list_revision))
        });
        // Another report may have come between the commit and this look: then its time counts.
        let reported_at = report.reported_at(address).unwrap_or(report.visit.began);
        Reported {
            pair: row.record.id,
            ipv4: report.ipv4.map(|spot| spot.address),
            ipv6: report.ipv6.map(|spot| spot.address),
            expires_at: reported_at.saturating_add(ttl.as_duration()),
            org: row.record.org,
            moved,
            next: next_secs(ttl, app.spread()),
            visit: report.visit.id,
            epoch: app.engine().epoch(),
            lists: lists.collect(),
        }
    }

    /// What the last report of `address` led to, where it has not expired.
    pub(super) fn found(
        app: &App,
        bookmark: &Bookmark,
        address: IpAddr,
    ) -> Result<Option<Reported>, ApiError> {
        let (now, state) = (app.engine().now(), app.engine().state());
        let row = state.pair(bookmark.pair).filter(|row| row.is_live());
        let row = row.ok_or(ApiError::NotFound)?;
        let report = row.report.filter(|report| report.reported_at(address).is_some());
        let found = report.map(|report| Reported::new(app, &state, row, &report, (address, false)));
        Ok(found.filter(|found| now < found.expires_at))
    }

    /// The answer for programs.
    pub(crate) fn answer(&self, confirmation: Confirmation) -> BeaconAnswer {
        BeaconAnswer {
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            moved: self.moved,
            expires_at: self.expires_at,
            next: self.next,
            visit: format!("{:016x}", self.visit),
            confirmation,
        }
    }
}

/// After how many seconds a pair should report again: often enough that no deadline passes, so
/// seldom that a report is worth its answer, and not all pairs at once.
fn next_secs(ttl: Ttl, spread: u64) -> u64 {
    let (sixteenth, third) = (ttl.as_secs() / 16, ttl.as_secs() / 3);
    let longest = sixteenth.clamp(NEXT_SECS_MIN, NEXT_SECS_MAX).min(third).max(1);
    longest - spread % (longest / 8 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_is_reported_four_times_an_hour_and_a_minute_three_times() {
        let next = |secs| next_secs(Ttl::from_secs(secs).unwrap(), 0);

        assert_eq!([next(86_400), next(3_600), next(60), next(2)], [900, 225, 20, 1]);
    }

    proptest! {
        #[test]
        fn the_next_report_comes_before_the_deadline(secs in 2..Ttl::SECS_MAX, spread: u64) {
            let next = next_secs(Ttl::from_secs(secs).unwrap(), spread);

            prop_assert!(0 < next && next < secs && next <= NEXT_SECS_MAX);
        }
    }
}
