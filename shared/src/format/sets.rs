//! Forms that fill sets of the kernel, each element with the seconds that are left of it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Rendering, flat};
use crate::cover;
use crate::network::{Family, Network};
use crate::time::{Expiry, Timestamp};

/// The longest time that `nft` reads: eight digits, more than three years.
pub(super) const NFT_LEFT_SECS_MAX: u64 = 99_999_999;

/// The longest time that `ipset` takes: 24 days.
pub(super) const IPSET_LEFT_SECS_MAX: u64 = 2_147_483;

/// Most elements of a set for `ipset`, which refuses to swap sets that were not made alike: so not
/// the length of the list. More than the addresses of all members that a group may have.
const IPSET_ELEMENTS_MAX: u64 = 262_144;

/// One transaction: makes the sets where they are missing, and replaces what is in them.
pub(super) fn nft(
    asked: &Rendering,
    entries: impl Iterator<Item = (Network, Expiry)>,
    now: Timestamp,
) -> String {
    let cover = cover::networks(entries);
    let table = &asked.table;
    let mut script = format!("add table inet {table}\n");
    for family in asked.families() {
        let (set, kind) = (set_name(asked, family), nft_type(family));
        let elements = cover.iter().filter(|(network, _)| network.family() == family);
        let elements: String = elements
            .map(|(network, expiry)| {
                let timeout = left_secs(*expiry, now, NFT_LEFT_SECS_MAX);
                let timeout = timeout.map_or_else(String::new, |secs| format!(" timeout {secs}s"));
                format!("    {}{timeout},\n", flat(*network))
            })
            .collect();
        script += &format!(
            "add set inet {table} {set} {{ type {kind}; flags interval, timeout; }}\n\
             flush set inet {table} {set}\n"
        );
        if !elements.is_empty() {
            script += &format!("add element inet {table} {set} {{\n{elements}}}\n");
        }
    }
    script
}

/// Fills a set beside the one in use, then swaps them. An interrupted one has swapped nothing, and
/// what it left behind is used up by the next.
pub(super) fn ipset(
    asked: &Rendering,
    entries: impl Iterator<Item = (Network, Expiry)>,
    now: Timestamp,
) -> String {
    let entries: Vec<(Network, Expiry)> = entries.collect();
    let mut script = String::new();
    for family in asked.families() {
        let set = set_name(asked, family);
        let kind = match family {
            Family::V4 => "inet",
            Family::V6 => "inet6",
        };
        for made in [&set, &format!("{set}n")] {
            script += &format!(
                "create -exist {made} hash:net family {kind} timeout 0 maxelem {IPSET_ELEMENTS_MAX}\n"
            );
        }
        script += &format!("flush {set}n\n");
        for (network, expiry) in entries.iter().filter(|(network, _)| network.family() == family) {
            // 0 is what `ipset` says for never.
            let left = left_secs(*expiry, now, IPSET_LEFT_SECS_MAX).unwrap_or(0);
            for part in ipset_elements(*network).into_iter().map(flat) {
                writeln!(script, "add {set}n {part} timeout {left}").expect("strings take all");
            }
        }
        script += &format!("swap {set}n {set}\ndestroy {set}n\n");
    }
    script
}

/// The set of one family.
fn set_name(asked: &Rendering, family: Family) -> String {
    match family {
        Family::V4 => format!("{}_v4", asked.name),
        Family::V6 => format!("{}_v6", asked.name),
    }
}

fn nft_type(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    }
}

/// The whole seconds that are left, and one in the last: none at all would mean for ever.
fn left_secs(expiry: Expiry, now: Timestamp, max: u64) -> Option<u64> {
    expiry.left_at(now).map(|left| left.as_secs().clamp(1, max))
}

/// What a network is as elements of `hash:net`, which takes no network of all addresses, but its
/// halves.
pub fn ipset_elements(network: Network) -> Vec<Network> {
    if 0 < network.prefix() {
        return vec![network];
    }
    let halves: [IpAddr; 2] = match network.family() {
        Family::V4 => [Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(128, 0, 0, 0).into()],
        Family::V6 => [Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(1 << 127).into()],
    };
    halves.into_iter().filter_map(|half| Network::containing(half, 1)).collect()
}
