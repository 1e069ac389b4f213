//! The allowlist as a value: which networks are allowed, and until when.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::network::Network;
use crate::time::{Expiry, Timestamp};

/// The allowed networks of one group, each with its expiry.
///
/// Networks may overlap: each entry keeps its own deadline. An entry stays in the list when its
/// deadline passes, until [`Allowlist::drop_expired`] is called; readers name the time that they
/// ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist {
    entries: BTreeMap<Network, Expiry>,
    by_deadline: BTreeSet<(Timestamp, Network)>,
    digest: Digest,
}

impl Allowlist {
    /// Makes an empty list.
    pub fn new() -> Allowlist {
        Allowlist::default()
    }

    /// Allows `network` until `expiry`, or longer where the list already says longer.
    pub fn allow(&mut self, network: Network, expiry: Expiry) {
        if self.get(network).is_none_or(|present| present < expiry) {
            self.set(network, expiry);
        }
    }

    /// Allows `network` until exactly `expiry`; answers what stood there before.
    pub fn set(&mut self, network: Network, expiry: Expiry) -> Option<Expiry> {
        let before = self.remove(network);
        self.entries.insert(network, expiry);
        if let Expiry::At(deadline) = expiry {
            self.by_deadline.insert((deadline, network));
        }
        self.digest = self.digest.with(network, expiry);
        before
    }

    /// Takes `network` off the list; answers the expiry that it had.
    pub fn remove(&mut self, network: Network) -> Option<Expiry> {
        let expiry = self.entries.remove(&network)?;
        if let Expiry::At(deadline) = expiry {
            self.by_deadline.remove(&(deadline, network));
        }
        self.digest = self.digest.without(network, expiry);
        Some(expiry)
    }

    /// Drops the entries whose deadline is `now` or earlier; answers their networks, the earliest
    /// deadline first.
    pub fn drop_expired(&mut self, now: Timestamp) -> Vec<Network> {
        let expired: Vec<Network> = self.expired_at(now).map(|(_, network)| network).collect();
        for network in &expired {
            self.remove(*network);
        }
        expired
    }

    /// Takes as little memory as the entries need: what grew entry by entry takes nearly twice
    /// that. Costs a walk over all of them.
    pub fn compact(&mut self) {
        self.entries = std::mem::take(&mut self.entries).into_iter().collect();
        self.by_deadline = std::mem::take(&mut self.by_deadline).into_iter().collect();
    }

    /// The expiry of exactly this network; overlapping entries play no part.
    pub fn get(&self, network: Network) -> Option<Expiry> {
        self.entries.get(&network).copied()
    }

    /// All entries in the order of their networks, expired ones included.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Network, Expiry)> + '_ {
        self.entries.iter().map(|(network, expiry)| (*network, *expiry))
    }

    /// The entries that are allowed at `now`, in the order of their networks.
    pub fn live_at(&self, now: Timestamp) -> impl Iterator<Item = (Network, Expiry)> + '_ {
        self.iter().filter(move |(_, expiry)| expiry.is_live_at(now))
    }

    /// How many entries are allowed at `now`.
    pub fn len_at(&self, now: Timestamp) -> usize {
        self.entries.len() - self.expired_at(now).count()
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Says whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The digest of the entries that are allowed at `now`.
    pub fn digest_at(&self, now: Timestamp) -> Digest {
        self.expired_at(now).fold(self.digest, |digest, (deadline, network)| {
            digest.without(network, Expiry::At(deadline))
        })
    }

    /// The earliest deadline after `now`.
    pub fn next_deadline_after(&self, now: Timestamp) -> Option<Timestamp> {
        let later = (std::ops::Bound::Excluded((now, *LAST)), std::ops::Bound::Unbounded);
        self.by_deadline.range(later).next().map(|(deadline, _)| *deadline)
    }

    fn expired_at(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Network)> + '_ {
        self.by_deadline.range(..=(now, *LAST)).copied()
    }
}

/// The greatest network there is, to close a range of (deadline, network).
static LAST: std::sync::LazyLock<Network> =
    std::sync::LazyLock::new(|| Network::host(std::net::Ipv6Addr::from(u128::MAX).into()));

impl FromIterator<(Network, Expiry)> for Allowlist {
    /// Collects entries; of two for the same network the later expiry wins.
    fn from_iter<I: IntoIterator<Item = (Network, Expiry)>>(entries: I) -> Allowlist {
        let mut entries: Vec<(Network, Expiry)> = entries.into_iter().collect();
        entries.sort_unstable_by(|one, other| (one.0, other.1).cmp(&(other.0, one.1)));
        entries.dedup_by_key(|(network, _)| *network);
        let deadline = |(network, expiry): &(Network, Expiry)| Some((expiry.deadline()?, *network));
        Allowlist {
            by_deadline: entries.iter().filter_map(deadline).collect(),
            digest: entries
                .iter()
                .fold(Digest::EMPTY, |digest, (network, expiry)| digest.with(*network, *expiry)),
            entries: entries.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms).unwrap()
    }

    #[test]
    fn of_two_expiries_the_later_wins() {
        let mut list = Allowlist::new();

        list.allow(net("192.0.2.1"), Expiry::At(at(9)));
        list.allow(net("192.0.2.1"), Expiry::At(at(5)));

        assert_eq!(list.get(net("192.0.2.1")), Some(Expiry::At(at(9))));
    }

    #[test]
    fn expired_entries_leave_at_their_deadline_and_in_order() {
        let mut list: Allowlist = [
            (net("192.0.2.1"), Expiry::At(at(20))),
            (net("192.0.2.2"), Expiry::At(at(10))),
            (net("192.0.2.3"), Expiry::Never),
        ]
        .into_iter()
        .collect();

        assert_eq!(list.len_at(at(10)), 2);
        assert_eq!(list.next_deadline_after(at(10)), Some(at(20)));
        assert_eq!(list.drop_expired(at(20)), [net("192.0.2.2"), net("192.0.2.1")]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [(net("192.0.2.3"), Expiry::Never)]);
    }

    fn any_entry() -> impl Strategy<Value = (Network, Expiry)> {
        let network = (any::<std::net::IpAddr>(), 0u8..=32)
            .prop_filter_map("a network", |(address, prefix)| Network::containing(address, prefix));
        (network, prop::option::of(0u64..50).prop_map(|ms| Expiry::from(ms.map(at))))
    }

    proptest! {
        #[test]
        fn the_digest_is_that_of_a_list_built_anew_from_the_live_entries(
            entries in prop::collection::vec(any_entry(), 0..40),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            now in 0u64..50,
        ) {
            let mut list: Allowlist = entries.iter().copied().collect();
            for index in removed.iter().filter(|_| !entries.is_empty()) {
                list.remove(index.get(&entries).0);
            }
            let anew: Allowlist = list.live_at(at(now)).collect();

            prop_assert_eq!(list.digest_at(at(now)), anew.digest_at(Timestamp::EPOCH));
            prop_assert_eq!(list.len_at(at(now)), anew.len());
            list.drop_expired(at(now));
            prop_assert_eq!(&list, &anew);
            list.compact();
            prop_assert_eq!(list, anew);
        }

        #[test]
        fn one_difference_makes_another_digest(entries in prop::collection::vec(any_entry(), 1..20)) {
            let list: Allowlist = entries.iter().copied().collect();
            let (network, expiry) = list.iter().next().unwrap();
            let mut other = list.clone();
            let changed = match expiry {
                Expiry::Never => Expiry::At(at(1)),
                Expiry::At(_) => Expiry::Never,
            };
            other.set(network, changed);

            prop_assert_ne!(list.digest_at(Timestamp::EPOCH), other.digest_at(Timestamp::EPOCH));
        }
    }
}
