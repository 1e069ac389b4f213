//! A table of our own that drops what is not on a list.
//!
//! The table is recognised by its name (see [`GateConfig::table`]), sets by theirs (see `sets`),
//! chains and rules by being exactly what the configuration asks for. Where the kernel can, the
//! table belongs to our socket and outlives it: nobody else changes it, and after a crash the next
//! agent takes it over as it is.

mod books;
mod chains;
pub(super) mod config;
mod cut;
mod program;
mod sets;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::Timestamp;

use self::config::{ConfigError, GateConfig, Ownership};
use self::program::{Lessons, Standing};
use self::sets::SetKey;
use super::kernel::{AUDIT_EVERY, Kernel};
use super::steps::{Encoding, Step};
use super::{FAMILY_INET, NftOptions, refusal};
use crate::target::{Refresh, Target, TargetError, TargetInfo};

/// A gate on this host, as a target.
#[derive(Debug)]
pub struct GateTarget {
    info: TargetInfo,
    config: GateConfig,
    options: NftOptions,
    kernel: Option<Kernel>,
    standing: Standing,
    observed: BTreeMap<GroupId, Observed>,
    /// `standing` and `observed` are what the kernel holds, as far as anybody can know.
    known: bool,
    /// When the table was last read.
    read_at: Option<Timestamp>,
    /// When expired entries were last looked for.
    forgotten_at: Timestamp,
    /// The earliest deadline that has not been looked at, or an earlier time.
    next_deadline: Option<Timestamp>,
    /// Networks that left a list and whose connections are still to be cut off.
    leavers: BTreeSet<Network>,
    /// The caller's time and the runtime's, at the last call that said it.
    clock: Option<(Timestamp, tokio::time::Instant)>,
}

impl GateTarget {
    /// Makes the target; it reaches for the kernel at the first refresh.
    pub fn new(
        name: &str,
        config: GateConfig,
        options: NftOptions,
    ) -> Result<GateTarget, ConfigError> {
        config.check()?;
        let observed = config.groups().into_iter().map(|group| (group, Observed::new())).collect();
        let info = TargetInfo { name: name.to_owned(), kind: "nftables", strategy: String::new() };
        Ok(GateTarget {
            info,
            config,
            options,
            kernel: None,
            standing: Standing::default(),
            observed,
            known: false,
            read_at: None,
            forgotten_at: Timestamp::EPOCH,
            next_deadline: None,
            leavers: BTreeSet::new(),
            clock: None,
        })
    }

    /// Takes the table away with all that it holds: nothing is protected any more.
    pub async fn purge(&mut self) -> Result<(), TargetError> {
        self.known = false;
        let kernel = self.connect().await?;
        let Some(table) = kernel.read_table().await? else { return Ok(()) };
        check_holder(table.owner, kernel.port())?;
        let encoding = Encoding::usual(kernel.removal(), Timestamp::EPOCH);
        let deleted = kernel.commit(&[], &[Step::DeleteTable], encoding).await;
        deleted.map_err(refusal::of_commit)
    }

    async fn connect(&mut self) -> Result<&mut Kernel, TargetError> {
        if self.kernel.is_none() {
            let wants_owner = self.config.ownership == Ownership::Auto;
            let kernel =
                Kernel::open(FAMILY_INET, &self.config.table, self.options, wants_owner).await?;
            self.info.strategy = kernel.strategy();
            self.kernel = Some(kernel);
        }
        Ok(self.kernel.as_mut().expect("opened just above"))
    }

    /// The sets of ours that there are, without their elements.
    async fn names_of_sets(&mut self) -> Result<Vec<String>, TargetError> {
        let kernel = self.connect().await?;
        let port = kernel.port();
        let found = kernel.read(Timestamp::EPOCH, |_| false).await?;
        check_holder(found.table.and_then(|table| table.owner), port)?;
        let names = found.sets.into_iter().map(|set| set.name);
        Ok(names.filter(|name| SetKey::parse(name).is_some()).collect())
    }

    /// The kernel's near end, where everything that it holds is known.
    fn kernel_known(&mut self) -> Result<&mut Kernel, TargetError> {
        if !self.known {
            return Err(TargetError::Changed);
        }
        self.kernel.as_mut().ok_or(TargetError::Changed)
    }
}

impl Target for GateTarget {
    fn info(&self) -> &TargetInfo {
        &self.info
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        self.clock = Some((now, tokio::time::Instant::now()));
        let known = self.known;
        let due = self.read_at.is_none_or(|read_at| AUDIT_EVERY <= now.since(read_at));
        let groups = self.config.groups();
        let kernel = self.connect().await?;
        if known && !due && kernel.is_unchanged().await? {
            self.forget_expired(now);
            self.cut_off_leavers(now).await;
            return Ok(Refresh::Unchanged);
        }
        let port = kernel.port();
        self.known = false;
        let kernel = self.connect().await?;
        let wants = move |set: &super::read::FoundSet| {
            SetKey::parse(&set.name).is_some_and(|(key, _)| groups.contains(&key.group))
        };
        let found = kernel.read(now, wants).await?;
        check_holder(found.table.and_then(|table| table.owner), port)?;
        let drift = self.take_in(&found, port, now);
        self.cut_off_leavers(now).await;
        Ok(Refresh::Reread { drift })
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        let owner = self.kernel.as_ref().is_some_and(|kernel| kernel.owner());
        self.known && self.standing.is_settled(owner)
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        // As of the beginning of time, everything has time left and is shown.
        let program = self.compose(plans, &Lessons::default(), Timestamp::EPOCH);
        let table = format!("inet {}", self.config.table);
        let mut text = String::new();
        for step in program.prepare.iter().chain(&program.commit) {
            step.write(&mut text, &table).expect("writing to a string does not fail");
        }
        text
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        self.clock = Some((now, tokio::time::Instant::now()));
        self.commit(plans, now).await?;
        self.cut_off_leavers(now).await;
        Ok(())
    }

    async fn disturbed(&mut self) {
        let due = self.cut_due();
        let Some(kernel) = &mut self.kernel else { return pending().await };
        match due {
            None => kernel.disturbed().await,
            Some(due) => drop(tokio::time::timeout(due, kernel.disturbed()).await),
        }
    }

    /// The kernel ends entries by itself.
    fn earliest_deadline(&self) -> Option<Timestamp> {
        None
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        let was_known = self.known;
        let steps = match was_known {
            true => self.standing.sets.iter().map(|(key, set)| key.name(set.twin)).collect(),
            false => self.names_of_sets().await?,
        };
        let steps: Vec<Step> = steps.into_iter().map(Step::FlushSet).collect();
        let kernel = self.connect().await?;
        let encoding = Encoding::usual(kernel.removal(), Timestamp::EPOCH);
        self.known = false;
        self.connect().await?.commit(&[], &steps, encoding).await.map_err(refusal::of_commit)?;
        if self.cuts() {
            self.leavers.extend(self.observed.values().flat_map(BTreeMap::keys));
        }
        self.observed.values_mut().for_each(Observed::clear);
        self.standing.sets.values_mut().for_each(|set| set.len = 0);
        self.known = was_known;
        // With nothing listed any more, the time plays no part.
        self.cut_off_leavers(Timestamp::EPOCH).await;
        Ok(())
    }
}

/// Refuses a table that belongs to the socket of somebody else.
fn check_holder(owner: Option<u32>, port: u32) -> Result<(), TargetError> {
    match owner {
        Some(owner) if owner != port => Err(TargetError::Busy { holder: refusal::holder(owner) }),
        Some(_) | None => Ok(()),
    }
}
