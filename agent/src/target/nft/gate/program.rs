//! From what stands in the kernel and the plans to one transaction: pure.

use std::collections::{BTreeMap, BTreeSet};

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::{Expiry, Timestamp};

use super::chains::{self, Chain};
use super::config::GateConfig;
use super::sets::{SetKey, SetState, size_for};
use crate::target::nft::read::Found;
use crate::target::nft::steps::{Step, key_shape};
use crate::target::nft::sys::{self, Hook};

/// From this many edits on, and when they are more than a set has elements, a new set is filled and
/// put in the old one's place, in the same transaction. A set that was emptied is no good for a
/// large load: its hash table has shrunk, and grows again while elements wait (2.5 times slower).
const ANEW_FROM: usize = 64;

/// What is known to stand in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The table's flags; `None` where there is none.
    pub(super) table: Option<u32>,
    /// The table belongs to our socket.
    pub(super) owned: bool,
    pub(super) chains: BTreeMap<String, Option<Hook>>,
    /// All chains and rules are as they should be for these sets.
    pub(super) rules_right: bool,
    /// Sets that are as they should be.
    pub(super) sets: BTreeMap<SetKey, SetState>,
    /// Names of other sets that rules look into, or may: they go after those rules.
    pub(super) junk: Vec<String>,
    /// Names of other sets that no rule looks into, such as what a change that broke off has
    /// filled: they go at any time, and so before anything else needs their names.
    pub(super) loose: Vec<String>,
}

/// What earlier attempts at the same plans have taught.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lessons {
    /// Elements that turned out not to be there.
    pub(super) gone: BTreeSet<(SetKey, Network)>,
    /// Sets that are to be replaced instead of changed.
    pub(super) replace: BTreeSet<SetKey>,
    /// Deletions go one in a message, so that the kernel names all that fail.
    pub(super) singly: bool,
}

/// A transaction: `prepare` touches nothing that rules look into, so it may go ahead in
/// transactions of its own; `commit` is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) prepare: Vec<Step>,
    pub(super) commit: Vec<Step>,
    /// What stands afterwards.
    pub(super) standing: Standing,
}

/// What a program is computed from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) config: &'a GateConfig,
    pub(super) standing: &'a Standing,
    pub(super) observed: &'a BTreeMap<GroupId, Observed>,
    pub(super) wants_owner: bool,
    pub(super) now: Timestamp,
}

impl Standing {
    /// Says whether all but entries is as it should be.
    pub(super) fn is_settled(&self, wants_owner: bool) -> bool {
        self.table.is_some_and(|flags| flags & sys::TABLE_DORMANT == 0)
            && self.rules_right
            && self.junk.is_empty()
            && self.loose.is_empty()
            && self.owned == wants_owner
    }

    /// Takes in what was read: what stands, and the entries of each group.
    pub(super) fn assess(
        config: &GateConfig,
        found: &Found,
        port: u32,
    ) -> (Standing, BTreeMap<GroupId, Observed>) {
        let groups = config.groups();
        let mut observed: BTreeMap<GroupId, Observed> =
            groups.iter().map(|group| (*group, Observed::new())).collect();
        let looked_into = chains::sets_looked_into(found);
        let mut standing = Standing {
            table: found.table.map(|table| table.flags),
            owned: found.table.is_some_and(|table| table.owner == Some(port)),
            chains: found
                .chains
                .iter()
                .map(|(name, chain)| (name.clone(), chain.hook.clone()))
                .collect(),
            ..Standing::default()
        };
        for set in &found.sets {
            let Some((key, twin, entries)) = read_set(set, &groups) else {
                standing.junk.push(set.name.clone());
                continue;
            };
            let size = set.size.unwrap_or(u32::MAX);
            let state = SetState { twin, size, len: entries.len() };
            // Of two twins the one that rules look into is in force.
            if let Some(other) = standing.sets.get(&key) {
                if !looked_into.contains(&set.name) {
                    standing.junk.push(set.name.clone());
                    continue;
                }
                standing.junk.push(key.name(other.twin));
                let of_group = observed.entry(key.group).or_default();
                of_group.retain(|network, _| SetKey::of(key.group, *network) != key);
            }
            standing.sets.insert(key, state);
            observed.entry(key.group).or_default().extend(entries);
        }
        standing.rules_right = chains::are_right(&chains::chains(config, &standing.sets), found);
        if chains::can_all_be_read(found) {
            let is_loose = |name: &mut String| !looked_into.contains(name);
            standing.loose = standing.junk.extract_if(.., is_loose).collect();
        }
        (standing, observed)
    }
}

/// Reads a set of ours with its entries; `None` where it is none, or not as we make them.
fn read_set(
    set: &crate::target::nft::read::FoundSet,
    groups: &BTreeSet<GroupId>,
) -> Option<(SetKey, bool, Observed)> {
    let (key, twin) = SetKey::parse(&set.name).filter(|(key, _)| groups.contains(&key.group))?;
    let shape = (set.key_type, set.key_bytes);
    if set.flags != sys::SET_TIMEOUT || shape != key_shape(key.family) {
        return None;
    }
    let entries = set
        .elements
        .iter()
        .map(|element| Some((key.network(element.address)?, element.expiry)))
        .collect::<Option<Observed>>()?;
    Some((key, twin, entries))
}

/// What the plans ask of one set.
#[derive(Debug, Default)]
struct Change {
    /// Entries that are there and are to go or to be replaced.
    remove: Vec<Network>,
    add: Vec<(Network, Expiry)>,
    /// How many entries, expired ones included, leave the set for good.
    leaving: usize,
    /// How many entries come that were not there.
    coming: usize,
}

/// Computes the transaction that carries out `plans` and mends what is not as it should be.
pub(super) fn compose(
    situation: Situation<'_>,
    plans: &BTreeMap<GroupId, Plan>,
    lessons: &Lessons,
) -> Program {
    let Situation { standing, wants_owner, .. } = situation;
    let lacks_flags = standing.table.is_some_and(|flags| flags & sys::TABLE_PERSIST == 0);
    // A table gets the flag when it is made, or never.
    let recreate = wants_owner && !standing.owned && lacks_flags;
    let from_nothing = recreate || standing.table.is_none();
    let mut changes = changes(situation, plans, lessons);
    let keys: BTreeSet<SetKey> = standing.sets.keys().chain(changes.keys()).copied().collect();

    let taken =
        if from_nothing { BTreeSet::new() } else { standing.junk.iter().cloned().collect() };
    let mut parts = Parts { taken, ..Parts::default() };
    for key in keys {
        let change = changes.remove(&key).unwrap_or_default();
        let existing = standing.sets.get(&key).copied();
        match existing.filter(|_| !from_nothing) {
            Some(state) => parts.change_set(situation, plans, lessons, key, state, change),
            None if recreate => {
                parts.create_set(key, false, content(situation, plans, key, change.add));
            }
            None => parts.create_set(key, false, change.add),
        }
    }
    parts.finish(situation, recreate)
}

/// Sorts the plans by set. Removals are of what is there by our books and has not expired: the
/// kernel refuses to delete what is gone.
fn changes(
    situation: Situation<'_>,
    plans: &BTreeMap<GroupId, Plan>,
    lessons: &Lessons,
) -> BTreeMap<SetKey, Change> {
    let Situation { config, observed, now, .. } = situation;
    let mut changes: BTreeMap<SetKey, Change> = BTreeMap::new();
    let groups = config.groups();
    for (group, plan) in plans.iter().filter(|(group, _)| groups.contains(group)) {
        let steps =
            plan.remove.keys().map(|network| (*network, None)).chain(
                plan.renew.iter().chain(&plan.add).map(|(net, expiry)| (*net, Some(*expiry))),
            );
        for (network, expiry) in steps {
            let key = SetKey::of(*group, network);
            let change = changes.entry(key).or_default();
            let present = observed.get(group).and_then(|observed| observed.get(&network));
            let is_there = present.is_some_and(|expiry| expiry.is_live_at(now));
            if is_there && !lessons.gone.contains(&(key, network)) {
                change.remove.push(network);
            }
            match expiry.filter(|expiry| expiry.is_live_at(now)) {
                Some(expiry) => {
                    change.add.push((network, expiry));
                    change.coming += usize::from(present.is_none());
                }
                None => change.leaving += usize::from(present.is_some()),
            }
        }
    }
    changes
}

/// All that a set is to hold afterwards: what is added, and what stays.
fn content(
    situation: Situation<'_>,
    plans: &BTreeMap<GroupId, Plan>,
    key: SetKey,
    mut content: Vec<(Network, Expiry)>,
) -> Vec<(Network, Expiry)> {
    let plan = plans.get(&key.group);
    let is_planned = |network: &Network| {
        plan.is_some_and(|plan| {
            plan.remove.contains_key(network)
                || plan.renew.contains_key(network)
                || plan.add.contains_key(network)
        })
    };
    let kept =
        situation.observed.get(&key.group).into_iter().flatten().filter(|(network, expiry)| {
            SetKey::of(key.group, **network) == key
                && expiry.is_live_at(situation.now)
                && !is_planned(network)
        });
    content.extend(kept.map(|(network, expiry)| (*network, *expiry)));
    content
}

/// The steps of a program by the place that they have in it.
#[derive(Debug, Default)]
struct Parts {
    new_sets: Vec<Step>,
    removals: Vec<Step>,
    additions: Vec<Step>,
    old_sets: Vec<Step>,
    sets: BTreeMap<SetKey, SetState>,
    /// Names that sets which are none of ours have.
    taken: BTreeSet<String>,
    /// Sets must be made under names that are taken: the old ones go first.
    clash: bool,
    /// Groups whose rules must look into other sets than before.
    groups: BTreeSet<GroupId>,
}

impl Parts {
    fn create_set(&mut self, key: SetKey, twin: bool, elements: Vec<(Network, Expiry)>) {
        if elements.is_empty() {
            return;
        }
        let is_taken = |twin| self.taken.contains(&key.name(twin));
        let twin = if is_taken(twin) && !is_taken(!twin) { !twin } else { twin };
        let (name, size, len) = (key.name(twin), size_for(elements.len()), elements.len());
        self.clash |= self.taken.contains(&name);
        let family = key.family;
        self.new_sets.push(Step::AddSet { name: name.clone(), family, size });
        self.new_sets.push(Step::AddElements { set: name, elements });
        self.sets.insert(key, SetState { twin, size, len });
        self.groups.insert(key.group);
    }

    fn change_set(
        &mut self,
        situation: Situation<'_>,
        plans: &BTreeMap<GroupId, Plan>,
        lessons: &Lessons,
        key: SetKey,
        state: SetState,
        change: Change,
    ) {
        let name = key.name(state.twin);
        let len = (state.len + change.coming).saturating_sub(change.leaving);
        if len == 0 {
            self.old_sets.push(Step::DeleteSet(name));
            self.groups.insert(key.group);
            return;
        }
        let size = usize::try_from(state.size).unwrap_or(usize::MAX);
        let fits = state.len.saturating_add(change.add.len()) <= size;
        let edits = change.add.len() + change.remove.len();
        let is_mostly_new = ANEW_FROM <= edits && state.len < edits;
        if lessons.replace.contains(&key) || !fits || is_mostly_new {
            let elements = content(situation, plans, key, change.add);
            self.taken.insert(name.clone());
            self.old_sets.push(Step::DeleteSet(name));
            self.groups.insert(key.group);
            self.create_set(key, !state.twin, elements);
            return;
        }
        self.sets.insert(key, SetState { len, ..state });
        if !change.remove.is_empty() {
            let (set, networks) = (name.clone(), change.remove);
            self.removals.push(Step::RemoveElements { set, networks });
        }
        if !change.add.is_empty() {
            self.additions.push(Step::AddElements { set: name, elements: change.add });
        }
    }

    fn finish(self, situation: Situation<'_>, recreate: bool) -> Program {
        let Situation { config, standing, wants_owner, .. } = situation;
        let from_nothing = recreate || standing.table.is_none();
        let mut prepare = Vec::new();
        let mut commit = Vec::new();
        let before = standing.table.filter(|_| !from_nothing);
        let sleeps = before.is_some_and(|flags| flags & sys::TABLE_DORMANT != 0);
        let flags = match wants_owner {
            true => sys::TABLE_OWNER | sys::TABLE_PERSIST,
            false => before.unwrap_or(0) & !sys::TABLE_DORMANT,
        };
        if from_nothing || standing.owned != wants_owner || sleeps {
            prepare.push(Step::AddTable { flags });
        }
        if !from_nothing {
            prepare.extend(standing.loose.iter().cloned().map(Step::DeleteSet));
        }
        prepare.extend(self.new_sets);
        if self.clash {
            commit.push(Step::FlushRules(None));
            commit.extend(standing.junk.iter().cloned().map(Step::DeleteSet));
            commit.append(&mut prepare);
        }
        if recreate {
            // The old table goes in the transaction that brings the new one.
            commit.push(Step::DeleteTable);
            commit.append(&mut prepare);
        }
        commit.extend(self.removals);
        commit.extend(self.additions);
        let rebuild = from_nothing || !standing.rules_right || self.clash;
        let mut chains_after = standing.chains.clone();
        if rebuild {
            let desired = chains::chains(config, &self.sets);
            let present = if from_nothing { BTreeMap::new() } else { standing.chains.clone() };
            chains_after =
                desired.iter().map(|chain| (chain.name.clone(), chain.hook.clone())).collect();
            commit.extend(rebuild_chains(desired, present));
        } else {
            commit.extend(self.groups.iter().flat_map(|group| renew_group(*group, &self.sets)));
        }
        commit.extend(self.old_sets);
        if !from_nothing && !self.clash {
            commit.extend(standing.junk.iter().cloned().map(Step::DeleteSet));
        }
        let standing = Standing {
            table: Some(flags),
            owned: wants_owner,
            chains: chains_after,
            rules_right: true,
            sets: self.sets,
            junk: Vec::new(),
            loose: Vec::new(),
        };
        Program { prepare, commit, standing }
    }
}

/// Replaces all rules; chains that should not be there or stand elsewhere go.
fn rebuild_chains(desired: Vec<Chain>, present: BTreeMap<String, Option<Hook>>) -> Vec<Step> {
    let mut steps = Vec::new();
    let stays = |chain: &Chain| present.get(&chain.name) == Some(&chain.hook);
    if !present.is_empty() {
        steps.push(Step::FlushRules(None));
    }
    let kept: BTreeSet<String> =
        desired.iter().filter(|chain| stays(chain)).map(|chain| chain.name.clone()).collect();
    let gone = present.into_keys().filter(|name| !kept.contains(name));
    steps.extend(gone.map(Step::DeleteChain));
    let missing = desired.iter().filter(|chain| !kept.contains(&chain.name));
    steps.extend(
        missing.map(|chain| Step::AddChain { name: chain.name.clone(), hook: chain.hook.clone() }),
    );
    for Chain { name, rules, .. } in desired {
        steps.extend(rules.into_iter().map(|rule| Step::AddRule { chain: name.clone(), rule }));
    }
    steps
}

/// Replaces the rules of one group's chain.
fn renew_group(group: GroupId, sets: &BTreeMap<SetKey, SetState>) -> Vec<Step> {
    let chain = chains::group_chain(group);
    let mut steps = vec![Step::FlushRules(Some(chain.clone()))];
    let rules = chains::group_rules(group, sets).into_iter();
    steps.extend(rules.map(|rule| Step::AddRule { chain: chain.clone(), rule }));
    steps
}
