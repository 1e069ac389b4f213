//! Takes away what is overdue, by the marks alone: without any list, without any group.

use std::collections::{BTreeMap, BTreeSet};

use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use super::{Edits, Held, Provider, in_time, latest_deadline};
use crate::target::TargetError;

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Overdue entries that are gone.
    pub removed: BTreeSet<Network>,
    /// Overdue entries that are still there.
    pub left: BTreeSet<Network>,
}

/// Removes every entry of this owner all of whose deadlines are over at `now`, and looks whether it
/// is gone. What says no deadline that can be read is left to an agent, which knows what it is for.
pub async fn sweep<P: Provider>(
    provider: &mut P,
    owner: &str,
    now: Timestamp,
) -> Result<Swept, TargetError> {
    provider.tell_time(now);
    in_time(provider.read()).await?;
    let overdue = overdue(&provider.held(), owner, now);
    if !overdue.is_empty() || provider.is_unfinished() {
        let edits = Edits { remove: overdue.clone(), put: BTreeMap::new() };
        in_time(provider.write(&edits)).await?;
        in_time(provider.read()).await?;
    }
    if let Some(reason) = provider.doubt() {
        return Err(TargetError::Rejected { reason });
    }
    let there = provider.held();
    let (left, removed) = overdue.into_iter().partition(|network| there.contains_key(network));
    Ok(Swept { removed, left })
}

fn overdue(held: &BTreeMap<Network, Held>, owner: &str, now: Timestamp) -> BTreeSet<Network> {
    let is_overdue = |held: &Held| {
        let deadlines = held.descriptions.iter().filter_map(|text| latest_deadline(text, owner));
        // Of pieces that differ the earliest counts.
        deadlines.min().is_some_and(|expiry| !expiry.is_live_at(now))
    };
    held.iter().filter(|(_, held)| is_overdue(held)).map(|(network, _)| *network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_that_all_its_time_is_over_is_overdue() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let held = |texts: &[&str]| Held {
            descriptions: texts.iter().map(|text| (*text).to_owned()).collect(),
            is_whole: true,
        };
        let (over, left) = ("a=2025-12-31T23:59:59Z", "b=2026-01-01T00:00:01Z");
        let entries = [
            ("10.0.0.1", held(&[&format!("postern web {over}")])),
            ("10.0.0.2", held(&[&format!("postern web {over},{left}")])),
            ("10.0.0.3", held(&[&format!("postern web {left}"), &format!("postern web {over}")])),
            ("10.0.0.4", held(&["postern web a=never"])),
            ("10.0.0.5", held(&["postern web a=soon"])),
            ("10.0.0.6", held(&[&format!("postern other {over}")])),
        ];
        let entries = entries.map(|(network, held)| (network.parse().unwrap(), held)).into();

        let found: Vec<String> =
            overdue(&entries, "web", now).iter().map(ToString::to_string).collect();

        assert_eq!(found, ["10.0.0.1/32", "10.0.0.3/32"]);
    }
}
