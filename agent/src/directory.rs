//! Which group a configuration means: what the control plane told of names and numbers.

use std::collections::BTreeSet;

use postern_shared::ids::GroupId;
use postern_shared::wire::v1::AgentGroup;

use crate::config::GroupRef;

/// The groups that the control plane lets this agent follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory(pub(crate) Vec<AgentGroup>);

impl Directory {
    /// Finds the group that is meant. An id means itself, known or not.
    pub(crate) fn resolve(&self, group: &GroupRef) -> Result<GroupId, String> {
        let found = match group {
            GroupRef::Id(id) => return Ok(*id),
            GroupRef::Number(number) => self.0.iter().find(|known| known.number == *number),
            GroupRef::Name(name) => self.0.iter().find(|known| known.name == *name),
        };
        found.map(|found| found.id).ok_or_else(|| {
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
