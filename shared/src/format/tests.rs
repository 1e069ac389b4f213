//! What the forms say, read back by readers that know of the other programs only.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const FORMATS: [Format; 7] = [
    Format::Text,
    Format::Csv,
    Format::Nft,
    Format::Ipset,
    Format::Nginx,
    Format::Apache,
    Format::Haproxy,
];

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn net(text: &str) -> Network {
    text.parse().unwrap()
}

fn ms_left(ms: u64) -> Expiry {
    Expiry::At(now().saturating_add(Duration::from_millis(ms)))
}

fn written(format: Format, family: Option<Family>, entries: &[(Network, Expiry)]) -> String {
    let (name, table) = ("postern_7".parse().unwrap(), "filter".parse().unwrap());
    Rendering { format, name, table, family }.write(entries.iter().copied(), now())
}

/// Both families, an overlap, what never ends, what is about to, and what has.
fn sample() -> Vec<(Network, Expiry)> {
    vec![
        (net("198.51.100.7"), ms_left(999)),
        (net("198.51.100.8"), ms_left(0)),
        (net("203.0.113.0/24"), ms_left(3_599_999)),
        (net("203.0.113.7"), Expiry::Never),
        (net("2001:db8::/48"), ms_left(10 * 365 * 86_400_000)),
    ]
}

#[test]
fn every_form_of_a_list_is_written_as_its_program_wants_it() {
    for format in FORMATS {
        insta::assert_snapshot!(format!("{format:?}"), written(format, None, &sample()));
    }
}

#[test]
fn every_form_of_an_empty_list_lets_nobody_in() {
    for format in FORMATS {
        insta::assert_snapshot!(format!("{format:?}_empty"), written(format, None, &[]));
    }
}

#[test]
fn sets_of_the_other_family_are_left_alone() {
    for format in [Format::Nft, Format::Ipset] {
        let v4 = written(format, Some(Family::V4), &sample());
        let v6 = written(format, Some(Family::V6), &sample());

        assert!(v4.contains("_v4") && !v4.contains("_v6"), "{v4}");
        assert!(v6.contains("_v6") && !v6.contains("_v4"), "{v6}");
    }
}

#[test]
fn a_network_of_all_addresses_is_told_to_ipset_in_halves() {
    let all = [(net("0.0.0.0/0"), Expiry::Never), (net("::/0"), ms_left(7_000))];

    let script = written(Format::Ipset, None, &all);

    for half in ["v4n 0.0.0.0/1 timeout 0", "v4n 128.0.0.0/1", "v6n ::/1 timeout 7", "v6n 8000::/1"]
    {
        assert!(script.contains(half), "{half}: {script}");
    }
}

#[test]
fn names_that_could_be_more_than_a_name_are_refused() {
    for good in ["a", "postern_7", "Admins", &"n".repeat(NAME_BYTES_MAX)] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    for bad in ["", "7", "_a", "a-b", "a b", "a;b", "a{", "a\n", "$a", "ä", &long] {
        bad.parse::<Name>().expect_err(bad);
    }
}

/// A piece of a list as a reader found it: the first and the last address, and what is said of the
/// time that is left.
#[derive(Debug, Clone, Copy)]
struct Piece {
    first: IpAddr,
    last: IpAddr,
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Secs(u64),
    ForEver,
}

/// Reads an address or network without the product's own reader.
fn piece(text: &str, left: Left) -> Piece {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
    let prefix: Option<u32> = prefix.map(|prefix| prefix.parse().unwrap());
    match address.parse().unwrap() {
        IpAddr::V4(first) => {
            let free = u32::MAX.checked_shr(prefix.unwrap_or(32)).unwrap_or(0);
            assert_eq!(first.to_bits() & free, 0, "{text}");
            let last = Ipv4Addr::from_bits(first.to_bits() | free);
            Piece { first: first.into(), last: last.into(), left }
        }
        IpAddr::V6(first) => {
            let free = u128::MAX.checked_shr(prefix.unwrap_or(128)).unwrap_or(0);
            assert_eq!(first.to_bits() & free, 0, "{text}");
            let last = Ipv6Addr::from_bits(first.to_bits() | free);
            Piece { first: first.into(), last: last.into(), left }
        }
    }
}

/// What the program of a form makes of it.
fn read(format: Format, text: &str) -> Vec<Piece> {
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    match format {
        Format::Text => text.lines().map(|line| piece(line, Left::ForEver)).collect(),
        Format::Haproxy => {
            let patterns = text.lines().filter(|line| !line.starts_with('#'));
            patterns.map(|line| piece(line, Left::ForEver)).collect()
        }
        Format::Csv => read_csv(text),
        Format::Nft => read_nft(text),
        Format::Ipset => read_ipset(text),
        Format::Nginx => {
            let block = text.split_once("geo $postern_7 {\n    default 0;\n").unwrap().1;
            let block = block.strip_suffix("}\n").unwrap();
            let network = |line: &str| line.trim().strip_suffix(" 1;").unwrap().to_owned();
            block.lines().map(|line| piece(&network(line), Left::ForEver)).collect()
        }
        Format::Apache => {
            let block = text.strip_prefix("<RequireAny>\n    Require all denied\n").unwrap();
            let block = block.strip_suffix("</RequireAny>\n").unwrap();
            let network = |line: &str| line.trim().strip_prefix("Require ip ").unwrap().to_owned();
            block.lines().map(|line| piece(&network(line), Left::ForEver)).collect()
        }
    }
}

fn read_csv(text: &str) -> Vec<Piece> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("cidr,family,expires_at"));
    let row = |line: &str| {
        let columns: Vec<&str> = line.split(',').collect();
        let [cidr, family, expires_at] = columns[..] else { panic!("{line}") };
        assert_eq!(family == "6", cidr.contains(':'), "{line}");
        let left = match expires_at {
            "never" => Left::ForEver,
            time => {
                let time: jiff::Timestamp = time.parse().unwrap();
                let left = time.as_millisecond() - i64::try_from(now().unix_ms()).unwrap();
                Left::Secs(u64::try_from(left).unwrap() / 1_000)
            }
        };
        piece(cidr, left)
    };
    lines.map(row).collect()
}

/// Refuses what overlaps, as an interval set does.
fn read_nft(text: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("    ")) {
        let line = line.trim().strip_suffix(',').unwrap();
        let (network, left) = match line.split_once(" timeout ") {
            Some((network, left)) => (network, Left::Secs(secs(left.strip_suffix('s').unwrap()))),
            None => (line, Left::ForEver),
        };
        let new = piece(network, left);
        let is_apart = |old: &Piece| {
            let same_family = old.first.is_ipv4() == new.first.is_ipv4();
            !same_family || old.last < new.first || new.last < old.first
        };
        assert!(pieces.iter().all(is_apart), "{line} overlaps: {text}");
        pieces.push(new);
    }
    pieces
}

fn read_ipset(text: &str) -> Vec<Piece> {
    let mut sets: BTreeMap<&str, Vec<Piece>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["create", "-exist", set, "hash:net", "family", "inet" | "inet6", ..] => {
                sets.entry(set).or_default();
            }
            ["flush", set] => sets.get_mut(set).unwrap().clear(),
            ["add", set, network, "timeout", left] => {
                let left = if left == "0" { Left::ForEver } else { Left::Secs(secs(left)) };
                let new = piece(network, left);
                assert_eq!(set.contains("_v4"), new.first.is_ipv4());
                sets.get_mut(set).unwrap().push(new);
            }
            ["swap", one, other] => {
                let (a, b) = (sets[one].clone(), sets[other].clone());
                sets.extend([(one, b), (other, a)]);
            }
            ["destroy", set] => drop(sets.remove(set).unwrap()),
            _ => panic!("{line}"),
        }
    }
    let is_final = |set: &&str| ["postern_7_v4", "postern_7_v6"].contains(set);
    assert!(sets.keys().all(is_final), "sets are left over: {text}");
    sets.into_values().flatten().collect()
}

fn secs(text: &str) -> u64 {
    text.parse().unwrap()
}

/// Windows of 256 addresses.
const WINDOWS: [&str; 2] = ["192.0.2.0/24", "2001:db8::/120"];

fn address(window: usize, last: u8) -> IpAddr {
    match net(WINDOWS[window]).address() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() | u32::from(last)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() | u128::from(last)).into(),
    }
}

fn any_entries() -> impl Strategy<Value = BTreeMap<Network, Expiry>> {
    let ms = prop_oneof![
        Just(None),
        (0u64..3_000).prop_map(Some),
        (0u64..20 * 365 * 86_400_000).prop_map(Some),
    ];
    let entry = (0..WINDOWS.len(), any::<u8>(), 0u8..=8, ms);
    let entry = entry.prop_map(|(window, last, free_bits, ms)| {
        let longest = net(WINDOWS[window]).prefix() + 8;
        let network = Network::containing(address(window, last), longest - free_bits).unwrap();
        (network, ms.map_or(Expiry::Never, ms_left))
    });
    prop::collection::btree_map(any::<u8>(), entry, 0..20)
        .prop_map(|entries| entries.into_values().collect())
}

/// Every address of the windows that is named, with the longest that is said of it.
fn named(pieces: &[Piece]) -> BTreeMap<IpAddr, Left> {
    let addresses =
        (0..WINDOWS.len()).flat_map(|window| (0..=u8::MAX).map(move |last| address(window, last)));
    let longest = |address: IpAddr| {
        let holds = |piece: &&Piece| {
            let same_family = piece.first.is_ipv4() == address.is_ipv4();
            same_family && piece.first <= address && address <= piece.last
        };
        pieces.iter().filter(holds).map(|piece| piece.left).max().map(|left| (address, left))
    };
    addresses.filter_map(longest).collect()
}

proptest! {
    #[test]
    fn every_form_names_the_addresses_of_the_list_with_their_latest_deadlines(
        entries in any_entries(),
        family in prop::option::of(prop_oneof![Just(Family::V4), Just(Family::V6)]),
    ) {
        let entries: Vec<(Network, Expiry)> = entries.into_iter().collect();
        let live = entries.iter().filter(|(network, expiry)| {
            family.is_none_or(|only| only == network.family())
                && expiry.deadline().is_none_or(|deadline| now() < deadline)
        });
        let told = |(network, expiry): &(Network, Expiry)| {
            let left = expiry.deadline().map(|deadline| (deadline.unix_ms() - now().unix_ms()) / 1_000);
            piece(&network.to_string(), left.map_or(Left::ForEver, Left::Secs))
        };
        let wanted = named(&live.map(told).collect::<Vec<_>>());

        for format in FORMATS {
            let text = written(format, family, &entries);
            let read = named(&read(format, &text));

            let expected = |left: Left| match (left, format) {
                (Left::Secs(secs), Format::Csv) => Left::Secs(secs),
                (Left::Secs(secs), Format::Nft) => Left::Secs(secs.clamp(1, 99_999_999)),
                (Left::Secs(secs), Format::Ipset) => Left::Secs(secs.clamp(1, 2_147_483)),
                _ => Left::ForEver,
            };
            let wanted: BTreeMap<IpAddr, Left> =
                wanted.iter().map(|(address, left)| (*address, expected(*left))).collect();
            prop_assert_eq!(read, wanted, "{}", text);
        }
    }
}
