//! What the operator's sets are to hold, and what they were found to hold: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use postern_shared::cover::{self, Range};
use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};
use postern_shared::plan::Observed;
use postern_shared::time::{Expiry, Timestamp};

use super::config::Shape;
use crate::target::nft::read::FoundElement;

/// Deadlines this close are the same: the kernel rounds them.
const SAME_DEADLINE: Duration = Duration::from_secs(1);

/// All entries of one family that are allowed at `now`; of several groups the latest expiry.
pub(super) fn union(
    model: &BTreeMap<GroupId, Observed>,
    family: Family,
    now: Timestamp,
) -> BTreeMap<Network, Expiry> {
    let mut union = BTreeMap::new();
    let entries = model.values().flatten();
    for (network, expiry) in
        entries.filter(|(network, expiry)| network.family() == family && expiry.is_live_at(now))
    {
        let kept = union.entry(*network).or_insert(*expiry);
        *kept = (*kept).max(*expiry);
    }
    union
}

/// The latest expiry of one network in any group.
pub(super) fn latest(model: &BTreeMap<GroupId, Observed>, network: Network) -> Option<Expiry> {
    model.values().filter_map(|entries| entries.get(&network)).max().copied()
}

/// What a set is to hold, as ranges: single addresses for a set that takes nothing else.
pub(super) fn wanted(
    model: &BTreeMap<GroupId, Observed>,
    family: Family,
    shape: &Shape,
    now: Timestamp,
) -> Vec<Range> {
    let union = union(model, family, now);
    if shape.interval {
        return cover::ranges(union);
    }
    let range = |(network, expiry): (Network, Expiry)| Range {
        first: network.address(),
        last: network.last(),
        expiry,
    };
    union.into_iter().map(range).collect()
}

/// What a set was found to hold, as ranges in order.
pub(super) fn found(elements: &[FoundElement], shape: &Shape) -> Vec<Range> {
    let ends: BTreeSet<IpAddr> =
        elements.iter().filter(|element| element.interval_end).map(|end| end.address).collect();
    let starts: BTreeMap<IpAddr, Expiry> = elements
        .iter()
        .filter(|element| !element.interval_end)
        .map(|start| (start.address, start.expiry))
        .collect();
    let last = |first: IpAddr| match shape.interval {
        true => ends
            .range((std::ops::Bound::Excluded(first), std::ops::Bound::Unbounded))
            .next()
            .map_or(greatest(first), |end| before(*end)),
        false => first,
    };
    starts.into_iter().map(|(first, expiry)| Range { first, last: last(first), expiry }).collect()
}

/// Counts the ranges that are in one list and not in the other, of those with time left.
pub(super) fn drift(wanted: &[Range], found: &[Range], now: Timestamp) -> usize {
    let soon = now.saturating_add(SAME_DEADLINE);
    let long: BTreeMap<(IpAddr, IpAddr), Expiry> = wanted
        .iter()
        .filter(|range| range.expiry.is_live_at(now))
        .map(|range| ((range.first, range.last), range.expiry))
        .collect();
    let there: BTreeMap<(IpAddr, IpAddr), Expiry> =
        found.iter().map(|range| ((range.first, range.last), range.expiry)).collect();
    let missing = long
        .iter()
        .filter(|(key, expiry)| expiry.is_live_at(soon) && !there.contains_key(*key))
        .count();
    let other = there
        .iter()
        .filter(|(key, expiry)| long.get(*key).is_none_or(|wanted| differ(*wanted, **expiry)))
        .filter(|(_, expiry)| expiry.is_live_at(soon))
        .count();
    missing + other
}

fn differ(one: Expiry, other: Expiry) -> bool {
    match (one, other) {
        (Expiry::At(one), Expiry::At(other)) => {
            SAME_DEADLINE < one.since(other) || SAME_DEADLINE < other.since(one)
        }
        (Expiry::Never, Expiry::Never) => false,
        (Expiry::At(_), Expiry::Never) | (Expiry::Never, Expiry::At(_)) => true,
    }
}

/// The address behind the last one of a range, which is how the kernel ends it; the first of all
/// addresses behind the last of all.
pub(in crate::target::nft) fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).wrapping_add(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).wrapping_add(1)).into(),
    }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).wrapping_sub(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).wrapping_sub(1)).into(),
    }
}

fn greatest(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::BROADCAST.into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::MAX).into(),
    }
}
