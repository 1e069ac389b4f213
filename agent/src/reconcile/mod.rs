//! Keeps one target equal to its groups' lists.
//!
//! A pass looks at what is really there, plans, applies and tells. It starts on a change of a
//! list, on a disturbance, on a timer and on an operator's word; after an error it is tried again
//! by the back-off. It never gives up.

mod inbox;
#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postern_shared::backoff::Backoff;
use postern_shared::error::chain;
use postern_shared::ids::GroupId;
use postern_shared::plan::Plan;
use postern_shared::wire::v1::{Receipt, ReceiptState};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub(crate) use inbox::{Inbox, Pending};

use crate::chance::Chance;
use crate::clock::Clock;
use crate::flushed::FlushedTargets;
use crate::lists::{Lists, Mode, Standing, Wanted};
use crate::report::Outbox;
use crate::status::{Board, TargetNotes, TargetState};
use crate::target::nft::give_back_memory;
use crate::target::{Refresh, Target, TargetError};

/// How often everything is compared though nothing is known to have changed.
const RECHECK: Duration = Duration::from_secs(60);
const BACKOFF_BASE: Duration = Duration::from_millis(250);
const BACKOFF_CAP: Duration = Duration::from_secs(30);
/// From a repair to the next pass, so that somebody who keeps changing things cannot keep us busy.
const REPAIR_PAUSE: Duration = Duration::from_millis(20);
/// A pass over this many entries leaves memory behind that is worth giving back.
const LARGE: usize = 1_000;
/// How often in a row a pass is begun anew at once because somebody else keeps changing things.
const CHANGED_MAX: u32 = 5;

/// What a target's task works with.
pub(crate) struct Context<C> {
    pub(crate) lists: Arc<Lists>,
    pub(crate) groups: Vec<GroupId>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) flushed: Arc<FlushedTargets>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Arc<C>,
    pub(crate) chance: Chance,
}

/// What an operator asks of a running target.
#[derive(Debug)]
pub(crate) enum Order {
    /// Empty it, and keep it so until the agent is told to reload.
    Flush(oneshot::Sender<Result<(), String>>),
    /// Say what a pass would do now.
    Preview(oneshot::Sender<Result<Preview, String>>),
}

/// What a pass would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preview {
    /// The target's own words for it; empty when there is nothing to do.
    pub(crate) text: String,
    /// How many entries it would change.
    pub(crate) changes: usize,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Not every group has a list yet.
    Waiting,
    /// There was nothing to do.
    InSync,
    /// Something was changed.
    Changed { entries: usize },
}

struct Keeper<T, C> {
    target: T,
    context: Context<C>,
    backoff: Backoff,
    /// The outcome of the last apply is not known, or its list was not whole.
    is_stale: bool,
    mode: Mode,
}

/// Keeps `target` for as long as the returned future is polled. Dropping it between two polls
/// leaves the target as the last apply left it, or half an apply to be read again.
pub(crate) async fn keep<T: Target, C: Clock>(
    target: T,
    context: Context<C>,
    mut orders: mpsc::Receiver<Order>,
) {
    let backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
    let is_flushed = context.flushed.contains(&target.info().name);
    let mode = Mode { is_standing: false, is_adopted: true, is_flushed };
    let mut keeper = Keeper { target, context, backoff, is_stale: true, mode };
    keeper.context.inbox.touch_all();
    let mut recheck_at = Instant::now() + RECHECK;
    let mut not_before = Instant::now();
    loop {
        let inbox = Arc::clone(&keeper.context.inbox);
        let due = async {
            tokio::time::sleep_until(not_before).await;
            inbox.take().await
        };
        let pending = tokio::select! {
            pending = due => pending,
            () = tokio::time::sleep_until(recheck_at.max(not_before)) => Pending::All,
            () = disturbed(&mut keeper.target, not_before) => {
                not_before = Instant::now() + REPAIR_PAUSE;
                Pending::All
            }
            Some(order) = orders.recv() => {
                keeper.obey(order).await;
                continue;
            }
        };
        if pending == Pending::All {
            recheck_at = Instant::now() + RECHECK;
        }
        not_before = not_before.max(Instant::now() + keeper.pass(pending).await);
    }
}

/// Waits for a disturbance. The back-off holds for it as well: it may be the very thing that makes
/// passes fail.
async fn disturbed(target: &mut impl Target, not_before: Instant) {
    tokio::time::sleep_until(not_before).await;
    target.disturbed().await;
}

impl<T: Target, C: Clock> Keeper<T, C> {
    /// Makes one pass, notes and tells how it went, and answers how long to wait before the next.
    async fn pass(&mut self, pending: Pending) -> Duration {
        let began = self.context.clock.now();
        self.note(|notes| notes.busy_since = Some(began));
        let result = self.try_until_unchanged(pending).await;
        let now = self.context.clock.now();
        let info = self.target.info().clone();
        let earliest_deadline = self.target.earliest_deadline();
        self.note(|notes| {
            notes.busy_since = None;
            notes.was_read |= result.is_ok();
            notes.earliest_deadline = earliest_deadline;
            notes.status.passed_at = Some(now);
            notes.status.strategy.clone_from(&info.strategy);
        });
        match result {
            Ok(outcome) => {
                self.backoff.succeeded();
                self.is_stale = false;
                self.note_success(outcome);
                if matches!(outcome, Outcome::Changed { entries } if LARGE <= entries) {
                    give_back_memory();
                }
                Duration::ZERO
            }
            Err(error) => {
                self.is_stale = true;
                let detail = chain(&error);
                let wait = self.backoff.failed((self.context.chance)(), throttle(&error));
                tracing::warn!(
                    target_name = %info.name, error = %detail, wait_ms = wait.as_millis(),
                    "a pass failed and will be tried again"
                );
                self.note_failure(&detail);
                self.context.inbox.touch_all();
                wait
            }
        }
    }

    async fn try_until_unchanged(&mut self, pending: Pending) -> Result<Outcome, TargetError> {
        let mut pending = if self.is_stale { Pending::All } else { pending };
        for _ in 0..CHANGED_MAX {
            match self.attempt(&pending).await {
                Err(TargetError::Changed) => pending = Pending::All,
                other => return other,
            }
        }
        Err(TargetError::Changed)
    }

    async fn attempt(&mut self, pending: &Pending) -> Result<Outcome, TargetError> {
        let now = self.context.clock.now();
        let refresh = self.target.refresh(now).await?;
        let pending = self.widen(pending, refresh);
        self.look_what_stands(refresh);
        let Some(wanted) = self.wanted(&pending) else { return Ok(Outcome::Waiting) };
        let entries = wanted.plans.values().map(Plan::len).sum();
        let outcome = if entries == 0 && self.target.is_settled() {
            Outcome::InSync
        } else {
            // Timeouts are what is left from now: a look at a large table takes its time.
            let done = self.target.apply(&wanted.plans, self.context.clock.now()).await;
            if let Err(TargetError::Full { .. }) = &done {
                self.open_nothing(&wanted.plans).await;
            }
            done?;
            self.mode.is_standing = true;
            told::log(&self.target.info().name, &wanted.plans);
            Outcome::Changed { entries }
        };
        self.tell(&wanted.standings, ReceiptState::Applied, None);
        Ok(outcome)
    }

    /// Where there is no room for what is new, takes away and renews all the same. The pass has failed
    /// whatever comes of it.
    async fn open_nothing(&mut self, plans: &BTreeMap<GroupId, Plan>) {
        let without = |plan: &Plan| Plan { add: BTreeMap::new(), ..plan.clone() };
        let plans: BTreeMap<GroupId, Plan> =
            plans.iter().map(|(group, plan)| (*group, without(plan))).collect();
        if plans.values().all(Plan::is_empty) {
            return;
        }
        let clock = &self.context.clock;
        let done = match self.target.refresh(clock.now()).await {
            Ok(_) => self.target.apply(&plans, clock.now()).await,
            Err(error) => Err(error),
        };
        let target_name = &self.target.info().name;
        match done {
            Ok(()) => told::log(target_name, &plans),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    target_name,
                    error,
                    "what is withdrawn could not be taken away either"
                );
            }
        }
    }

    /// What was read anew is compared as a whole.
    fn widen(&self, pending: &Pending, refresh: Refresh) -> Pending {
        match refresh {
            Refresh::Unchanged => pending.clone(),
            Refresh::Reread { drift } => {
                if 0 < drift {
                    let name = &self.target.info().name;
                    tracing::warn!(target_name = %name, drift, "somebody else changed what is ours");
                    self.note(|notes| notes.status.repairs += 1);
                }
                Pending::All
            }
        }
    }

    /// The first refresh reads, and shows what an earlier task left. Once nothing of that stands,
    /// what was saved is all that is known.
    fn look_what_stands(&mut self, refresh: Refresh) {
        if let Refresh::Reread { .. } = refresh {
            let is_standing = is_standing(&self.target);
            self.mode.is_standing |= is_standing;
            self.mode.is_adopted &= is_standing;
        }
    }

    fn wanted(&self, pending: &Pending) -> Option<Wanted> {
        let now = self.context.clock.now();
        let (lists, groups) = (&self.context.lists, &self.context.groups);
        lists.wanted(groups, self.target.observed(), pending, self.mode, now)
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Flush(answer) => {
                let flushed = self.target.flush().await;
                self.is_stale = true;
                let target_name = &self.target.info().name;
                match &flushed {
                    Ok(()) => {
                        // The next pass puts the fail-safe networks back, and nothing else.
                        self.mode.is_flushed = true;
                        self.context.flushed.insert(target_name);
                        tracing::info!(target_name, "flushed on the operator's word");
                    }
                    Err(error) => {
                        let error = chain(error);
                        tracing::error!(target_name, error, "could not be flushed");
                    }
                }
                self.context.inbox.touch_all();
                // The asker may have gone.
                drop(answer.send(flushed.map_err(|error| chain(&error))));
            }
            Order::Preview(answer) => {
                let preview = self.preview().await;
                drop(answer.send(preview));
            }
        }
    }

    async fn preview(&mut self) -> Result<Preview, String> {
        let now = self.context.clock.now();
        let refresh = self.target.refresh(now).await.map_err(|error| chain(&error))?;
        self.look_what_stands(refresh);
        let wanted = self.wanted(&Pending::All).ok_or("not every group of it has a list yet")?;
        let changes = wanted.plans.values().map(Plan::len).sum();
        if changes == 0 && self.target.is_settled() {
            return Ok(Preview { text: String::new(), changes });
        }
        Ok(Preview { text: self.target.preview(&wanted.plans), changes })
    }

    /// Writes a receipt of each group. What the operator or the policy holds back is held,
    /// whatever else is in force.
    fn tell(
        &self,
        standings: &BTreeMap<GroupId, Standing>,
        state: ReceiptState,
        detail: Option<&str>,
    ) {
        for (group, standing) in standings {
            let held = self.mode.is_flushed.then(|| "flushed by the operator".to_owned());
            let held = held.or_else(|| standing.held.clone());
            let (state, detail) = match (state, held) {
                (ReceiptState::Failed, _) => (state, detail.map(str::to_owned)),
                (ReceiptState::Applied | ReceiptState::Held, Some(why)) => {
                    (ReceiptState::Held, Some(why))
                }
                (ReceiptState::Applied | ReceiptState::Held, None) => (state, None),
            };
            let Some(position) = standing.position else { continue };
            self.context.outbox.put(Receipt {
                target: self.target.info().name.clone(),
                group: *group,
                epoch: position.epoch,
                revision: position.revision,
                digest: position.digest,
                state,
                entries: standing.entries as u64,
                detail,
            });
        }
    }

    fn note(&self, change: impl FnOnce(&mut TargetNotes)) {
        let info = self.target.info();
        self.context.board.write(|notes| {
            change(notes.targets.entry(info.name.clone()).or_insert_with(|| {
                TargetNotes::new(&info.name, info.kind, self.context.groups.clone())
            }));
        });
    }

    fn note_success(&self, outcome: Outcome) {
        let (now, is_flushed) = (self.context.clock.now(), self.mode.is_flushed);
        self.note(|notes| {
            let status = &mut notes.status;
            (status.failures, status.detail) = (0, None);
            status.state = match outcome {
                Outcome::Waiting => TargetState::Waiting,
                Outcome::InSync | Outcome::Changed { .. } if is_flushed => TargetState::Flushed,
                Outcome::InSync | Outcome::Changed { .. } => TargetState::InSync,
            };
            if let Outcome::Changed { entries } = outcome {
                status.changed_at = Some(now);
                tracing::debug!(target_name = %status.name, entries, "changed");
            }
            if status.state == TargetState::Flushed {
                let why = "flushed by the operator; `postern-agent reload` fills it again";
                status.detail = Some(why.to_owned());
            }
        });
    }

    fn note_failure(&self, detail: &str) {
        let failures = self.backoff.failures();
        self.note(|notes| {
            notes.status.state = TargetState::Failing;
            notes.status.detail = Some(detail.to_owned());
            notes.status.failures = failures;
        });
        let standings =
            self.context.lists.standings(&self.context.groups, self.context.clock.now());
        self.tell(&standings, ReceiptState::Failed, Some(detail));
    }
}

/// Says whether what is ours stands in the target, from whichever process.
pub(crate) fn is_standing(target: &impl Target) -> bool {
    target.is_settled() || target.observed().values().any(|entries| !entries.is_empty())
}

fn throttle(error: &TargetError) -> Option<Duration> {
    match error {
        TargetError::Throttled { wait } => Some(*wait),
        TargetError::Unreachable { .. }
        | TargetError::Full { .. }
        | TargetError::Rejected { .. }
        | TargetError::Busy { .. }
        | TargetError::Changed => None,
    }
}
