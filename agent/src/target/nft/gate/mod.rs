//! A table of our own that drops what is not on a list.
//!
//! The table is recognised by its name (see [`GateConfig::table`]), sets by theirs (see `sets`),
//! chains and rules by being exactly what the configuration asks for. Where the kernel can, the
//! table belongs to our socket and outlives it: nobody else changes it, and after a crash the next
//! agent takes it over as it is.

mod chains;
pub(super) mod config;
mod cut;
mod program;
mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::time::Duration;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::{Expiry, Timestamp};

use self::config::{ConfigError, GateConfig, OnExpiry, Ownership};
use self::program::{Lessons, Program, Situation, Standing, compose};
use self::sets::SetKey;
use super::conntrack::{self, FLOWS_MAX};
use super::kernel::{AUDIT_EVERY, Kernel};
use super::read::Found;
use super::socket::{CommitError, Failure};
use super::steps::{Encoding, Step};
use super::{FAMILY_INET, NftOptions, refusal};
use crate::target::{Refresh, Target, TargetError, TargetInfo};

/// How often one apply tries again with what the last refusal taught.
const ATTEMPTS_MAX: usize = 5;
/// Expired entries are forgotten when the oldest of them is this old.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Deadlines this close are the same when drift is counted: the kernel rounds them.
const SAME_DEADLINE: Duration = Duration::from_secs(1);

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

    /// The kernel's near end, where everything that it holds is known.
    fn kernel_known(&mut self) -> Result<&mut Kernel, TargetError> {
        if !self.known {
            return Err(TargetError::Changed);
        }
        self.kernel.as_mut().ok_or(TargetError::Changed)
    }

    fn take_in(&mut self, found: &Found, port: u32, now: Timestamp) -> usize {
        let (standing, observed) = Standing::assess(&self.config, found, port);
        let drift = match self.read_at {
            None => 0,
            Some(_) => {
                let entries: usize = observed
                    .iter()
                    .map(|(group, entries)| drift(self.observed.get(group), entries, now))
                    .sum();
                let objects = self.standing.is_settled(self.standing.owned)
                    && !standing.is_settled(standing.owned);
                entries + usize::from(objects)
            }
        };
        if self.cuts() {
            let expired =
                self.observed.values().flatten().filter(|(_, expiry)| !expiry.is_live_at(now));
            self.leavers.extend(expired.map(|(network, _)| *network));
        }
        (self.standing, self.observed) = (standing, observed);
        self.next_deadline = cut::next_deadline(&self.observed);
        (self.known, self.read_at) = (true, Some(now));
        drift
    }

    fn cuts(&self) -> bool {
        self.config.on_expiry == OnExpiry::Cut
    }

    /// Lets go of entries that have expired, and of the count of them. Where connections are cut
    /// off, this is when their sources have left.
    fn forget_expired(&mut self, now: Timestamp) {
        let cuts = self.cuts();
        let lag = if cuts { cut::LAG } else { FORGET_EVERY };
        let expired_at = now.saturating_sub(lag);
        if now < self.forget_at(lag) {
            return;
        }
        self.forgotten_at = now;
        for (group, entries) in &mut self.observed {
            let (sets, leavers) = (&mut self.standing.sets, &mut self.leavers);
            entries.retain(|network, expiry| {
                let stays = expiry.is_live_at(expired_at);
                if let Some(set) = sets.get_mut(&SetKey::of(*group, *network)).filter(|_| !stays) {
                    set.len = set.len.saturating_sub(1);
                }
                if cuts && !stays {
                    leavers.insert(*network);
                }
                stays
            });
        }
        self.next_deadline = cut::next_deadline(&self.observed);
    }

    /// When the entries are next to be looked through, which takes a while when there are many.
    fn forget_at(&self, lag: Duration) -> Timestamp {
        let due = self.next_deadline.unwrap_or(Timestamp::MAX).max(self.forgotten_at);
        due.saturating_add(lag)
    }

    /// Cuts off the connections of those who left. What cannot be done now is done at the next
    /// call.
    async fn cut_off_leavers(&mut self, now: Timestamp) {
        let Some(kernel) = self.kernel.as_ref().filter(|_| !self.leavers.is_empty()) else {
            return;
        };
        let concerns = cut::concerns(self.leavers.clone(), self.config.all_ports());
        let result = async {
            let mut flows =
                kernel.run(move |connection| conntrack::find(connection, concerns)).await?;
            let all = flows.len() < FLOWS_MAX;
            let Self { config, standing, observed, .. } = self;
            flows.retain(|flow| !cut::is_allowed(flow, config, &standing.sets, observed, now));
            kernel.run(move |connection| conntrack::cut(connection, &flows)).await?;
            Ok::<bool, std::io::Error>(all)
        }
        .await;
        match result {
            Ok(true) => self.leavers.clear(),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                target = self.info.name,
                error = &error as &dyn std::error::Error,
                "connections of sources that left the list could not be cut off"
            ),
        }
    }

    /// How long until connections are to be cut off.
    fn cut_due(&self) -> Option<Duration> {
        let (now, at) = self.clock.filter(|_| self.cuts() && self.next_deadline.is_some())?;
        let due = self.forget_at(cut::LAG).since(now);
        Some(due.saturating_sub(at.elapsed()))
    }

    fn compose(
        &self,
        plans: &BTreeMap<GroupId, Plan>,
        lessons: &Lessons,
        now: Timestamp,
    ) -> Program {
        let wants_owner = self
            .kernel
            .as_ref()
            .map_or_else(|| self.config.ownership == Ownership::Auto, |kernel| kernel.owner());
        let Self { config, standing, observed, .. } = self;
        compose(Situation { config, standing, observed, wants_owner, now }, plans, lessons)
    }

    /// Takes the plans as carried out.
    fn carried_out(&mut self, plans: &BTreeMap<GroupId, Plan>, now: Timestamp) {
        let cuts = self.cuts();
        for (group, plan) in plans {
            let Some(observed) = self.observed.get_mut(group) else { continue };
            if observed.is_empty() {
                // Made in one go, since a first list may be long.
                let added = plan.add.iter().chain(&plan.renew);
                *observed = added.map(|(network, expiry)| (*network, *expiry)).collect();
            } else {
                plan.carry_out(observed);
            }
            if cuts {
                self.leavers.extend(plan.remove.keys());
            }
            for (network, expiry) in plan.renew.iter().chain(&plan.add) {
                // What had expired on the way here was not added.
                if !expiry.is_live_at(now) {
                    observed.remove(network);
                    self.leavers.extend(cuts.then_some(network));
                } else if let Some(deadline) = expiry.deadline() {
                    let next = self.next_deadline.map_or(deadline, |next| next.min(deadline));
                    self.next_deadline = Some(next);
                }
            }
        }
    }

    async fn commit(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        let mut lessons = Lessons::default();
        for _ in 0..ATTEMPTS_MAX {
            let Program { prepare, commit, standing } = self.compose(plans, &lessons, now);
            let kernel = self.kernel_known()?;
            let mut encoding = Encoding::usual(kernel.removal(), now);
            if lessons.singly {
                encoding.removals_per_message = 1;
            }
            // Until the answer is in, nobody knows.
            let result = match prepare.is_empty() && commit.is_empty() {
                true => Ok(()),
                false => {
                    self.known = false;
                    let kernel = self.kernel.as_mut().expect("known a moment ago");
                    kernel.commit(&prepare, &commit, encoding).await
                }
            };
            match result {
                Ok(()) => {
                    self.standing = standing;
                    self.carried_out(plans, now);
                    self.known = true;
                    return Ok(());
                }
                Err(error) if self.learn(&mut lessons, &error) => self.known = true,
                Err(error) => return Err(self.refused(error).await),
            }
        }
        Err(TargetError::Changed)
    }

    /// Takes from a refusal what to do otherwise; answers whether there is anything.
    fn learn(&self, lessons: &mut Lessons, error: &CommitError) -> bool {
        let before = lessons.clone();
        match error {
            CommitError::TooLong => {
                lessons.replace.extend(self.standing.sets.keys());
            }
            CommitError::Refused(failures) => {
                if !failures.iter().all(|failure| learn_one(lessons, failure)) {
                    return false;
                }
            }
            CommitError::Unknown(_) => return false,
        }
        before != *lessons
    }

    /// What a refusal means to the caller; names who holds the table where somebody does.
    async fn refused(&mut self, error: CommitError) -> TargetError {
        let error = refusal::of_commit(error);
        let (TargetError::Busy { .. }, Some(kernel)) = (&error, &self.kernel) else {
            return error;
        };
        match kernel.read_table().await {
            Ok(Some(table)) => match check_holder(table.owner, kernel.port()) {
                Ok(()) => error,
                Err(busy) => busy,
            },
            Ok(None) | Err(_) => error,
        }
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

    async fn flush(&mut self) -> Result<(), TargetError> {
        let sets: Vec<Step> = self
            .standing
            .sets
            .iter()
            .map(|(key, state)| Step::FlushSet(key.name(state.twin)))
            .collect();
        if sets.is_empty() {
            return Ok(());
        }
        let kernel = self.kernel_known()?;
        let encoding = Encoding::usual(kernel.removal(), Timestamp::EPOCH);
        self.known = false;
        let kernel = self.kernel.as_mut().expect("known a moment ago");
        kernel.commit(&[], &sets, encoding).await.map_err(refusal::of_commit)?;
        if self.cuts() {
            self.leavers.extend(self.observed.values().flat_map(BTreeMap::keys));
        }
        self.observed.values_mut().for_each(Observed::clear);
        self.standing.sets.values_mut().for_each(|set| set.len = 0);
        self.known = true;
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

fn learn_one(lessons: &mut Lessons, failure: &Failure) -> bool {
    use rustix::io::Errno;
    let key = failure.set.as_deref().and_then(SetKey::parse).map(|(key, _)| key);
    let Some(key) = key else { return false };
    match failure.errno {
        // More elements on their way out than our books say.
        Errno::NFILE => {
            lessons.replace.insert(key);
            true
        }
        // An entry expired between our look at the clock and the kernel's.
        Errno::NOENT => {
            lessons.singly = true;
            let network = failure.key.as_deref().and_then(address).and_then(|at| key.network(at));
            network.map(|network| lessons.gone.insert((key, network))).is_some()
        }
        _ => false,
    }
}

fn address(key: &[u8]) -> Option<std::net::IpAddr> {
    match key.len() {
        4 => Some(<[u8; 4]>::try_from(key).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(key).ok()?.into()),
        _ => None,
    }
}

/// Counts the entries that are not as they were left, of those that have time left.
fn drift(left: Option<&Observed>, found: &Observed, now: Timestamp) -> usize {
    let empty = Observed::new();
    let left = left.unwrap_or(&empty);
    let soon = now.saturating_add(SAME_DEADLINE);
    let differs = |one: Expiry, other: Expiry| match (one.deadline(), other.deadline()) {
        (Some(one), Some(other)) => {
            SAME_DEADLINE < one.since(other) || SAME_DEADLINE < other.since(one)
        }
        (None, None) => false,
        (Some(_), None) | (None, Some(_)) => true,
    };
    let missing = left
        .iter()
        .filter(|(network, expiry)| expiry.is_live_at(soon) && !found.contains_key(network))
        .count();
    let other = found
        .iter()
        .filter(|(network, expiry)| match left.get(network) {
            Some(left) => differs(*left, **expiry),
            None => true,
        })
        .count();
    missing + other
}
