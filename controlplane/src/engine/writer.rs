//! The writer's thread.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use postern_shared::error::chain;
use postern_shared::ids::Epoch;
use postern_shared::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::records::{self, member_key, replay_key};
use super::signing::Signing;
use super::{Done, Hub, Job, Refused, Stopped, Telling};
use crate::audit::{ChainLink, LANE, Linked, Tip, link_item};
use crate::domain::{
    Change, Footprint, Order, RecordKey, Rejection, ReplayId, State, Touched, decide,
};
use crate::store::{Committed, Item, Key, Operation, Purpose, Store, StoreError};

/// Most orders in one commit. Two operations an order is the rule; what is left of the store's
/// limit is for orders that need more.
const ORDERS_MAX: usize = 256;
/// Most orders that wait for a commit of their own, each in conflict with one before it.
const DEFERRED_MAX: usize = super::ORDERS_WAITING_MAX;
/// Most records of groups that are gone that one commit cleans up.
const ORPHANS_MAX: usize = 128;

/// Commits whose answers wait to be handed out.
const ANSWERED_COMMITS_MAX: usize = 64;

type Answer = oneshot::Sender<Result<Done, Refused>>;
type Answers = Vec<(Answer, Result<Done, Refused>)>;
/// An order, how to tell what became of it, and to whom.
type Waiting = (Order, Option<Telling>, Answer);

pub(super) struct Writer {
    pub(super) store: Box<dyn Store>,
    pub(super) hub: Arc<Hub>,
    /// Stored members whose group is gone, to be cleaned up along with other commits.
    orphans: Vec<Key>,
    pub(super) tip: Option<Tip>,
    pub(super) signing: Signing,
    /// Orders that conflicted with the batch before.
    deferred: Vec<Waiting>,
    /// Where answers are handed out, if there is a runtime to do it.
    clerk: Option<mpsc::Sender<Answers>>,
}

/// Orders that are made durable together.
#[derive(Default)]
struct Batch {
    footprint: Footprint,
    items: Vec<Item>,
    operations: usize,
    bytes: usize,
    linked: Vec<Linked>,
    decided: Vec<(Vec<Change>, Answer)>,
    closes_only: bool,
}

impl Writer {
    pub(super) fn new(
        store: Box<dyn Store>,
        hub: Arc<Hub>,
        orphans: Vec<Key>,
        tip: Option<Tip>,
        signing: Signing,
    ) -> Writer {
        Writer { store, hub, orphans, tip, signing, deferred: Vec::new(), clerk: clerk() }
    }

    /// Works until it is told to stop, nobody can ask any more, or the store fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut is_stopping = false;
        let why = loop {
            if let Err(error) = self.pass(&mut queue, &mut is_stopping) {
                tracing::error!(error = %chain(&error), "the store failed; ending");
                break Stopped::StoreFailed;
            }
            if is_stopping && self.deferred.is_empty() {
                break self.sign_off();
            }
        };
        self.hub.stopped.send_replace(Some(why));
    }

    fn pass(
        &mut self,
        queue: &mut mpsc::Receiver<Job>,
        is_stopping: &mut bool,
    ) -> Result<(), StoreError> {
        let orders = self.take_orders(queue, is_stopping)?;
        self.carry_out(orders)
    }

    /// Waits for an order, unless some were deferred, then takes what else is there. Orders that
    /// close doors come first, so that no crowd of others delays them.
    fn take_orders(
        &mut self,
        queue: &mut mpsc::Receiver<Job>,
        is_stopping: &mut bool,
    ) -> Result<Vec<Waiting>, StoreError> {
        let mut orders = std::mem::take(&mut self.deferred);
        let taken_max = orders.len() + ORDERS_MAX;
        let mut job = if orders.is_empty() && !*is_stopping {
            queue.blocking_recv().or(Some(Job::Stop))
        } else {
            queue.try_recv().ok()
        };
        while let Some(taken) = job {
            match taken {
                Job::Order(_, _, answer) if DEFERRED_MAX <= orders.len() => {
                    drop(answer.send(Err(Refused::Busy)));
                }
                Job::Order(order, telling, answer) => orders.push((*order, telling, answer)),
                // Whoever asked may have left.
                Job::Pass(done) => drop(done.send(self.has_room()?)),
                Job::Sign(done) => {
                    self.sign()?;
                    // Whoever asked may have left.
                    let _ = done.send(());
                }
                Job::Prune { before, done } => {
                    let is_more = self.prune(before)?;
                    // Whoever asked may have left.
                    let _ = done.send(is_more);
                }
                Job::ReplaceEpoch { held, done } => {
                    self.replace_epoch(held)?;
                    // Whoever asked may have left.
                    let _ = done.send(());
                }
                Job::Stop => *is_stopping = true,
            }
            let is_full = taken_max <= orders.len();
            job = if is_full { None } else { queue.try_recv().ok() };
        }
        orders.sort_by_key(|(order, ..)| !order.command.closes());
        Ok(orders)
    }

    fn carry_out(&mut self, orders: Vec<Waiting>) -> Result<(), StoreError> {
        let now = self.hub.clock.now();
        let mut batch = Batch { closes_only: true, ..Batch::default() };
        let has_room = self.has_room()?;
        let hub = Arc::clone(&self.hub);
        let state = hub.state.read().unwrap_or_else(PoisonError::into_inner);
        for (order, telling, answer) in orders {
            if !has_room && !order.command.closes() {
                drop(answer.send(Err(Refused::DiskFull)));
                continue;
            }
            self.decide_into(&mut batch, &state, (order, telling, answer), now);
        }
        drop(state);
        if batch.items.is_empty() {
            return Ok(());
        }
        self.commit(batch, now)
    }

    /// Says whether the disk has room for more than revocations.
    fn has_room(&self) -> Result<bool, StoreError> {
        match self.store.check_room() {
            Ok(()) => Ok(true),
            Err(StoreError::DiskReserve { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Decides an order and puts it into the batch, or defers it, or answers it.
    fn decide_into(
        &mut self,
        batch: &mut Batch,
        state: &State,
        (order, telling, answer): Waiting,
        now: Timestamp,
    ) {
        let footprint = footprint(state, &order, telling.as_ref());
        if batch.footprint.conflicts_with(&footprint) {
            self.deferred.push((order, telling, answer));
            return;
        }
        let changes = match decide_and_tell(state, &order, telling.as_ref(), now) {
            Ok(changes) if changes.is_empty() => {
                drop(answer.send(Ok(Done { revision: self.store.revision(), at: now })));
                return;
            }
            Ok(changes) => changes,
            Err(rejection) => {
                drop(answer.send(Err(Refused::Rejected(rejection))));
                return;
            }
        };
        let limits = self.store.limits();
        let item = records::item(state, &changes, self.next_number(), &mut batch.linked);
        let bytes: usize = item.operations.iter().map(Operation::bytes).sum();
        let operations = item.operations.len();
        // Operations and bytes are kept for the chain's link and its signature.
        if limits.operations_max < batch.operations + operations + LINK_OPERATIONS
            || limits.bytes_max <= batch.bytes + bytes + LINK_BYTES_MAX
        {
            batch.linked.truncate(batch.linked.len() - records_in(&changes));
            if batch.items.is_empty() {
                let limit = Rejection::Conflict("the change is too large for one commit");
                drop(answer.send(Err(Refused::Rejected(limit))));
            } else {
                self.deferred.push((order, telling, answer));
            }
            return;
        }
        batch.operations += operations;
        batch.bytes += bytes;
        batch.closes_only &= order.command.closes();
        batch.footprint.join(footprint);
        batch.items.push(item);
        batch.decided.push((changes, answer));
    }

    fn commit(&mut self, mut batch: Batch, now: Timestamp) -> Result<(), StoreError> {
        let link = ChainLink::after(self.tip, now, std::mem::take(&mut batch.linked));
        let tip = link.tip(LANE);
        batch.items.push(link_item(LANE, &link));
        batch.items.extend(self.signing.due(tip, now));
        let room = self.store.limits().operations_max;
        let room = room.saturating_sub(batch.operations + LINK_OPERATIONS);
        let cleaned = self.orphans.len().min(ORPHANS_MAX).min(room);
        let ended = self.ended_replays(&batch, now, room - cleaned);
        if 0 < cleaned + ended.len() {
            let keys = self.orphans.drain(..cleaned).chain(ended.iter().copied().map(replay_key));
            let operations = keys.map(Operation::Delete).collect();
            batch.items.push(Item { preconditions: Vec::new(), operations });
        }
        let purpose = if batch.closes_only { Purpose::Withdrawal } else { Purpose::Ordinary };
        let (began, orders) = (Instant::now(), batch.decided.len());
        let committed = match self.store.commit(&batch.items, purpose, now) {
            Ok(committed) => committed,
            Err(StoreError::DiskReserve { .. }) => {
                for (_, answer) in batch.decided {
                    drop(answer.send(Err(Refused::DiskFull)));
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        metrics::histogram!("postern_commit_seconds").record(began.elapsed());
        metrics::counter!("postern_orders_committed_total").increment(orders as u64);
        self.tip = Some(tip);
        self.signing.committed(tip);
        self.apply(batch.decided, &committed, now);
        self.forget(&ended, &committed);
        Ok(())
    }

    /// The answers that need not be kept any more, as far as the batch keeps no other under the
    /// same name.
    fn ended_replays(&self, batch: &Batch, now: Timestamp, room: usize) -> Vec<ReplayId> {
        let changes = batch.decided.iter().flat_map(|(changes, _)| changes);
        let kept = changes.filter_map(|change| {
            if let Change::PutReplay(replay) = change { Some(replay.id) } else { None }
        });
        let kept: BTreeSet<ReplayId> = kept.collect();
        let state = self.hub.state.read().unwrap_or_else(PoisonError::into_inner);
        let ended = state.ended_replays(now).filter(|id| !kept.contains(id));
        ended.take(room.min(ORPHANS_MAX)).collect()
    }

    fn forget(&self, ended: &[ReplayId], committed: &Committed) {
        if ended.is_empty() {
            return;
        }
        let mut state = self.hub.state.write().unwrap_or_else(PoisonError::into_inner);
        for id in ended {
            let change = Change::DeleteReplay(*id);
            state.apply(&change, committed.revision, &mut Touched::default());
        }
    }

    /// Applies what is durable, publishes it, then answers.
    fn apply(
        &mut self,
        decided: Vec<(Vec<Change>, Answer)>,
        committed: &Committed,
        now: Timestamp,
    ) {
        let mut touched = Touched::default();
        let mut state = self.hub.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::with_capacity(decided.len());
        for ((changes, answer), verdict) in decided.into_iter().zip(&committed.verdicts) {
            if verdict.is_err() {
                // Another writer was first. With one writer this cannot be.
                answers.push((answer, Err(Refused::Rejected(Rejection::Changed))));
                continue;
            }
            for change in &changes {
                self.orphans.extend(orphaned(&state, change));
                state.apply(change, committed.revision, &mut touched);
                if let Change::PutAgent(agent) = change
                    && agent.revoked_at.is_some()
                {
                    self.hub.board.lock().unwrap_or_else(PoisonError::into_inner).forget(agent.id);
                }
            }
            answers.push((answer, Ok(Done { revision: committed.revision, at: now })));
        }
        let resolved = state.resolve(touched, committed.revision, now);
        let access = resolved.access;
        self.hub.feed.publish(self.store.epoch(), resolved, now);
        drop(state);
        if access {
            self.hub.access.send_modify(|count| *count = count.wrapping_add(1));
        }
        self.answer(answers);
    }

    fn answer(&self, answers: Answers) {
        let left = match &self.clerk {
            Some(clerk) => clerk.blocking_send(answers).err().map(|error| error.0),
            None => Some(answers),
        };
        for (answer, result) in left.into_iter().flatten() {
            drop(answer.send(result));
        }
    }

    fn next_number(&self) -> u64 {
        self.tip.map_or(1, |tip| tip.number + 1)
    }

    /// Signs the end of the chain, if it is not signed yet. On a full disk it waits.
    fn sign(&mut self) -> Result<(), StoreError> {
        let now = self.hub.clock.now();
        let Some((item, tip)) = self.tip.and_then(|tip| Some((self.signing.item(tip, now)?, tip)))
        else {
            return Ok(());
        };
        match self.store.commit(&[item], Purpose::Ordinary, now) {
            Ok(_) => {
                self.signing.committed(tip);
                Ok(())
            }
            Err(StoreError::DiskReserve { .. }) => {
                self.signing.not_committed();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Signs what this writer has added, as its last act.
    fn sign_off(&mut self) -> Stopped {
        match if self.signing.has_unsigned() { self.sign() } else { Ok(()) } {
            Ok(()) => Stopped::Asked,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the store failed at the end");
                Stopped::StoreFailed
            }
        }
    }

    /// Begins a new epoch and tells every follower. On a full disk the old one stays: a follower
    /// that knows more then gets whole lists, which is all that it needs.
    fn replace_epoch(&mut self, held: Epoch) -> Result<(), StoreError> {
        if self.store.epoch() != held {
            return Ok(());
        }
        match self.store.check_room() {
            Ok(()) => {}
            Err(StoreError::DiskReserve { .. }) => {
                tracing::warn!("no new epoch on a full disk, though the store was restored");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let mut bytes = [0; 16];
        self.hub.chance.fill(&mut bytes);
        let epoch = Epoch::from_random(bytes);
        self.store.replace_epoch(epoch)?;
        tracing::warn!(%epoch, "followers know more than the store: it was restored");
        let state = self.hub.state.write().unwrap_or_else(PoisonError::into_inner);
        *self.hub.epoch.write().unwrap_or_else(PoisonError::into_inner) = epoch;
        self.hub.feed.begin_anew();
        drop(state);
        Ok(())
    }
}

/// Starts a task that hands out the answers of whole commits, on the runtime that the engine is
/// started from. Waking a task from a thread of one's own costs a call into the kernel; waking it
/// from another task does not, and a commit has hundreds to wake.
fn clerk() -> Option<mpsc::Sender<Answers>> {
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let (clerk, mut commits) = mpsc::channel::<Answers>(ANSWERED_COMMITS_MAX);
    runtime.spawn(async move {
        while let Some(answers) = commits.recv().await {
            for (answer, result) in answers {
                // Whoever asked may have left.
                drop(answer.send(result));
            }
        }
    });
    Some(clerk)
}

/// The chain's link, and its signature.
const LINK_OPERATIONS: usize = 2;

/// Room for the chain's link and its signature: org and hash of each record.
const LINK_BYTES_MAX: usize = 512 + 49 * 2 * ORDERS_MAX;

/// What an order reads and writes; one whose answer is kept counts among its org's.
fn footprint(state: &State, order: &Order, telling: Option<&Telling>) -> Footprint {
    let mut footprint = state.footprint(&order.command);
    if telling.is_some_and(|telling| telling.once.is_some()) {
        footprint.writes.extend(state.org_of(&order.command).map(RecordKey::Org));
    }
    footprint
}

/// Decides an order and makes its answer, which is one of the changes where it is to be kept.
fn decide_and_tell(
    state: &State,
    order: &Order,
    telling: Option<&Telling>,
    now: Timestamp,
) -> Result<Vec<Change>, Rejection> {
    let Some(Telling { once, tell, told }) = telling else { return decide(state, order, now) };
    let org = state.org_of(&order.command).ok_or(Rejection::NotFound)?;
    if let Some(once) = once {
        state.may_begin(org, once, now)?;
    }
    let mut changes = decide(state, order, now)?;
    let answer = tell(state, &changes);
    if let Some(once) = once {
        changes.push(Change::PutReplay(once.answered(org, answer.clone(), now)));
    }
    *told.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    Ok(changes)
}

fn records_in(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Record(_))).count()
}

/// The stored members that a change leaves without a group.
fn orphaned(state: &State, change: &Change) -> Vec<Key> {
    let Change::DeleteGroup(id) = change else { return Vec::new() };
    let members = state.group(*id).into_iter().flat_map(|row| row.members.keys());
    members.map(|member| member_key(*id, *member)).collect()
}
