//! Managed prefix lists, one for each family: an address that is allowed is an entry.
//!
//! An entry is ours when our mark is its description. Every change names the version that it was
//! made for, so whoever else edits the list at the same time loses nothing, and neither do we.
//!
//! EC2 changes no description: an entry with another deadline is taken away in one version and
//! comes back in the next, some seconds later. So deadlines are written anew as rarely as possible,
//! and while an entry is away the connections that it has let in go on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use postern_shared::network::{Family, Network};
use tokio::time::Instant;

use super::client::Ec2;
use super::config::PrefixListsConfig;
use super::error::AwsError;
use super::lists::{self, BATCH_MAX, Change, Head};
use crate::target::TargetError;
use crate::target::marked::{Edits, Held, Provider, Room, first_words};

/// How long a write may go on before everything is looked at again: meanwhile entries expire.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Lists grow by so many entries, so that not every entry makes one grow.
const GROWTH: usize = 10;

/// The lists as they were last read.
#[derive(Debug)]
pub struct PrefixLists {
    ec2: Ec2,
    config: PrefixListsConfig,
    /// How our descriptions begin.
    mark: String,
    lists: BTreeMap<Family, List>,
    /// What EC2 says of one that is not there.
    gone: Option<String>,
}

#[derive(Debug)]
struct List {
    head: Head,
    entries: BTreeMap<Network, String>,
}

/// The next versions of a list, in order, and what they come to.
#[derive(Debug, Default)]
struct Steps {
    changes: Vec<Change>,
    /// In pairs: an entry is away from the first of them to the second.
    renewals: Vec<Change>,
    after: usize,
}

impl PrefixLists {
    /// Makes the target; nothing is asked yet. `owner` is whose marks are ours.
    pub fn new(ec2: Ec2, config: PrefixListsConfig, owner: &str) -> PrefixLists {
        PrefixLists { ec2, config, mark: first_words(owner), lists: BTreeMap::new(), gone: None }
    }

    /// How many entries of ours the lists have room for, as far as they were read and may grow.
    pub fn room(&self) -> Room {
        let of = |family| {
            let Some(List { head, entries }) = self.lists.get(&family) else { return usize::MAX };
            let foreign = entries.values().filter(|text| !self.is_ours(text)).count();
            let most = self.config.grow_to.map_or(head.entries_max, |to| to.max(head.entries_max));
            most.saturating_sub(foreign)
        };
        Room::Each { v4: of(Family::V4), v6: of(Family::V6) }
    }

    /// Stops between two changes when it takes too long, but never while an entry is away.
    async fn carry_out(
        &mut self,
        family: Family,
        changes: Vec<Change>,
        until: Instant,
    ) -> Result<(), TargetError> {
        for change in changes {
            if until < Instant::now() && !change.brings_back {
                return Err(TargetError::Changed);
            }
            let list = self.lists.get_mut(&family).expect("only lists that were read are changed");
            list.head = lists::modify(&mut self.ec2, &list.head, &change).await?;
            for network in &change.remove {
                list.entries.remove(network);
            }
            list.entries.extend(change.add);
        }
        Ok(())
    }

    fn heads(&self) -> Vec<Head> {
        self.lists.values().map(|list| list.head.clone()).collect()
    }

    /// Waits until what was changed is in force. A list that somebody else has changed meanwhile is
    /// to be read again.
    async fn complete(&mut self, before: &[Head]) -> Result<(), TargetError> {
        let mut expected = self.heads();
        expected.retain(|head| !before.contains(head));
        if expected.is_empty() {
            return Ok(());
        }
        let seen = lists::complete(&mut self.ec2, &expected).await?;
        for (seen, expected) in seen.into_iter().zip(expected) {
            if expected.version < seen.version {
                self.lists.retain(|_, list| list.head.id != seen.id);
                return Err(TargetError::Changed);
            }
        }
        Ok(())
    }

    /// What takes away and what is new goes first, as much as a call holds. Renewals follow in pairs
    /// of versions, so that an entry is away for as short as can be.
    fn steps(&self, family: Family, list: &List, edits: &Edits) -> Steps {
        let mine = |network: &Network| network.family() == family;
        let held = |network: &Network| {
            list.entries.get(network).filter(|description| self.is_ours(description))
        };
        let mut remove: Vec<Network> =
            edits.remove.iter().filter(|network| mine(network)).copied().collect();
        remove.retain(|network| held(network).is_some());
        let (mut add, mut renew) = (Vec::new(), Vec::new());
        for (network, description) in edits.put.iter().filter(|(network, _)| mine(network)) {
            match (held(network), list.entries.contains_key(network)) {
                (Some(present), _) if present == description => {}
                (Some(_), _) => renew.push((*network, description.clone())),
                // Somebody else's entry lets the same in.
                (None, true) => {}
                (None, false) => add.push((*network, description.clone())),
            }
        }
        let after = list.entries.len() + add.len() - remove.len();
        let mut changes = Vec::new();
        let (mut remove, mut add) = (remove.into_iter(), add.into_iter());
        loop {
            let gone: Vec<Network> = remove.by_ref().take(BATCH_MAX).collect();
            let new = add.by_ref().take(BATCH_MAX - gone.len()).collect();
            let change = Change { add: new, remove: gone, brings_back: false };
            if change.len() == 0 {
                break;
            }
            changes.push(change);
        }
        let mut renewals = Vec::new();
        for pair in renew.chunks(BATCH_MAX) {
            let remove = pair.iter().map(|(network, _)| *network).collect();
            let add = pair.iter().cloned().collect();
            renewals.push(Change { remove, ..Change::default() });
            renewals.push(Change { add, brings_back: true, ..Change::default() });
        }
        Steps { changes, renewals, after }
    }

    /// Reads the heads of the lists that are there: one that is gone holds up nothing of the other.
    async fn read_heads(&mut self) -> Result<BTreeMap<Family, Head>, AwsError> {
        let named = [(Family::V4, &self.config.v4), (Family::V6, &self.config.v6)];
        let named: Vec<(Family, String)> =
            named.into_iter().filter_map(|(family, id)| Some((family, id.clone()?))).collect();
        let ids: Vec<String> = named.iter().map(|(_, id)| id.clone()).collect();
        self.gone = None;
        match lists::heads(&mut self.ec2, &ids).await {
            Ok(heads) => {
                return Ok(named.into_iter().map(|(family, _)| family).zip(heads).collect());
            }
            Err(AwsError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        // It does not say of each.
        let mut there = BTreeMap::new();
        for (family, id) in named {
            match lists::heads(&mut self.ec2, &[id]).await {
                Ok(heads) => there.extend(heads.into_iter().map(|head| (family, head))),
                Err(gone @ AwsError::Gone { .. }) => self.gone = Some(gone.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(there)
    }

    /// How much a list is let hold so that `wanted` fit: little more than is needed.
    fn grown(&self, wanted: usize) -> Option<usize> {
        let most = self.config.grow_to.filter(|most| wanted <= *most)?;
        Some(most.min(wanted.next_multiple_of(GROWTH)))
    }

    fn is_ours(&self, description: &str) -> bool {
        description.starts_with(&self.mark)
    }
}

impl Provider for PrefixLists {
    const KIND: &'static str = "aws_prefix_list";
    const RENEW_PART: u32 = 8;

    /// Reads the heads, and the entries of lists that have another version than before.
    async fn read(&mut self) -> Result<(), TargetError> {
        let heads = self.read_heads().await?;
        // One that is made again begins again with its first version.
        self.lists.retain(|family, _| heads.contains_key(family));
        if let (true, Some(reason)) = (heads.is_empty(), self.gone.clone()) {
            return Err(TargetError::Rejected { reason });
        }
        for (family, head) in heads {
            if head.family != Some(family) {
                let id = head.id;
                let reason = format!("{id} is a list for the other family than {family:?}");
                return Err(TargetError::Rejected { reason });
            }
            // A read that is behind shows an older one than ours.
            let known = self.lists.get(&family).map_or(0, |list| list.head.version);
            if head.version < known {
                continue;
            }
            match self.lists.get_mut(&family) {
                Some(list) if list.head.version == head.version => list.head = head,
                Some(_) | None => {
                    let entries = lists::entries(&mut self.ec2, &head).await?;
                    self.lists.insert(family, List { head, entries });
                }
            }
        }
        Ok(())
    }

    fn held(&self) -> BTreeMap<Network, Held> {
        let entries = self.lists.values().flat_map(|list| &list.entries);
        let ours = entries.filter(|(_, description)| self.is_ours(description));
        let held = |text: &String| Held { descriptions: [text.clone()].into(), is_whole: true };
        ours.map(|(network, text)| (*network, held(text))).collect()
    }

    fn is_taken(&self, network: Network) -> bool {
        let entries = self.lists.get(&network.family()).map(|list| &list.entries);
        entries
            .and_then(|entries| entries.get(&network))
            .is_some_and(|description| !self.is_ours(description))
    }

    fn is_settled(&self) -> bool {
        self.gone.is_none()
    }

    fn doubt(&self) -> Option<String> {
        self.gone.clone()
    }

    fn preview(&self, edits: &Edits) -> String {
        let mut text = self.gone.iter().map(|gone| format!("{gone}\n")).collect::<String>();
        if self.lists.is_empty() {
            text.push_str("the lists were not read yet\n");
            for network in edits.remove.iter().chain(edits.put.keys()) {
                let _ = writeln!(text, "change {network}");
            }
        }
        for (family, list) in &self.lists {
            let Head { id, entries_max, version, .. } = &list.head;
            let Steps { mut changes, renewals, after } = self.steps(*family, list, edits);
            changes.extend(renewals);
            let now = list.entries.len();
            let _ = writeln!(text, "{id}: entries now {now}; then {after}; limit {entries_max}");
            if *entries_max < after {
                let _ = match self.grown(after) {
                    Some(most) => writeln!(text, "{id}: would be let hold {most}"),
                    None => writeln!(text, "{id}: this does not fit, and nothing would be added"),
                };
            }
            for (at, change) in (*version..).zip(&changes) {
                for network in &change.remove {
                    let _ = writeln!(text, "{id} version {at}: remove {network}");
                }
                for (network, description) in &change.add {
                    let _ = writeln!(text, "{id} version {at}: add {network} as {description}");
                }
            }
        }
        text
    }

    /// What does not fit at all is refused as a whole before anything of it is sent.
    async fn write(&mut self, edits: &Edits) -> Result<(), TargetError> {
        let until = Instant::now() + WRITE_MAX;
        let families: Vec<Family> = self.lists.keys().copied().collect();
        let before = self.heads();
        let (mut full, mut later) = (None, Vec::new());
        for family in families {
            let list = &self.lists[&family];
            let Steps { mut changes, renewals, after } = self.steps(family, list, edits);
            later.push((family, renewals));
            let most = list.head.entries_max;
            if most < after {
                if let Some(most) = self.grown(after) {
                    let list = self.lists.get_mut(&family).expect("it was just there");
                    list.head = lists::grow(&mut self.ec2, &list.head, most).await?;
                } else {
                    full = Some(TargetError::Full { wanted: after, capacity: most });
                    changes.iter_mut().for_each(|change| change.add.clear());
                    changes.retain(|change| change.len() != 0);
                }
            }
            self.carry_out(family, changes, until).await?;
        }
        // What closes or opens in one list does not wait for what goes on in the other.
        for (family, renewals) in later {
            self.carry_out(family, renewals, until).await?;
        }
        self.complete(&before).await?;
        let gone = self.gone.clone().map(|reason| TargetError::Rejected { reason });
        full.or(gone).map_or(Ok(()), Err)
    }
}
