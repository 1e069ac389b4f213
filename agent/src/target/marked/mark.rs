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
            let expiry = match deadline {
                NEVER => Expiry::Never,
                deadline => Expiry::At(deadline.parse().ok()?),
            };
            Some((*group, expiry))
        };
        Some(Mark(parts.filter_map(read).collect()))
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
    fn the_longest_mark_fits_every_description() {
        let last = Expiry::At(Timestamp::from_unix_ms(Timestamp::MAX.unix_ms() - 1).unwrap());
        let groups = (0..5).map(|number| (group(number), last));

        let text = Mark(groups.collect()).write(&"x".repeat(64));

        assert!(text.len() <= 255, "{}", text.len());
    }
}
