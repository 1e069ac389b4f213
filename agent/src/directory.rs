//! Which group a configuration means: what the control plane told of names and numbers.

use std::collections::BTreeSet;

use postern_shared::ids::GroupId;
use postern_shared::wire::v1::AgentGroup;

use crate::config::GroupRef;

/// The groups that the control plane lets this agent follow, and behind them those that it no
/// longer tells of and that the configuration still names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory(pub(crate) Vec<AgentGroup>);

impl Directory {
    /// Finds the group that is meant. An id means itself, known or not.
    pub(crate) fn resolve(&self, group: &GroupRef) -> Result<GroupId, String> {
        if let GroupRef::Id(id) = group {
            return Ok(*id);
        }
        self.find(group).map(|found| found.id).ok_or_else(|| {
            let known: Vec<String> =
                self.0.iter().map(|known| format!("{} ({})", known.name, known.number)).collect();
            match known.is_empty() {
                true => format!(
                    "group `{group}` cannot be found before the control plane was reached once"
                ),
                false => format!(
                    "group `{group}` is not among those given to this agent: {}",
                    known.join(", ")
                ),
            }
        })
    }

    /// What is known after the control plane told `newest`. A name or number that it tells no
    /// longer, of a group that was renamed, deleted or taken away, keeps its meaning for as long
    /// as it is `named`: its targets go on, and the plane says itself that the group is gone.
    pub(crate) fn learn<'a>(
        &self,
        newest: Directory,
        named: impl IntoIterator<Item = &'a GroupRef>,
    ) -> Directory {
        let mut learnt = newest;
        for group in named {
            if learnt.find(group).is_none()
                && let Some(known) = self.find(group)
            {
                learnt.0.push(known.clone());
            }
        }
        learnt
    }

    fn find(&self, group: &GroupRef) -> Option<&AgentGroup> {
        self.0.iter().find(|known| match group {
            GroupRef::Id(id) => known.id == *id,
            GroupRef::Number(number) => known.number == *number,
            GroupRef::Name(name) => known.name == *name,
        })
    }

    /// Finds all of them, or says of each that is missing why.
    pub(crate) fn resolve_all<'a>(
        &self,
        groups: impl IntoIterator<Item = &'a GroupRef>,
    ) -> Result<BTreeSet<GroupId>, String> {
        let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
        for group in groups {
            match self.resolve(group) {
                Ok(id) => drop(found.insert(id)),
                Err(why) => missing.push(why),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(missing.join("; ")) }
    }

    /// The number and name of a group, where the plane told them.
    pub(crate) fn get(&self, id: GroupId) -> Option<&AgentGroup> {
        self.0.iter().find(|known| known.id == id)
    }

    /// How a group is called in front of people.
    pub(crate) fn label(&self, id: GroupId) -> String {
        self.get(id).map_or_else(|| id.to_string(), |known| known.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::group;

    fn known(id: u8, name: &str) -> AgentGroup {
        AgentGroup { id: group(id), number: id.into(), name: name.to_owned() }
    }

    fn name(name: &str) -> GroupRef {
        GroupRef::Name(name.to_owned())
    }

    #[test]
    fn what_the_configuration_names_keeps_its_meaning_and_nothing_else_does() {
        let before = Directory(vec![known(1, "ops"), known(2, "web"), known(3, "old")]);
        let named = [name("ops"), GroupRef::Number(2)];

        let after = before.learn(Directory(vec![known(1, "operators")]), &named);

        assert_eq!(after.resolve(&name("ops")), Ok(group(1)));
        assert_eq!(after.resolve(&GroupRef::Number(2)), Ok(group(2)));
        assert!(after.resolve(&name("old")).is_err());
        assert_eq!(after.label(group(1)), "operators");
        assert_eq!(after.learn(Directory(vec![known(1, "operators")]), &named), after);
    }

    #[test]
    fn a_name_means_what_the_control_plane_says_now() {
        let before = Directory(vec![known(1, "ops")]);

        let after = before.learn(Directory(vec![known(4, "ops")]), &[name("ops")]);

        assert_eq!(after, Directory(vec![known(4, "ops")]));
    }
}
