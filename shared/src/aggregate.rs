//! Fewer networks for the same addresses, where a target has no room for all of them.

use std::collections::BTreeMap;

use crate::network::{Family, Network};
use crate::time::Expiry;

/// For whom an entry is there, and until when for each of them.
pub type Deadlines<K> = BTreeMap<K, Expiry>;

/// The shortest prefixes that merging may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Widest {
    /// Of IPv4.
    pub v4: u8,
    /// Of IPv6.
    pub v6: u8,
}

/// When two halves become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Only with the same deadlines, so that nothing is lost.
    Equal,
    /// With any, of which the earlier ones count.
    Earlier,
}

/// Merges adjacent networks that are there for the same, until they are at most `room`; `None` where
/// that cannot be done.
///
/// Exactly the same addresses stay allowed, for the same. No deadline becomes later, and none becomes
/// earlier where there is another way: then the earlier one of two halves counts for both, so that
/// what is merged has to be looked at again when it ends.
pub fn aggregate<K: Ord + Clone>(
    entries: &BTreeMap<Network, Deadlines<K>>,
    room: usize,
    widest: Widest,
) -> Option<BTreeMap<Network, Deadlines<K>>> {
    if entries.len() <= room {
        return Some(entries.clone());
    }
    let bare = without_covered(entries);
    [Rule::Equal, Rule::Earlier]
        .into_iter()
        .map(|rule| merged(bare.clone(), rule, widest))
        .find(|merged| merged.len() <= room)
}

/// Leaves out what a wider network lets in as well, for the same and as long.
fn without_covered<K: Ord + Clone>(
    entries: &BTreeMap<Network, Deadlines<K>>,
) -> BTreeMap<Network, Deadlines<K>> {
    let says_it_all = |wide: &Deadlines<K>, narrow: &Deadlines<K>| {
        narrow.iter().all(|(group, expiry)| wide.get(group).is_some_and(|wide| expiry <= wide))
    };
    let is_covered = |network: Network, narrow: &Deadlines<K>| {
        (0..network.prefix()).any(|prefix| {
            let wide = Network::containing(network.address(), prefix);
            wide.and_then(|wide| entries.get(&wide)).is_some_and(|wide| says_it_all(wide, narrow))
        })
    };
    let needed = entries.iter().filter(|(network, narrow)| !is_covered(**network, narrow));
    needed.map(|(network, deadlines)| (*network, deadlines.clone())).collect()
}

fn merged<K: Ord + Clone>(
    mut entries: BTreeMap<Network, Deadlines<K>>,
    rule: Rule,
    widest: Widest,
) -> BTreeMap<Network, Deadlines<K>> {
    for (family, bits, least) in [(Family::V4, 32, widest.v4), (Family::V6, 128, widest.v6)] {
        for prefix in (least + 1..=bits).rev() {
            let of_it =
                |network: &&Network| network.family() == family && network.prefix() == prefix;
            let networks: Vec<Network> = entries.keys().filter(of_it).copied().collect();
            for pair in networks.windows(2) {
                let [one, other] = pair else { continue };
                let wide = Network::containing(one.address(), prefix - 1);
                let Some(wide) = wide.filter(|wide| wide.covers(*other)) else { continue };
                if entries.contains_key(&wide) {
                    continue;
                }
                if let Some(deadlines) = both(&entries[one], &entries[other], rule) {
                    entries.remove(one);
                    entries.remove(other);
                    entries.insert(wide, deadlines);
                }
            }
        }
    }
    entries
}

/// What two halves have together, where they may become one.
fn both<K: Ord + Clone>(
    one: &Deadlines<K>,
    other: &Deadlines<K>,
    rule: Rule,
) -> Option<Deadlines<K>> {
    let may_be_one = match rule {
        Rule::Equal => one == other,
        Rule::Earlier => one.keys().eq(other.keys()),
    };
    let earlier = |(group, expiry): (&K, &Expiry)| (group.clone(), (*expiry).min(other[group]));
    may_be_one.then(|| one.iter().map(earlier).collect())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    const WIDEST: Widest = Widest { v4: 26, v6: 122 };

    type Entries = BTreeMap<Network, Deadlines<u8>>;

    /// Few addresses, few groups and few deadlines, so that much can be merged.
    fn any_entries() -> impl Strategy<Value = Entries> {
        let network = (any::<bool>(), 0u8..32, 0u8..=3).prop_map(|(is_v4, last, wider)| {
            Network::containing(address(is_v4, last), if is_v4 { 32 } else { 128 } - wider).unwrap()
        });
        let expiry = prop::option::weighted(0.8, 1u64..3)
            .prop_map(|ms| Expiry::from(ms.map(|ms| Timestamp::from_unix_ms(ms).unwrap())));
        let deadlines = prop::collection::btree_map(0u8..2, expiry, 1..=2);
        prop::collection::btree_map(network, deadlines, 0..40)
    }

    fn address(is_v4: bool, last: u8) -> IpAddr {
        match is_v4 {
            true => IpAddr::from([192, 0, 2, last]),
            false => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)]),
        }
    }

    /// The model: each address of the windows and each group, with the latest deadline.
    fn allowed(entries: &Entries) -> BTreeMap<(IpAddr, u8), Expiry> {
        let mut allowed = BTreeMap::new();
        for is_v4 in [true, false] {
            for address in (0..=u8::MAX).map(|last| address(is_v4, last)) {
                let covering = entries.iter().filter(|(network, _)| network.contains(address));
                for (group, expiry) in covering.flat_map(|(_, deadlines)| deadlines) {
                    let latest = allowed.entry((address, *group)).or_insert(*expiry);
                    *latest = (*latest).max(*expiry);
                }
            }
        }
        allowed
    }

    proptest! {
        #[test]
        fn the_same_addresses_are_let_in_for_the_same_and_no_longer(
            entries in any_entries(),
            room in 0usize..40,
        ) {
            let before = allowed(&entries);
            let equal = merged(without_covered(&entries), Rule::Equal, WIDEST);
            let least = merged(without_covered(&entries), Rule::Earlier, WIDEST).len();

            let fewer = aggregate(&entries, room, WIDEST);

            prop_assert_eq!(allowed(&equal), before.clone(), "equal deadlines lose nothing");
            match fewer {
                None => prop_assert!(room < least.min(equal.len()).min(entries.len())),
                Some(fewer) => {
                    prop_assert!(fewer.len() <= room);
                    let after = allowed(&fewer);
                    prop_assert!(after.keys().eq(before.keys()), "{:?}", fewer);
                    let is_later = |key: &(IpAddr, u8)| before[key] < after[key];
                    prop_assert!(!after.keys().any(is_later), "{:?}", fewer);
                    let is_wide = |network: &Network| {
                        let widest = if network.family() == Family::V4 { 26 } else { 122 };
                        network.prefix() < widest
                    };
                    prop_assert!(!fewer.keys().any(is_wide), "{:?}", fewer);
                }
            }
        }
    }

    #[test]
    fn four_hosts_become_one_network_and_no_wider_one_than_allowed() {
        let forever = Deadlines::from([(1, Expiry::Never)]);
        let hosts = |range: std::ops::Range<u8>| {
            range.map(|last| (Network::host(address(true, last)), forever.clone())).collect()
        };

        let shown = |entries: &Entries, room| {
            let fewer = aggregate(entries, room, Widest { v4: 30, v6: 128 })?;
            Some(fewer.keys().map(ToString::to_string).collect::<Vec<_>>())
        };

        assert_eq!(shown(&hosts(4..8), 1).unwrap(), ["192.0.2.4/30"]);
        assert_eq!(shown(&hosts(0..8), 2).unwrap(), ["192.0.2.0/30", "192.0.2.4/30"]);
        assert_eq!(shown(&hosts(0..8), 1), None);
        assert_eq!(shown(&hosts(1..3), 2).unwrap(), ["192.0.2.1/32", "192.0.2.2/32"]);
        assert_eq!(shown(&hosts(1..3), 1), None, "no two halves of one network");
    }
}
