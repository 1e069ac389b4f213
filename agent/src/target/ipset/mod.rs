//! Sets of `ipset`, for hosts whose rules are of iptables: the operator's rules ask them, we keep
//! their elements and nothing else.
//!
//! They are recognised by the names in the configuration, and every element of them is ours. The
//! kernel holds the time of each, so it ends without us. A set knows no groups, so this target knows
//! of them only what it wrote itself: after a restart nothing counts as there, and the first change
//! replaces all. A replacement fills a set beside the one in use, and swaps the two in one step: no
//! packet sees anything between the two lists.
//!
//! `ipset` takes no more than 24 days. What has longer is given those, and again when half of them
//! are over: an agent that dies takes time away.

mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_shared::format::{Format, ipset_elements};
use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

pub use self::script::Change;

use self::script::{FOR_EVER, Found, number};
use super::{Refresh, Target, TargetError, TargetInfo, carried_out};
use crate::commands::{CommandError, Commands, Deed, Program, Trade};

/// How long what was read is taken for true: nobody tells of changes.
const READ_EVERY: Duration = Duration::from_secs(50);
/// From so many changed elements on, the whole set is replaced in one step.
const CHANGES_MAX: usize = 500;
/// The most elements take a second or two.
const LIMIT: Duration = Duration::from_secs(30);
/// Deadlines that differ by less are the same: a set holds whole seconds.
const SLACK: Duration = Duration::from_millis(1_500);

/// Sets to fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpsetConfig {
    /// The set for IPv4.
    pub v4_set: Option<String>,
    /// The set for IPv6.
    pub v6_set: Option<String>,
    /// Most elements of a set that we make.
    pub elements_max: usize,
}

/// Sets, as a target.
#[derive(Debug)]
pub struct Ipset {
    info: TargetInfo,
    config: IpsetConfig,
    commands: Commands,
    observed: BTreeMap<GroupId, Observed>,
    /// Until when the kernel holds each element.
    armed: BTreeMap<Network, Expiry>,
    /// How many elements each set holds.
    sizes: BTreeMap<Family, usize>,
    /// The kernel holds what `armed` says.
    is_known: bool,
    /// The sets are to be replaced.
    rewrite: bool,
    read_at: Option<Instant>,
    now: (Timestamp, Instant),
}

impl IpsetConfig {
    /// Most elements where nobody says otherwise: more than a list may hold.
    pub const ELEMENTS_MAX: usize = 262_144;
    /// The longest name, of the 31 bytes that `ipset` takes: ours needs some for the set beside it.
    pub const NAME_BYTES_MAX: usize = 27;

    fn sets(&self) -> impl Iterator<Item = (Family, &str)> {
        let v4 = self.v4_set.iter().map(|set| (Family::V4, set.as_str()));
        v4.chain(self.v6_set.iter().map(|set| (Family::V6, set.as_str())))
    }

    fn set(&self, of: u8) -> Option<&str> {
        self.sets().find(|(family, _)| number(*family) == of).map(|(_, set)| set)
    }

    /// Prints the set of a family.
    pub(crate) async fn read(&self, family: u8) -> Result<String, CommandError> {
        let set = self.set(family).ok_or_else(no_set)?;
        ipset(&["save", set], "").await
    }

    /// Changes sets.
    pub(crate) async fn write(&self, changes: &[Change]) -> Result<String, CommandError> {
        ipset(&["restore"], &self.script(changes).ok_or_else(no_set)?).await
    }

    /// What `ipset restore` is told.
    fn script(&self, changes: &[Change]) -> Option<String> {
        changes.iter().map(|change| Some(script::write(self.set(change.family)?, change))).collect()
    }
}

fn no_set() -> CommandError {
    CommandError::Refused("the target has no set of this family".to_owned())
}

async fn ipset(arguments: &[&str], input: &str) -> Result<String, CommandError> {
    let argv = ["/usr/sbin/ipset"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
    Ok(Program { argv, limit: LIMIT }.run(input).await?)
}

impl Ipset {
    /// Makes the target; nothing is read yet.
    pub fn new(
        name: &str,
        config: IpsetConfig,
        groups: BTreeSet<GroupId>,
        commands: Commands,
    ) -> Ipset {
        let info = TargetInfo { name: name.to_owned(), kind: "ipset", strategy: String::new() };
        Ipset {
            info,
            config,
            commands,
            observed: groups.into_iter().map(|group| (group, Observed::new())).collect(),
            armed: BTreeMap::new(),
            sizes: BTreeMap::new(),
            is_known: false,
            rewrite: true,
            read_at: None,
            now: (Timestamp::EPOCH, Instant::now()),
        }
    }

    fn hear(&mut self, now: Timestamp) {
        self.now = (now, Instant::now());
    }

    fn now(&self) -> Timestamp {
        self.now.0.saturating_add(self.now.1.elapsed())
    }

    async fn read(&self, family: Family, set: &str) -> Result<Option<Found>, TargetError> {
        let trade = Trade::Ipset(self.config.clone());
        let deed = Deed::IpsetRead { family: number(family) };
        let saved = match self.commands.carry_out(&self.info.name, &trade, &deed).await {
            Ok(saved) => saved,
            Err(error) if error.to_string().contains("does not exist") => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = script::read(set, family, &saved);
        found.map(Some).map_err(|reason| TargetError::Rejected { reason })
    }

    async fn change(&mut self, changes: Vec<Change>) -> Result<(), TargetError> {
        self.is_known = false;
        let (trade, deed) = (Trade::Ipset(self.config.clone()), Deed::IpsetWrite { changes });
        match self.commands.carry_out(&self.info.name, &trade, &deed).await {
            Ok(_) => {
                self.is_known = true;
                Ok(())
            }
            Err(error) => {
                // As much as it came to is read, and all of it is written the next time.
                self.rewrite = true;
                Err(error.into())
            }
        }
    }

    /// The changes that make the sets hold `wanted`.
    fn changes(
        &self,
        wanted: &BTreeMap<Network, Expiry>,
        now: Timestamp,
    ) -> Result<Vec<Change>, TargetError> {
        let mut changes = Vec::new();
        for (family, _) in self.config.sets() {
            let of = |network: &&Network| network.family() == family;
            let capacity = self.sizes.get(&family).copied().unwrap_or(self.config.elements_max);
            let count = wanted.keys().filter(of).count();
            if capacity < count {
                return Err(TargetError::Full { wanted: count, capacity });
            }
            let mut change = Change {
                family: number(family),
                replace: self.rewrite,
                elements_max: capacity,
                remove: Vec::new(),
                put: Vec::new(),
            };
            let gone = self.armed.keys().filter(of).filter(|network| !wanted.contains_key(network));
            change.remove.extend(gone);
            let due = |(network, expiry): &(&Network, &Expiry)| {
                is_due(self.armed.get(network).copied(), **expiry, now)
            };
            let put = |(network, expiry): (&Network, &Expiry)| (*network, secs(*expiry, now));
            let wanted = || wanted.iter().filter(|(network, _)| of(network));
            change.put.extend(wanted().filter(due).map(put));
            change.replace |= CHANGES_MAX < change.remove.len() + change.put.len();
            if change.replace {
                change.remove.clear();
                change.put = wanted().map(put).collect();
            }
            if change.replace || !change.remove.is_empty() || !change.put.is_empty() {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    /// How many elements of a set are not as we left them.
    fn drift(&self, family: Family, found: &Found, now: Timestamp) -> usize {
        let ours = self.armed.iter().filter(|(network, _)| network.family() == family);
        let soon = now.saturating_add(SLACK);
        let missing = ours.clone().filter(|(network, expiry)| {
            expiry.is_live_at(soon)
                && found.elements.get(network).is_none_or(|secs| differ(**expiry, *secs, now))
        });
        let strange = found.elements.keys().filter(|network| !self.armed.contains_key(network));
        missing.count() + strange.count()
    }
}

/// All elements that are wanted, with the latest deadline of any group.
fn union(model: &BTreeMap<GroupId, Observed>) -> BTreeMap<Network, Expiry> {
    let mut union: BTreeMap<Network, Expiry> = BTreeMap::new();
    for (network, expiry) in model.values().flatten() {
        for element in ipset_elements(*network) {
            let kept = union.entry(element).or_insert(*expiry);
            *kept = expiry.max(kept).to_owned();
        }
    }
    union
}

fn secs_max() -> u64 {
    Format::Ipset.left_secs_max().expect("sets hold times")
}

/// The time that an element is given, in whole seconds: none at all would mean for ever.
fn secs(expiry: Expiry, now: Timestamp) -> u64 {
    expiry.left_at(now).map_or(FOR_EVER, |left| left.as_secs().clamp(1, secs_max()))
}

/// Says whether an element must be put to be held until `wanted`.
fn is_due(armed: Option<Expiry>, wanted: Expiry, now: Timestamp) -> bool {
    match (armed, wanted) {
        (None, _) => true,
        (Some(Expiry::Never), Expiry::Never) => false,
        (Some(Expiry::Never), Expiry::At(_)) | (Some(Expiry::At(_)), Expiry::Never) => true,
        (Some(Expiry::At(armed)), Expiry::At(wanted)) if wanted < armed => {
            SLACK < armed.since(wanted)
        }
        (Some(Expiry::At(armed)), Expiry::At(wanted)) => {
            let is_cut = secs_max() < wanted.since(now).as_secs();
            let is_half = armed.since(now).as_secs() < secs_max() / 2;
            SLACK < wanted.since(armed) && (!is_cut || is_half)
        }
    }
}

/// Until when the kernel holds what was just put.
fn armed(expiry: Expiry, now: Timestamp) -> Expiry {
    match secs(expiry, now) {
        FOR_EVER => Expiry::Never,
        secs => Expiry::At(now.saturating_add(Duration::from_secs(secs))),
    }
}

fn differ(ours: Expiry, found: u64, now: Timestamp) -> bool {
    match ours.left_at(now) {
        None => found != FOR_EVER,
        Some(left) => found == FOR_EVER || 2 < left.as_secs().abs_diff(found),
    }
}

impl Target for Ipset {
    fn info(&self) -> &TargetInfo {
        &self.info
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        self.hear(now);
        if self.is_known && self.read_at.is_some_and(|at| at.elapsed() < READ_EVERY) {
            return Ok(Refresh::Unchanged);
        }
        self.is_known = false;
        let mut drift = 0;
        let sets: Vec<(Family, String)> =
            self.config.sets().map(|(family, set)| (family, set.to_owned())).collect();
        for (family, set) in sets {
            let found = self.read(family, &set).await?;
            match found {
                Some(found) => {
                    self.sizes.insert(family, found.elements_max);
                    drift += self.drift(family, &found, self.now());
                }
                None => {
                    self.sizes.remove(&family);
                    drift += 1;
                }
            }
        }
        let is_first = self.read_at.is_none();
        self.read_at = Some(Instant::now());
        self.is_known = true;
        self.rewrite |= 0 < drift;
        Ok(Refresh::Reread { drift: if is_first { 0 } else { drift } })
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        let now = self.now();
        let wanted = union(&carried_out(&self.observed, &BTreeMap::new(), now));
        let is_due = |(network, expiry): (&Network, &Expiry)| {
            is_due(self.armed.get(network).copied(), *expiry, now)
        };
        self.is_known && !self.rewrite && !wanted.iter().any(is_due)
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        // As of the beginning of time everything has time left, and is shown.
        let now = Timestamp::EPOCH;
        let wanted = union(&carried_out(&self.observed, plans, now));
        match self.changes(&wanted, now) {
            Ok(changes) => self.config.script(&changes).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        if !self.is_known {
            return Err(TargetError::Changed);
        }
        self.hear(now);
        let model = carried_out(&self.observed, plans, now);
        let wanted = union(&model);
        // What has ended is gone from the kernel, and needs no word.
        self.armed.retain(|_, expiry| expiry.is_live_at(now));
        let changes = self.changes(&wanted, now)?;
        if !changes.is_empty() {
            let families: BTreeSet<u8> = changes.iter().map(|change| change.family).collect();
            let put: Vec<(Network, bool)> = changes
                .iter()
                .flat_map(|change| change.put.iter().map(|(network, _)| (*network, change.replace)))
                .collect();
            let replaced: BTreeSet<u8> = changes
                .iter()
                .filter(|change| change.replace)
                .map(|change| change.family)
                .collect();
            self.change(changes).await?;
            self.armed.retain(|network, _| {
                let family = number(network.family());
                !families.contains(&family)
                    || (!replaced.contains(&family) && wanted.contains_key(network))
            });
            for (network, _) in put {
                self.armed.insert(network, armed(wanted[&network], now));
            }
        }
        self.observed = model;
        self.rewrite = false;
        Ok(())
    }

    async fn disturbed(&mut self) {
        std::future::pending().await
    }

    /// The kernel ends entries by itself.
    fn earliest_deadline(&self) -> Option<Timestamp> {
        None
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        let empty = |(family, _): (Family, &str)| Change {
            family: number(family),
            replace: true,
            elements_max: self.sizes.get(&family).copied().unwrap_or(self.config.elements_max),
            remove: Vec::new(),
            put: Vec::new(),
        };
        let changes = self.config.sets().map(empty).collect();
        self.change(changes).await?;
        self.armed.clear();
        self.observed.values_mut().for_each(Observed::clear);
        Ok(())
    }
}
