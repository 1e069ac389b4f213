//! Sets of the operator's own table: he declares them and uses them in his rules, we keep their
//! elements and nothing else.
//!
//! Every element of these sets is ours; they are recognised by the names in the configuration. A
//! set without intervals gets changes element by element. A set with intervals refuses overlap and
//! may widen a piece of a range when its neighbour expires, so it is always written anew as a
//! whole, as ranges that do not overlap, and read back.
//!
//! The kernel does not know which group an entry is from. So this target knows it only of what it
//! wrote itself: after a restart nothing counts as there, and the first transaction replaces all.

mod config;
pub(super) mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

pub use self::config::{SetsConfig, TableFamily};

use self::config::Shape;
use super::gate::config::ConfigError;
use super::kernel::{AUDIT_EVERY, Kernel};
use super::read::{Found, FoundSet};
use super::socket::CommitError;
use super::steps::{Encoding, Step};
use super::{NftOptions, refusal};
use crate::target::{Refresh, Target, TargetError, TargetInfo, carried_out};

/// Each transaction costs a set with intervals its whole size: changes within this time go together.
const COALESCE: Duration = Duration::from_millis(100);
/// Expired entries are forgotten this often.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Sets of the operator's table, as a target.
#[derive(Debug)]
pub struct SetsTarget {
    info: TargetInfo,
    config: SetsConfig,
    options: NftOptions,
    kernel: Option<Kernel>,
    shapes: BTreeMap<Family, Shape>,
    observed: BTreeMap<GroupId, Observed>,
    /// The kernel holds what `observed` says.
    known: bool,
    /// The sets are to be written anew as a whole.
    rewrite: bool,
    read_at: Option<Timestamp>,
    forgotten_at: Timestamp,
    written_at: Option<Instant>,
}

impl SetsTarget {
    /// Makes the target; it reaches for the kernel at the first refresh.
    pub fn new(
        name: &str,
        config: SetsConfig,
        options: NftOptions,
    ) -> Result<SetsTarget, ConfigError> {
        config.check()?;
        let observed = config.groups.iter().map(|group| (*group, Observed::new())).collect();
        let info = TargetInfo { name: name.to_owned(), kind: "nftables", strategy: String::new() };
        Ok(SetsTarget {
            info,
            config,
            options,
            kernel: None,
            shapes: BTreeMap::new(),
            observed,
            known: false,
            rewrite: true,
            read_at: None,
            forgotten_at: Timestamp::EPOCH,
            written_at: None,
        })
    }

    async fn connect(&mut self) -> Result<&mut Kernel, TargetError> {
        if self.kernel.is_none() {
            let (family, table) = (self.config.family.number(), &self.config.table);
            let kernel = Kernel::open(family, table, self.options, false).await?;
            self.info.strategy = kernel.strategy();
            self.kernel = Some(kernel);
        }
        Ok(self.kernel.as_mut().expect("opened just above"))
    }

    async fn read(&mut self, now: Timestamp) -> Result<Found, TargetError> {
        let sets: BTreeSet<String> = self.config.sets().map(|(_, set)| set.clone()).collect();
        let kernel = self.connect().await?;
        kernel.read(now, move |set: &FoundSet| sets.contains(&set.name)).await
    }

    /// How many ranges are not what they should be.
    fn drift(&self, found: &Found, now: Timestamp) -> usize {
        let of_set = |(family, shape): (&Family, &Shape)| {
            let wanted = content::wanted(&self.observed, *family, shape, now);
            let elements = found.sets.iter().find(|set| set.name == shape.name);
            let elements = elements.map(|set| set.elements.as_slice()).unwrap_or_default();
            content::drift(&wanted, &content::found(elements, shape), now)
        };
        self.shapes.iter().map(of_set).sum()
    }

    /// The transaction that makes the sets hold `model`.
    fn compose(
        &self,
        plans: &BTreeMap<GroupId, Plan>,
        model: &BTreeMap<GroupId, Observed>,
        now: Timestamp,
    ) -> Result<Vec<Step>, TargetError> {
        let mut steps = Vec::new();
        let supposed = self.config.supposed();
        let shapes = if self.shapes.is_empty() { &supposed } else { &self.shapes };
        for (family, shape) in shapes {
            self.check_fit(*family, shape, model, now)?;
            let set = shape.name.clone();
            if shape.interval {
                let ranges = content::wanted(model, *family, shape, now);
                let before = content::wanted(&self.observed, *family, shape, now);
                if self.rewrite || ranges != before {
                    steps.push(Step::FlushSet(set.clone()));
                    steps.push(Step::AddRanges { set, ranges });
                }
            } else if self.rewrite {
                let elements = content::union(model, *family, now).into_iter().collect();
                steps.push(Step::FlushSet(set.clone()));
                steps.push(Step::AddElements { set, elements });
            } else {
                steps.extend(self.changes(plans, model, *family, set, now));
            }
        }
        Ok(steps)
    }

    /// The elements of one family that the plans change: they go, and come back with their new
    /// deadline.
    fn changes(
        &self,
        plans: &BTreeMap<GroupId, Plan>,
        model: &BTreeMap<GroupId, Observed>,
        family: Family,
        set: String,
        now: Timestamp,
    ) -> Vec<Step> {
        let planned = plans.values().flat_map(|plan| {
            plan.remove.keys().chain(plan.renew.keys()).chain(plan.add.keys()).copied()
        });
        let planned: BTreeSet<Network> =
            planned.filter(|network| network.family() == family).collect();
        let (mut networks, mut elements) = (Vec::new(), Vec::new());
        let live = |expiry: &Expiry| expiry.is_live_at(now);
        for network in planned {
            let before = content::latest(&self.observed, network).filter(live);
            let after = content::latest(model, network).filter(live);
            if before == after {
                continue;
            }
            networks.extend(before.map(|_| network));
            elements.extend(after.map(|expiry| (network, expiry)));
        }
        let mut steps = Vec::new();
        if !networks.is_empty() {
            steps.push(Step::RemoveElements { set: set.clone(), networks });
        }
        if !elements.is_empty() {
            steps.push(Step::AddElements { set, elements });
        }
        steps
    }

    /// Says before the fact what a set cannot hold.
    fn check_fit(
        &self,
        family: Family,
        shape: &Shape,
        model: &BTreeMap<GroupId, Observed>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        let union = || {
            let entries = model.values().flatten();
            entries.filter(|(net, expiry)| net.family() == family && expiry.is_live_at(now))
        };
        let wide = union().find(|(network, _)| !network.is_host());
        if let Some((network, _)) = wide.filter(|_| !shape.interval) {
            return Err(TargetError::Rejected {
                reason: format!(
                    "set {} of table {} holds single addresses only; declare it with `flags \
                     interval, timeout` to take {network}",
                    shape.name,
                    self.config.table_text()
                ),
            });
        }
        match shape.size {
            Some(capacity) => {
                let wanted = content::wanted(model, family, shape, now).len();
                let fits = wanted <= capacity;
                if fits { Ok(()) } else { Err(TargetError::Full { wanted, capacity }) }
            }
            None => Ok(()),
        }
    }

    async fn commit(&mut self, steps: &[Step], now: Timestamp) -> Result<(), CommitError> {
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let encoding = Encoding::usual(kernel.removal(), now);
        self.known = false;
        kernel.commit(&[], steps, encoding).await
    }

    /// Waits until the last change is old enough; answers the time then.
    async fn coalesce(&self, now: Timestamp) -> Timestamp {
        let Some(written_at) = self.written_at else { return now };
        if self.shapes.values().all(|shape| !shape.interval) {
            return now;
        }
        let started = Instant::now();
        tokio::time::sleep_until(written_at + COALESCE).await;
        now.saturating_add(started.elapsed())
    }
}

impl Target for SetsTarget {
    fn info(&self) -> &TargetInfo {
        &self.info
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        let known = self.known;
        let due = self.read_at.is_none_or(|read_at| AUDIT_EVERY <= now.since(read_at));
        let kernel = self.connect().await?;
        if known && !due && kernel.is_unchanged().await? {
            if FORGET_EVERY <= now.since(self.forgotten_at) {
                self.forgotten_at = now;
                let entries = self.observed.values_mut();
                entries.for_each(|entries| entries.retain(|_, expiry| expiry.is_live_at(now)));
            }
            return Ok(Refresh::Unchanged);
        }
        self.known = false;
        let found = self.read(now).await?;
        self.shapes = self.config.shapes(&found)?;
        let is_first = self.read_at.is_none();
        self.known = true;
        self.read_at = Some(now);
        if is_first {
            return Ok(Refresh::Reread { drift: 0 });
        }
        let drift = self.drift(&found, now);
        self.rewrite |= 0 < drift;
        Ok(Refresh::Reread { drift })
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        self.known && !self.rewrite
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        // As of the beginning of time, everything has time left and is shown.
        let now = Timestamp::EPOCH;
        let model = carried_out(&self.observed, plans, now);
        let steps = match self.compose(plans, &model, now) {
            Ok(steps) => steps,
            Err(error) => return format!("# {error}\n"),
        };
        let mut text = String::new();
        for step in steps {
            let table = self.config.table_text();
            step.write(&mut text, &table).expect("writing to a string does not fail");
        }
        text
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        if !self.known {
            return Err(TargetError::Changed);
        }
        let now = self.coalesce(now).await;
        let model = carried_out(&self.observed, plans, now);
        let steps = self.compose(plans, &model, now)?;
        let writes = !steps.is_empty();
        if writes && let Err(error) = self.commit(&steps, now).await {
            // An element had just expired, or somebody else was here: the next attempt reads, and
            // writes all of it.
            self.rewrite = true;
            return Err(refusal::of_commit(error));
        }
        self.observed = model;
        self.known = true;
        if writes {
            self.written_at = Some(Instant::now());
        }
        let ranges = steps.iter().any(|step| matches!(step, Step::AddRanges { .. }));
        if ranges {
            self.known = false;
            let found = self.read(now).await?;
            self.rewrite = 0 < self.drift(&found, now);
            self.known = !self.rewrite;
            return if self.known { Ok(()) } else { Err(TargetError::Changed) };
        }
        self.rewrite = false;
        Ok(())
    }

    async fn disturbed(&mut self) {
        match &mut self.kernel {
            Some(kernel) => kernel.disturbed().await,
            None => pending().await,
        }
    }

    /// The kernel ends entries by itself.
    fn earliest_deadline(&self) -> Option<Timestamp> {
        None
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        let was_known = self.known;
        if self.shapes.is_empty() {
            let found = self.read(Timestamp::EPOCH).await?;
            self.shapes = self.config.shapes(&found)?;
        }
        let steps: Vec<Step> =
            self.shapes.values().map(|shape| Step::FlushSet(shape.name.clone())).collect();
        self.commit(&steps, Timestamp::EPOCH).await.map_err(refusal::of_commit)?;
        self.observed.values_mut().for_each(Observed::clear);
        self.known = was_known;
        Ok(())
    }
}
