//! What an entry at a provider says of itself: whose it is, for which groups, and until when.

use std::collections::{BTreeMap, BTreeSet};

use postern_shared::ids::GroupId;
use postern_shared::time::Expiry;

const FIRST_WORD: &str = "postern";
const NEVER: &str = "never";
/// As much of a group's id as tells the groups of one target apart.
const GROUP_CHARS: usize = 8;

/// The deadlines of an entry, by the groups that it is there for.
///
/// Written as `postern web1/edge 1f0c3c9e=2026-11-26T10:00:00Z`: whose it is, then each group with
/// its deadline. Whoever reads it needs no list to know when the entry must be gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark(pub BTreeMap<GroupId, Expiry>);

/// How the marks of one target begin.
pub fn first_words(owner: &str) -> String {
    format!("{FIRST_WORD} {owner} ")
}

impl Mark {
    /// Most groups of a target: as many as every provider's descriptions hold.
    pub const GROUPS_MAX: usize = 5;

    /// Writes the mark for its owner.
    pub fn write(&self, owner: &str) -> String {
        let parts = self.0.iter().map(|(group, expiry)| {
            let deadline = expiry.deadline().map_or(NEVER.to_owned(), |at| at.to_string());
            format!("{}={deadline}", short(*group))
        });
        format!("{}{}", first_words(owner), parts.collect::<Vec<_>>().join(","))
    }

    /// Reads a mark of this owner; `None` where it is not one. Groups that the target has no longer
    /// are left out, and so is what cannot be read: what is ours and for nobody goes.
    pub fn read(text: &str, owner: &str, groups: &BTreeSet<GroupId>) -> Option<Mark> {
        let parts = text.strip_prefix(&first_words(owner))?.split(',');
        let read = |part: &str| {
            let (name, deadline) = part.split_once('=')?;
            let group = groups.iter().find(|group| short(**group) == name)?;
            Some((*group, read_deadline(deadline)?))
        };
        Some(Mark(parts.filter_map(read).collect()))
    }
}

/// The latest deadline that a description of this owner says, whatever its groups are; `None` where
/// it says none that can be read, and so is over for all that is known.
pub fn latest_deadline(text: &str, owner: &str) -> Option<Expiry> {
    let parts = text.strip_prefix(&first_words(owner))?.split(',');
    parts.filter_map(|part| read_deadline(part.split_once('=')?.1)).max()
}

fn read_deadline(text: &str) -> Option<Expiry> {
    match text {
        NEVER => Some(Expiry::Never),
        deadline => deadline.parse().ok().map(Expiry::At),
    }
}

fn short(group: GroupId) -> String {
    group.to_string().chars().take(GROUP_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use postern_shared::time::Timestamp;

    use super::*;
    use crate::testing::group;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let at = Expiry::At(Timestamp::from_unix_ms(1_700_000_000_123).unwrap());
        let mark = Mark(BTreeMap::from([(group(1), at), (group(2), Expiry::Never)]));
        let groups = BTreeSet::from([group(1), group(2)]);

        let text = mark.write("web1/edge");

        assert_eq!(text, "postern web1/edge 01010101=2023-11-14T22:13:20.123Z,02020202=never");
        assert_eq!(Mark::read(&text, "web1/edge", &groups), Some(mark));
    }

    #[test]
    fn what_others_wrote_is_not_ours() {
        let groups = BTreeSet::from([group(1)]);

        for text in ["", "office", "postern web1/edge", "postern web1/edge2 01010101=never"] {
            assert_eq!(Mark::read(text, "web1/edge", &groups), None, "{text}");
        }
        for text in ["postern web1/edge ", "postern web1/edge 02020202=never,01010101=soon"] {
            assert_eq!(Mark::read(text, "web1/edge", &groups), Some(Mark::default()), "{text}");
        }
    }

    #[test]
    fn the_latest_deadline_of_a_mark_needs_no_groups() {
        let never = latest_deadline("postern web 01010101=2026-01-01T00:00:00Z,x=never", "web");
        let at =
            latest_deadline("postern web 1=2026-01-01T00:00:00Z,2=2025-01-01T00:00:00Z", "web");

        assert_eq!(never, Some(Expiry::Never));
        assert_eq!(at, Some(Expiry::At("2026-01-01T00:00:00Z".parse().unwrap())));
        for text in ["postern web ", "postern web 1=soon", "postern other 1=never", "office"] {
            assert_eq!(latest_deadline(text, "web"), None, "{text}");
        }
    }

    #[test]
    fn the_longest_mark_fits_every_description() {
        let last = Expiry::At(Timestamp::from_unix_ms(Timestamp::MAX.unix_ms() - 1).unwrap());
        let groups = (0..5).map(|number| (group(number), last));

        let text = Mark(groups.collect()).write(&"x".repeat(64));

        assert!(text.len() <= 255, "{}", text.len());
    }
}
