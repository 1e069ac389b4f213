//! What we believe the kernel holds, held against what was read.

use std::time::Duration;

use postern_shared::plan::Observed;
use postern_shared::time::{Expiry, Timestamp};

use super::program::Standing;
use super::{GateTarget, cut};
use crate::target::nft::read::Found;

/// Deadlines this close are the same when drift is counted: the kernel rounds them.
const SAME_DEADLINE: Duration = Duration::from_secs(1);

impl GateTarget {
    /// Takes what was read for what is so; answers how much of it we had otherwise.
    pub(super) fn take_in(&mut self, found: &Found, port: u32, now: Timestamp) -> usize {
        let (standing, observed) = Standing::assess(&self.config, found, port);
        let drift = match self.read_at {
            None => 0,
            Some(_) => {
                let entries: usize = observed
                    .iter()
                    .map(|(group, entries)| drift(self.observed.get(group), entries, now))
                    .sum();
                let objects = self.standing.is_settled(self.standing.owned)
                    && !standing.is_settled(standing.owned);
                entries + usize::from(objects)
            }
        };
        if self.cuts() {
            let expired =
                self.observed.values().flatten().filter(|(_, expiry)| !expiry.is_live_at(now));
            self.leavers.extend(expired.map(|(network, _)| *network));
        }
        (self.standing, self.observed) = (standing, observed);
        self.next_deadline = cut::next_deadline(&self.observed);
        (self.known, self.read_at) = (true, Some(now));
        drift
    }
}

/// Counts the entries that are not as they were left, of those that have time left.
fn drift(left: Option<&Observed>, found: &Observed, now: Timestamp) -> usize {
    let empty = Observed::new();
    let left = left.unwrap_or(&empty);
    let soon = now.saturating_add(SAME_DEADLINE);
    let differs = |one: Expiry, other: Expiry| match (one.deadline(), other.deadline()) {
        (Some(one), Some(other)) => {
            SAME_DEADLINE < one.since(other) || SAME_DEADLINE < other.since(one)
        }
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    };
    let missing = left
        .iter()
        .filter(|(network, expiry)| expiry.is_live_at(soon) && !found.contains_key(network))
        .count();
    let other = found
        .iter()
        .filter(|(network, expiry)| match left.get(network) {
            Some(left) => differs(*left, **expiry),
            None => true,
        })
        .count();
    missing + other
}
