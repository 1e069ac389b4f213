//! Managed prefix lists and their versions.

use std::collections::BTreeMap;

use postern_shared::network::{Family, Network};
use tokio::time::Instant;

use super::request::Request;
use super::{Refusal, State, check_description, escaped, refused};

const CHANGES_MAX: usize = 100;

/// A list with all its versions.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) family: Family,
    pub(crate) entries_max: usize,
    /// The entries of each version; the first version is 1.
    pub(crate) versions: Vec<BTreeMap<Network, String>>,
    /// Until when the last change is under way.
    working_until: Instant,
    /// What readers saw that are behind: version and size, until when.
    past: Vec<(Instant, usize, usize)>,
}

impl List {
    pub(crate) fn new(family: Family, entries_max: usize) -> List {
        let versions = vec![BTreeMap::new()];
        List { family, entries_max, versions, working_until: Instant::now(), past: Vec::new() }
    }

    /// What is in force.
    pub(crate) fn entries(&self) -> &BTreeMap<Network, String> {
        self.versions.last().unwrap()
    }

    /// Makes another version, as somebody in the console does.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut BTreeMap<Network, String>)) {
        let mut entries = self.entries().clone();
        change(&mut entries);
        self.remember();
        self.versions.push(entries);
    }

    fn remember(&mut self) {
        self.past.push((Instant::now(), self.versions.len(), self.entries_max));
    }

    fn head_at(&self, instant: Instant) -> (usize, usize, Instant) {
        let later = self.past.iter().find(|(changed, ..)| instant < *changed);
        match later {
            Some((_, version, entries_max)) => (*version, *entries_max, instant),
            None => (self.versions.len(), self.entries_max, self.working_until),
        }
    }
}

impl State {
    fn list(&mut self, request: &Request) -> Result<&mut List, Refusal> {
        let id = request.get("PrefixListId").unwrap_or_default();
        self.lists.get_mut(id).ok_or_else(|| no_list(id))
    }

    pub(super) fn describe_lists(&mut self, request: &Request) -> Result<String, Refusal> {
        let seen = self.behind();
        let mut items = Vec::new();
        for name in request.numbered("PrefixListId") {
            let id = request.get(&name).unwrap_or_default();
            let list = self.lists.get(id).ok_or_else(|| no_list(id))?;
            items.push(head(id, list, seen));
        }
        let (items, token) = self.page(request, &items)?;
        Ok(format!("<prefixListSet>{items}</prefixListSet>{token}"))
    }

    pub(super) fn list_entries(&mut self, request: &Request) -> Result<String, Refusal> {
        let list = self.list(request)?;
        let version = match request.get("TargetVersion") {
            Some(version) => version.parse().unwrap_or(0),
            None => list.versions.len(),
        };
        let entries = version.checked_sub(1).and_then(|at| list.versions.get(at));
        let entries = entries.ok_or_else(|| {
            refused("InvalidPrefixListVersion", format!("There is no version {version}."))
        })?;
        let items: Vec<String> = entries
            .iter()
            .map(|(network, description)| {
                format!("<cidr>{network}</cidr><description>{}</description>", escaped(description))
            })
            .collect();
        let (items, token) = self.page(request, &items)?;
        Ok(format!("<entrySet>{items}</entrySet>{token}"))
    }

    pub(super) fn modify_list(&mut self, request: &Request) -> Result<String, Refusal> {
        let working = self.temper.working;
        let list = self.list(request)?;
        let now = Instant::now();
        if now < list.working_until {
            return Err(refused(
                "IncorrectState",
                "The prefix list is in the state modify-in-progress.",
            ));
        }
        let add: Vec<String> = request.numbered("AddEntry").collect();
        let remove: Vec<String> = request.numbered("RemoveEntry").collect();
        if let Some(most) = request.get("MaxEntries") {
            if !add.is_empty() || !remove.is_empty() {
                return Err(refused("InvalidParameterCombination", "MaxEntries and entries."));
            }
            let most: usize =
                most.parse().map_err(|_| refused("InvalidParameterValue", "MaxEntries"))?;
            if most < list.entries().len() {
                return Err(refused(
                    "InvalidParameterValue",
                    "MaxEntries is less than the entries.",
                ));
            }
            list.remember();
            list.entries_max = most;
            list.working_until = now + working;
        } else {
            let entries = list.changed(request, &add, &remove)?;
            list.remember();
            list.versions.push(entries);
            list.working_until = now + working;
        }
        let id = request.get("PrefixListId").unwrap_or_default();
        Ok(format!("<prefixList>{}</prefixList>", head(id, list, now)))
    }
}

impl List {
    fn changed(
        &self,
        request: &Request,
        add: &[String],
        remove: &[String],
    ) -> Result<BTreeMap<Network, String>, Refusal> {
        let version = request.get("CurrentVersion").and_then(|version| version.parse().ok());
        if version != Some(self.versions.len()) {
            let message = "The prefix list has the incorrect version number.";
            return Err(refused("PrefixListVersionMismatch", message));
        }
        if CHANGES_MAX < add.len() || CHANGES_MAX < remove.len() {
            return Err(refused("InvalidParameterValue", "More than 100 entries in one request."));
        }
        let network = |item: &String| -> Result<Network, Refusal> {
            let written = request.get(&format!("{item}.Cidr")).unwrap_or_default();
            let network: Option<Network> = written.parse().ok();
            network.filter(|network| network.family() == self.family).ok_or_else(|| {
                refused("InvalidParameterValue", format!("{written} is no CIDR of this family."))
            })
        };
        let mut entries = self.entries().clone();
        let mut removed = Vec::new();
        for item in remove {
            let network = network(item)?;
            removed.push(network);
            if entries.remove(&network).is_none() {
                return Err(refused(
                    "InvalidParameterValue",
                    format!("{network} is not in the list."),
                ));
            }
        }
        for item in add {
            let network = network(item)?;
            let description = request.get(&format!("{item}.Description")).unwrap_or_default();
            check_description(description)?;
            if removed.contains(&network) {
                let message = format!(
                    "Request cannot contain Cidr {network} in both AddPrefixListEntries and RemovePrefixListEntries"
                );
                return Err(refused("InvalidParameterValue", message));
            }
            if entries.insert(network, description.to_owned()).is_some() {
                return Err(refused("InvalidRequest", "The request received was invalid."));
            }
        }
        if self.entries_max < entries.len() {
            let message = "You've reached the maximum number of entries for the prefix list.";
            return Err(refused("PrefixListMaxEntriesExceeded", message));
        }
        Ok(entries)
    }
}

fn head(id: &str, list: &List, seen: Instant) -> String {
    let (version, entries_max, working_until) = list.head_at(seen);
    let state = if seen < working_until { "modify-in-progress" } else { "modify-complete" };
    let family = match list.family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    format!(
        "<prefixListId>{id}</prefixListId><addressFamily>{family}</addressFamily>\
         <state>{state}</state><prefixListName>postern</prefixListName>\
         <maxEntries>{entries_max}</maxEntries><version>{version}</version><ownerId>1</ownerId>"
    )
}

fn no_list(id: &str) -> Refusal {
    refused("InvalidPrefixListID.NotFound", format!("The prefix list ID '{id}' does not exist"))
}
