//! The disjoint cover of an allowlist, for targets that refuse entries that overlap.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpSubnets, Ipv4Subnets, Ipv6Subnets};

use crate::network::{Family, Network};
use crate::time::Expiry;

/// Addresses of one family that lie side by side and share their expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub first: IpAddr,
    /// The last address.
    pub last: IpAddr,
    /// When all of them close.
    pub expiry: Expiry,
}

/// Computes the ranges that `entries` cover, in their order, IPv4 first.
///
/// Every address is in at most one range, with the latest expiry of all entries that it lies in,
/// and no two ranges could be one. Costs O(n log n).
pub fn ranges(entries: impl IntoIterator<Item = (Network, Expiry)>) -> Vec<Range> {
    let mut entries: Vec<(Network, Expiry)> = entries.into_iter().collect();
    entries.sort_unstable();
    let (v4, v6): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(network, _)| network.family() == Family::V4);
    let v4 = spans(&v4).into_iter().map(|span| span.to_range(v4_address));
    v4.chain(spans(&v6).into_iter().map(|span| span.to_range(v6_address))).collect()
}

/// Computes the fewest networks without overlap that cover what `entries` cover, each with the
/// latest expiry of all entries that its addresses lie in. Costs O(n log n).
///
/// Of IPv6 entries wide enough to hold the IPv4-mapped addresses those are left out: no packet
/// carries them, and written as networks they would mean IPv4.
pub fn networks(entries: impl IntoIterator<Item = (Network, Expiry)>) -> BTreeMap<Network, Expiry> {
    let mut networks = BTreeMap::new();
    for Range { first, last, expiry } in ranges(entries) {
        for subnet in subnets(first, last) {
            let network = Network::containing(subnet.addr(), subnet.prefix_len())
                .filter(|network| network.address().is_ipv4() == first.is_ipv4());
            networks.extend(network.map(|network| (network, expiry)));
        }
    }
    networks
}

fn subnets(first: IpAddr, last: IpAddr) -> IpSubnets {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).into(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).into(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("both ends of a range are of one family")
        }
    }
}

/// A range in the numbers of its family.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: u128,
    last: u128,
    expiry: Expiry,
}

impl Span {
    fn to_range(self, address: fn(u128) -> IpAddr) -> Range {
        Range { first: address(self.first), last: address(self.last), expiry: self.expiry }
    }
}

/// Walks over `entries` of one family, which are in the order of their networks. Networks hold
/// one another or are apart, so that those that hold the current address are a stack, and the
/// topmost entry knows the latest expiry of all below it.
fn spans(entries: &[(Network, Expiry)]) -> Vec<Span> {
    let mut spans = Spans::default();
    let mut open: Vec<(u128, Expiry)> = Vec::new();
    for (network, expiry) in entries {
        let (first, last) = (number(network.address()), number(network.last()));
        while let Some((end, latest)) = open.pop_if(|(end, _)| *end < first) {
            spans.cover_until(end, latest);
        }
        let mut expiry = *expiry;
        if let Some((_, latest)) = open.last() {
            if let Some(before) = first.checked_sub(1) {
                spans.cover_until(before, *latest);
            }
            expiry = expiry.max(*latest);
        }
        spans.next = spans.next.max(Some(first));
        open.push((last, expiry));
    }
    while let Some((end, latest)) = open.pop() {
        spans.cover_until(end, latest);
    }
    spans.done
}

/// The spans so far, and the first address that they do not reach; none past the last address.
#[derive(Debug)]
struct Spans {
    done: Vec<Span>,
    next: Option<u128>,
}

impl Default for Spans {
    fn default() -> Spans {
        Spans { done: Vec::new(), next: Some(0) }
    }
}

impl Spans {
    fn cover_until(&mut self, last: u128, expiry: Expiry) {
        let Some(first) = self.next.filter(|first| *first <= last) else { return };
        self.next = last.checked_add(1);
        match self.done.last_mut() {
            Some(before)
                if before.expiry == expiry && before.last.checked_add(1) == Some(first) =>
            {
                before.last = last;
            }
            Some(_) | None => self.done.push(Span { first, last, expiry }),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn v4_address(number: u128) -> IpAddr {
    let bits = u32::try_from(number).expect("numbers of IPv4 addresses have 32 bits");
    Ipv4Addr::from_bits(bits).into()
}

fn v6_address(number: u128) -> IpAddr {
    Ipv6Addr::from_bits(number).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn until(ms: u64) -> Expiry {
        Expiry::At(Timestamp::from_unix_ms(ms).unwrap())
    }

    fn shown(entries: &[(&str, Expiry)]) -> Vec<String> {
        let entries = entries.iter().map(|(text, expiry)| (net(text), *expiry));
        let range = |range: Range| format!("{}-{} {}", range.first, range.last, range.expiry);
        ranges(entries).into_iter().map(range).collect()
    }

    #[test]
    fn a_longer_entry_inside_keeps_its_deadline_and_a_shorter_one_vanishes() {
        assert_eq!(
            shown(&[
                ("192.0.2.0/24", until(1_000)),
                ("192.0.2.8", until(2_000)),
                ("192.0.2.9", until(500)),
                ("192.0.3.0/24", until(1_000)),
            ]),
            [
                "192.0.2.0-192.0.2.7 1970-01-01T00:00:01Z",
                "192.0.2.8-192.0.2.8 1970-01-01T00:00:02Z",
                "192.0.2.9-192.0.3.255 1970-01-01T00:00:01Z",
            ]
        );
    }

    #[test]
    fn the_whole_of_both_families_is_covered_to_its_last_address() {
        assert_eq!(
            shown(&[
                ("::/0", until(1_000)),
                ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Expiry::Never),
                ("0.0.0.0/0", until(1_000)),
                ("255.255.255.255", until(1_000)),
            ]),
            [
                "0.0.0.0-255.255.255.255 1970-01-01T00:00:01Z",
                "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 1970-01-01T00:00:01Z",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff never",
            ]
        );
    }

    #[test]
    fn no_piece_of_an_ipv6_entry_turns_into_ipv4() {
        let (wide, beside_ipv4) = (net("::ff00:0:0/88"), net("::fffe:ffff:ffff"));
        let whole = [(wide, Expiry::Never), (beside_ipv4, until(1))];
        let split = [(wide, until(1)), (beside_ipv4, Expiry::Never)];

        assert_eq!(networks(whole), BTreeMap::from([whole[0]]));
        assert!(networks(split).keys().all(|network| network.family() == Family::V6));
    }

    /// Windows of 256 addresses, two of them at the end of their family's space.
    const WINDOWS: [&str; 4] = [
        "192.0.2.0/24",
        "255.255.255.0/24",
        "2001:db8::/120",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120",
    ];

    fn address(window: usize, last: u8) -> IpAddr {
        match net(WINDOWS[window]).address() {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | u32::from(last)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(last)).into(),
        }
    }

    fn any_entries() -> impl Strategy<Value = Vec<(Network, Expiry)>> {
        let entry = (0..WINDOWS.len(), any::<u8>(), 0u8..=8, prop::option::of(0u64..5));
        let entry = entry.prop_map(|(window, last, free_bits, ms)| {
            let longest = net(WINDOWS[window]).prefix() + 8;
            let network = Network::containing(address(window, last), longest - free_bits).unwrap();
            (network, ms.map_or(Expiry::Never, until))
        });
        prop::collection::vec(entry, 0..40)
    }

    /// The latest expiry of every address that any of the entries holds, one by one.
    fn brute_force(entries: &[(Network, Expiry)]) -> BTreeMap<IpAddr, Expiry> {
        let addresses = (0..WINDOWS.len())
            .flat_map(|window| (0..=u8::MAX).map(move |last| address(window, last)));
        let latest = |address: IpAddr| {
            let holding = entries.iter().filter(|(network, _)| network.contains(address));
            holding.map(|(_, expiry)| *expiry).max().map(|expiry| (address, expiry))
        };
        addresses.filter_map(latest).collect()
    }

    /// The other half of the network that is one bit wider.
    fn sibling(network: Network) -> Network {
        let wider = Network::containing(network.address(), network.prefix() - 1).unwrap();
        let halves = wider.as_ipnet().subnets(network.prefix()).unwrap();
        let halves =
            halves.map(|half| Network::containing(half.addr(), half.prefix_len()).unwrap());
        halves.into_iter().find(|half| *half != network).unwrap()
    }

    proptest! {
        #[test]
        fn every_address_keeps_its_latest_deadline_and_no_other_is_covered(
            entries in any_entries(),
        ) {
            let expected = brute_force(&entries);

            let networks: Vec<(Network, Expiry)> =
                networks(entries.iter().copied()).into_iter().collect();
            prop_assert_eq!(brute_force(&networks), expected.clone());

            let holds = |range: &Range, address: IpAddr| range.first <= address && address <= range.last;
            let ranges = ranges(entries);
            for (window, last) in (0..WINDOWS.len()).flat_map(|w| (0..=255).map(move |l| (w, l))) {
                let address = address(window, last);
                let found: Vec<Expiry> = ranges
                    .iter()
                    .filter(|range| range.first.is_ipv4() == address.is_ipv4())
                    .filter(|range| holds(range, address))
                    .map(|range| range.expiry)
                    .collect();
                prop_assert_eq!(found, expected.get(&address).copied().into_iter().collect::<Vec<_>>());
            }
        }

        #[test]
        fn the_cover_is_disjoint_and_could_not_be_smaller(entries in any_entries()) {
            let ranges = ranges(entries.iter().copied());
            for pair in ranges.windows(2) {
                if pair[0].first.is_ipv4() != pair[1].first.is_ipv4() {
                    continue;
                }
                let gap = number(pair[1].first) - number(pair[0].last);
                prop_assert!(1 < gap || pair[0].expiry != pair[1].expiry);
            }
            prop_assert!(ranges.iter().all(|range| range.first <= range.last));

            let networks = networks(entries);
            for (network, expiry) in &networks {
                let others = networks.keys().filter(|other| other.overlaps(*network));
                prop_assert_eq!(others.count(), 1);
                prop_assert_ne!(networks.get(&sibling(*network)), Some(expiry));
            }
        }

        #[test]
        fn covering_a_cover_changes_nothing(entries in any_entries()) {
            let once = networks(entries.iter().copied());

            prop_assert_eq!(ranges(once.clone()), ranges(entries));
            prop_assert_eq!(networks(once.clone()), once);
        }
    }
}
