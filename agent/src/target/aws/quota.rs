//! How many rules a security group holds, as its quota counts them.

use std::collections::BTreeMap;
use std::fmt;

use postern_shared::network::Family;

use super::lists::Head;
use super::rules::{Opening, Rule, Source};

/// Rules by family; the quota counts each family for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) v4: usize,
    pub(super) v6: usize,
}

impl Usage {
    /// Counts what is there. A rule for a prefix list counts as many as the list may hold, not as it
    /// holds; one for a list of AWS's own or for another group counts once in each family.
    pub(super) fn of<'a>(
        rules: impl Iterator<Item = &'a Rule>,
        lists: &BTreeMap<String, Option<Head>>,
    ) -> Usage {
        rules.fold(Usage::default(), |usage, rule| usage + Usage::of_one(rule, lists))
    }

    fn of_one(rule: &Rule, lists: &BTreeMap<String, Option<Head>>) -> Usage {
        let both = Usage { v4: 1, v6: 1 };
        match &rule.source {
            Source::V4 => Usage { v4: 1, v6: 0 },
            Source::V6 => Usage { v4: 0, v6: 1 },
            Source::Other => both,
            Source::List(id) => match lists.get(id).and_then(Option::as_ref) {
                Some(Head { family: Some(Family::V4), entries_max, .. }) if 0 < *entries_max => {
                    Usage { v4: *entries_max, v6: 0 }
                }
                Some(Head { family: Some(Family::V6), entries_max, .. }) if 0 < *entries_max => {
                    Usage { v4: 0, v6: *entries_max }
                }
                Some(_) | None => both,
            },
        }
    }

    /// Counts what is to be added.
    pub(super) fn count_all(added: &[(Opening, String)]) -> Usage {
        added.iter().fold(Usage::default(), |usage, (opening, _)| match opening.network.family() {
            Family::V4 => Usage { v4: usage.v4 + 1, ..usage },
            Family::V6 => Usage { v6: usage.v6 + 1, ..usage },
        })
    }

    /// The larger of the two.
    pub(super) fn most(self) -> usize {
        self.v4.max(self.v6)
    }
}

impl std::ops::Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage { v4: self.v4 + other.v4, v6: self.v6 + other.v6 }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for IPv4, {} for IPv6", self.v4, self.v6)
    }
}
