//! The sets of a gate: one for each group, family and prefix length in use.
//!
//! A set of ours is recognised by its name, which says group, family and prefix length:
//! `allow-6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10-v4-24`. Its twin, with `-b` at the end, takes its
//! place when a set must be replaced; which of the two is in force is what the rules look into.

use std::net::IpAddr;

use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};

/// What one set is for. Its elements are the first addresses of networks of this prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetKey {
    pub(super) group: GroupId,
    pub(super) family: Family,
    pub(super) prefix: u8,
}

/// A set that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetState {
    /// The set is the one with `-b` in its name.
    pub(super) twin: bool,
    /// How many elements the kernel lets in, those on their way out included.
    pub(super) size: u32,
    /// Elements in it, expired ones included until they are forgotten.
    pub(super) len: usize,
}

/// Fewest elements that a set is made for.
const SIZE_MIN: usize = 1024;

impl SetKey {
    /// The set that holds `network` for `group`.
    pub(super) fn of(group: GroupId, network: Network) -> SetKey {
        SetKey { group, family: network.family(), prefix: network.prefix() }
    }

    /// The set's name.
    pub(super) fn name(&self, twin: bool) -> String {
        let family = match self.family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        let end = if twin { "-b" } else { "" };
        format!("allow-{}-{family}-{}{end}", self.group, self.prefix)
    }

    /// Reads a set's name: what it is for, and whether it is the twin.
    pub(super) fn parse(name: &str) -> Option<(SetKey, bool)> {
        let rest = name.strip_prefix("allow-")?;
        let (rest, twin) = rest.strip_suffix("-b").map_or((rest, false), |rest| (rest, true));
        let (rest, prefix) = rest.rsplit_once('-')?;
        let (group, family) = rest.rsplit_once('-')?;
        let family = match family {
            "v4" => Family::V4,
            "v6" => Family::V6,
            _ => return None,
        };
        let key = SetKey { group: group.parse().ok()?, family, prefix: prefix.parse().ok()? };
        (key.prefix <= family.bits() && key.name(twin) == name).then_some((key, twin))
    }

    /// The network that an element of the set stands for; `None` where no masked address could
    /// ever meet the element.
    pub(super) fn network(&self, address: IpAddr) -> Option<Network> {
        let network = Network::containing(address, self.prefix)?;
        (network.address() == address && network.prefix() == self.prefix).then_some(network)
    }
}

/// The size of a set that is to hold `count` elements: with room to grow by a quarter before
/// another set takes its place. The kernel makes its hash table for the whole size at once.
pub(super) fn size_for(count: usize) -> u32 {
    let wanted = count.saturating_add(count / 4).max(SIZE_MIN).next_multiple_of(SIZE_MIN);
    u32::try_from(wanted).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_named_by_us_is_not_read() {
        let group = GroupId::FIRST;
        for name in [
            "allow".to_owned(),
            "blocklist".to_owned(),
            format!("allow-{group}-v4-33"),
            format!("allow-{group}-v4-024"),
            format!("allow-{group}-v5-24"),
            format!("allow-{group}-v4-24-c"),
            "allow-1-v4-24".to_owned(),
        ] {
            assert_eq!(SetKey::parse(&name), None, "{name}");
        }
    }

    #[test]
    fn a_set_has_room_to_grow_by_a_quarter_and_little_more() {
        for count in [0, 1, 819, 820, 1_000, 100_000] {
            let size = usize::try_from(size_for(count)).unwrap();
            assert!(count + count / 4 <= size, "{count}");
            assert!(size < count + count / 4 + 2 * SIZE_MIN, "{count}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back(id: [u8; 16], v4: bool, prefix in 0u8..=32, twin: bool) {
            let family = if v4 { Family::V4 } else { Family::V6 };
            let key = SetKey { group: GroupId::from_random(id), family, prefix };

            prop_assert_eq!(SetKey::parse(&key.name(twin)), Some((key, twin)));
            prop_assert!(key.name(twin).len() < 64);
        }
    }
}
