//! What `ipset` is told, and what it answers: pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use postern_shared::format::flat;
use postern_shared::network::{Family, Network};
use serde::{Deserialize, Serialize};

/// The set that is filled beside the one in use.
const ASIDE: &str = ".new";
/// What says that a set does not hold this element's time at all: it stays for ever.
pub(super) const FOR_EVER: u64 = 0;

/// How one set is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Whether the set holds IPv6: 4 or 6.
    pub family: u8,
    /// Whether nothing of what is there stays: a set beside it is filled and takes its place.
    pub replace: bool,
    /// Most elements, where the set is made.
    pub elements_max: usize,
    /// Elements to take away.
    pub remove: Vec<Network>,
    /// Elements to put, with their time in seconds; 0 for ever.
    pub put: Vec<(Network, u64)>,
}

/// A set as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) elements_max: usize,
    /// The elements with the seconds that are left of them.
    pub(super) elements: BTreeMap<Network, u64>,
}

/// As `ipset` and a [`Change`] call a family.
pub(super) const fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// What a set of ours is made as.
pub(super) fn create(set: &str, family: u8, elements_max: usize) -> String {
    let family = if family == 6 { "inet6" } else { "inet" };
    format!("create {set} hash:net family {family} maxelem {elements_max} timeout 0 -exist\n")
}

/// Writes a change of a set as a script for `ipset restore`.
pub(super) fn write(set: &str, change: &Change) -> String {
    let mut script = String::new();
    let into = if change.replace {
        let aside = format!("{set}{ASIDE}");
        for made in [set, &aside] {
            script += &create(made, change.family, change.elements_max);
        }
        // An earlier one may have been broken off.
        script += &format!("flush {aside}\n");
        aside
    } else {
        set.to_owned()
    };
    for network in &change.remove {
        writeln!(script, "del {into} {} -exist", flat(*network)).expect("strings take all");
    }
    for (network, secs) in &change.put {
        writeln!(script, "add {into} {} timeout {secs} -exist", flat(*network))
            .expect("strings take all");
    }
    if change.replace {
        script += &format!("swap {into} {set}\ndestroy {into}\n");
    }
    script
}

/// Reads what `ipset save` says of one set, or says why it is none that we could fill.
pub(super) fn read(set: &str, family: Family, saved: &str) -> Result<Found, String> {
    let mut found = Found::default();
    for line in saved.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match &words[..] {
            ["create", name, kind, options @ ..] if *name == set => {
                found.elements_max = fitting(set, family, kind, options)?;
            }
            ["add", name, network, options @ ..] if *name == set => {
                let network: Network =
                    network.parse().map_err(|_| format!("`ipset save` says `{line}`"))?;
                let secs = option(options, "timeout").and_then(|secs| secs.parse().ok());
                found.elements.insert(network, secs.unwrap_or(FOR_EVER));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn fitting(set: &str, family: Family, kind: &str, options: &[&str]) -> Result<usize, String> {
    let wanted = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let fits = kind == "hash:net"
        && option(options, "family") == Some(wanted)
        && option(options, "timeout").is_some();
    let elements_max = option(options, "maxelem").and_then(|most| most.parse().ok());
    elements_max.filter(|_| fits).ok_or_else(|| {
        format!(
            "the set {set} is none of the kind that takes networks with a time; make it with \
             `ipset create {set} hash:net family {wanted} timeout 0`"
        )
    })
}

fn option<'w>(options: &[&'w str], name: &str) -> Option<&'w str> {
    options.iter().position(|word| *word == name).and_then(|at| options.get(at + 1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
create office hash:net family inet hashsize 1024 maxelem 500 timeout 0 bucketsize 12 initval 0x6
add office 10.0.0.0/24 timeout 99
add office 10.0.0.1 timeout 0
";

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn what_ipset_saved_is_read() {
        let found = read("office", Family::V4, SAVED).unwrap();

        assert_eq!(found.elements_max, 500);
        assert_eq!(found.elements, [(net("10.0.0.0/24"), 99), (net("10.0.0.1"), 0)].into());
        assert_eq!(read("other", Family::V4, SAVED).unwrap(), Found::default());
    }

    #[test]
    fn a_set_of_another_kind_is_refused_with_what_to_do() {
        for other in [
            SAVED.replace("hash:net", "hash:ip"),
            SAVED.replace("timeout 0 bucketsize", "bucketsize"),
            SAVED.replace("family inet ", "family inet6 "),
        ] {
            let why = read("office", Family::V4, &other).unwrap_err();
            assert!(why.contains("ipset create office hash:net family inet timeout 0"), "{why}");
        }
    }

    #[test]
    fn a_change_names_elements_and_a_replacement_swaps() {
        let mut change = Change {
            family: 6,
            replace: false,
            elements_max: 7,
            remove: vec![net("2001:db8::/64")],
            put: vec![(net("2001:db8::1"), 60)],
        };

        assert_eq!(
            write("six", &change),
            "del six 2001:db8::/64 -exist\nadd six 2001:db8::1 timeout 60 -exist\n"
        );
        change.replace = true;
        change.remove.clear();
        assert_eq!(
            write("six", &change),
            "create six hash:net family inet6 maxelem 7 timeout 0 -exist\n\
             create six.new hash:net family inet6 maxelem 7 timeout 0 -exist\n\
             flush six.new\n\
             add six.new 2001:db8::1 timeout 60 -exist\n\
             swap six.new six\n\
             destroy six.new\n"
        );
    }
}
