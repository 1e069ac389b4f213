use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use postern_shared::network::Network;
use postern_shared::plan::Observed;
use postern_shared::policy::LocalPolicy;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::StreamEvent;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::test::TokioClock;
use crate::target::TargetInfo;
use crate::testing::{FakeList, clock, group, host, hour, until};

/// A firewall in memory, for tests: as slow, as forgetful and as much changed by others as a real
/// one. The world outlives the target that keeps it.
#[derive(Debug, Default)]
struct World {
    entries: BTreeMap<GroupId, Observed>,
    is_gate_up: bool,
    /// Somebody else changed something since it was last read.
    is_changed: bool,
    faults: VecDeque<Fault>,
    /// The size of each plan that was carried out.
    applied: Vec<usize>,
    /// What time it was said to be, each time.
    applied_at: Vec<Timestamp>,
    refreshes: usize,
    refresh_takes: Duration,
    /// How many entries fit.
    room: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Nothing is done.
    Before,
    /// All is done, and yet an error comes back.
    After,
    /// Somebody else was quicker.
    Changed,
    /// Asks for patience.
    Throttled(Duration),
    /// Takes this long.
    Slow(Duration),
}

#[derive(Debug, Clone)]
struct FakeTarget {
    info: TargetInfo,
    world: Arc<Mutex<World>>,
    disturbance: Arc<Notify>,
    observed: BTreeMap<GroupId, Observed>,
    is_known: bool,
    groups: Vec<GroupId>,
}

fn unreachable() -> TargetError {
    let step = "asking the fake".to_owned();
    TargetError::Unreachable { step, source: std::io::ErrorKind::TimedOut.into() }
}

impl Target for FakeTarget {
    fn info(&self) -> &TargetInfo {
        &self.info
    }

    async fn refresh(&mut self, _now: Timestamp) -> Result<Refresh, TargetError> {
        let takes = self.world.lock().unwrap().refresh_takes;
        tokio::time::sleep(takes).await;
        let mut world = self.world.lock().unwrap();
        world.refreshes += 1;
        self.observed = self.groups.iter().map(|group| (*group, Observed::new())).collect();
        self.observed.extend(world.entries.clone());
        if self.is_known && !world.is_changed {
            return Ok(Refresh::Unchanged);
        }
        let drift = usize::from(self.is_known);
        (self.is_known, world.is_changed) = (true, false);
        Ok(Refresh::Reread { drift })
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        self.world.lock().unwrap().is_gate_up
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        format!("{} changes", plans.values().map(Plan::len).sum::<usize>())
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        let fault = self.world.lock().unwrap().faults.pop_front();
        match fault {
            Some(Fault::Before) => {
                self.is_known = false;
                return Err(unreachable());
            }
            Some(Fault::Changed) => {
                self.is_known = false;
                return Err(TargetError::Changed);
            }
            Some(Fault::Throttled(wait)) => return Err(TargetError::Throttled { wait }),
            Some(Fault::Slow(span)) => tokio::time::sleep(span).await,
            Some(Fault::After) | None => {}
        }
        let mut world = self.world.lock().unwrap();
        let mut model = world.entries.clone();
        for (group, plan) in plans {
            plan.carry_out(model.entry(*group).or_default());
        }
        let wanted = model.values().map(BTreeMap::len).sum();
        if let Some(capacity) = world.room.filter(|room| *room < wanted) {
            self.is_known = false;
            return Err(TargetError::Full { wanted, capacity });
        }
        world.is_gate_up = true;
        world.applied_at.push(now);
        world.applied.push(plans.values().map(Plan::len).sum());
        for (group, plan) in plans {
            plan.carry_out(world.entries.entry(*group).or_default());
            plan.carry_out(self.observed.entry(*group).or_default());
        }
        if let Some(Fault::After) = fault {
            self.is_known = false;
            return Err(unreachable());
        }
        Ok(())
    }

    async fn disturbed(&mut self) {
        self.disturbance.notified().await;
    }

    fn earliest_deadline(&self) -> Option<Timestamp> {
        None
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        let mut world = self.world.lock().unwrap();
        world.entries.values_mut().for_each(Observed::clear);
        self.is_known = false;
        Ok(())
    }
}

/// A running keeper and all that it touches.
struct Stage {
    clock: Arc<TokioClock>,
    lists: Arc<Lists>,
    world: Arc<Mutex<World>>,
    disturbance: Arc<Notify>,
    outbox: Arc<Outbox>,
    board: Arc<Board>,
    orders: mpsc::Sender<Order>,
    state_dir: tempfile::TempDir,
    keeper: JoinHandle<()>,
}

impl Stage {
    fn new(groups: &[GroupId], policy: LocalPolicy) -> Stage {
        Stage::with_world(groups, policy, Arc::default())
    }

    fn with_world(groups: &[GroupId], policy: LocalPolicy, world: Arc<Mutex<World>>) -> Stage {
        let state_dir = tempfile::tempdir().unwrap();
        Stage::in_state(groups, policy, world, state_dir)
    }

    fn in_state(
        groups: &[GroupId],
        policy: LocalPolicy,
        world: Arc<Mutex<World>>,
        state_dir: tempfile::TempDir,
    ) -> Stage {
        let flushed = Arc::new(FlushedTargets::load(state_dir.path()));
        let clock = clock();
        let set: BTreeSet<GroupId> = groups.iter().copied().collect();
        let lists = Arc::new(Lists::new(&set, policy, clock.now()));
        let inbox = Arc::new(Inbox::default());
        lists.subscribe(groups, Arc::clone(&inbox));
        let (outbox, disturbance) = (Arc::new(Outbox::default()), Arc::new(Notify::new()));
        let board = Arc::new(Board::new("https://plane.example".to_owned(), clock.now()));
        let info = TargetInfo { name: "door".into(), kind: "fake", strategy: String::new() };
        let target = FakeTarget {
            info,
            world: Arc::clone(&world),
            disturbance: Arc::clone(&disturbance),
            observed: BTreeMap::new(),
            is_known: false,
            groups: groups.to_vec(),
        };
        let context = Context {
            lists: Arc::clone(&lists),
            groups: groups.to_vec(),
            inbox,
            outbox: Arc::clone(&outbox),
            flushed,
            board: Arc::clone(&board),
            clock: Arc::clone(&clock),
            chance: || u64::MAX,
        };
        let (orders, taken) = mpsc::channel(1);
        let keeper = tokio::spawn(keep(target, context, taken));
        Stage { clock, lists, world, disturbance, outbox, board, orders, state_dir, keeper }
    }

    fn receive(&self, event: StreamEvent) {
        let now = self.clock.now();
        self.lists.receive(event, Some(now), now).unwrap();
    }

    fn holds(&self, group: GroupId, networks: impl IntoIterator<Item = Network>) -> bool {
        let world = self.world.lock().unwrap();
        let found: Vec<Network> =
            world.entries.get(&group).into_iter().flat_map(|held| held.keys().copied()).collect();
        found == networks.into_iter().collect::<Vec<_>>()
    }

    /// Does what somebody else could do.
    fn tamper(&self) {
        let mut world = self.world.lock().unwrap();
        let entries = world.entries.get_mut(&group(1)).unwrap();
        entries.remove(&host(1));
        entries.insert(host(77), Expiry::At(hour()));
        world.is_changed = true;
    }

    fn receipts(&self) -> Vec<Receipt> {
        self.outbox.untold(100)
    }

    fn state(&self) -> TargetState {
        let notes = self.board.read();
        notes.targets.get("door").map_or(TargetState::Waiting, |notes| notes.status.state)
    }

    /// Lets the keeper do what it can do without the clock moving far.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn hosts(range: std::ops::Range<u32>) -> Vec<Network> {
    range.map(host).collect()
}

#[tokio::test(start_paused = true)]
async fn a_slow_look_at_the_target_makes_no_entry_close_late() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.world.lock().unwrap().refresh_takes = Duration::from_millis(700);
    let began = stage.clock.now();

    stage.receive(FakeList::new(group(1)).with_hosts(0..3).snapshot(began));
    until("they are in", || stage.holds(group(1), [host(0), host(1), host(2)])).await;

    let applied_at = stage.world.lock().unwrap().applied_at.clone();
    assert!(Duration::from_millis(700) <= applied_at[0].since(began), "{applied_at:?} {began}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_every_group_has_a_list() {
    let stage = Stage::new(&[group(1), group(2)], LocalPolicy::default());

    stage.receive(FakeList::new(group(1)).with_hosts(0..3).snapshot(stage.clock.now()));
    tokio::time::sleep(RECHECK * 2).await;
    assert!(stage.world.lock().unwrap().applied.is_empty());
    assert_eq!(stage.state(), TargetState::Waiting);

    stage.receive(FakeList::new(group(2)).snapshot(stage.clock.now()));
    until("the gate is up", || stage.world.lock().unwrap().is_gate_up).await;
    assert_eq!(stage.world.lock().unwrap().applied, [3], "all of it in one transaction");
    assert!(stage.holds(group(1), hosts(0..3)));
}

#[tokio::test(start_paused = true)]
async fn a_small_change_looks_at_nothing_else_and_the_timer_at_everything() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    let mut list = FakeList::new(group(1)).with_hosts(0..1_000);
    stage.receive(list.snapshot(stage.clock.now()));
    until("the list is in force", || stage.holds(group(1), hosts(0..1_000))).await;
    // A change that nobody told of, so that only a look at everything can find it.
    stage.world.lock().unwrap().entries.get_mut(&group(1)).unwrap().remove(&host(999)).unwrap();

    stage.receive(list.change(&[(host(2_000), Expiry::At(hour()))], &[host(5)], stage.clock.now()));
    stage.settle().await;

    assert_eq!(stage.world.lock().unwrap().applied, [1_000, 2]);
    tokio::time::sleep(RECHECK).await;
    let mut wanted = hosts(0..1_000);
    wanted.remove(5);
    wanted.push(host(2_000));
    until("the timer has found it", || stage.holds(group(1), wanted.clone())).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_an_apply_answers_the_target_ends_up_equal() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.world.lock().unwrap().faults.extend([
        Fault::Before,
        Fault::After,
        Fault::Changed,
        Fault::Slow(Duration::from_secs(5)),
        Fault::Throttled(Duration::from_secs(7)),
    ]);
    let mut list = FakeList::new(group(1)).with_hosts(0..10);

    stage.receive(list.snapshot(stage.clock.now()));
    for n in 10..30 {
        stage.receive(list.change(
            &[(host(n), Expiry::At(hour()))],
            &[host(n - 10)],
            stage.clock.now(),
        ));
        stage.settle().await;
    }

    until("it is in sync", || stage.state() == TargetState::InSync).await;
    assert!(stage.holds(group(1), hosts(20..30)));
    let [receipt] = &stage.receipts()[..] else { panic!("one receipt") };
    assert_eq!(receipt.state, ReceiptState::Applied);
    assert_eq!((receipt.revision, receipt.entries), (list.revision, 10));
}

#[tokio::test(start_paused = true)]
async fn where_what_is_new_does_not_fit_what_goes_goes_and_what_stays_is_renewed() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.world.lock().unwrap().room = Some(3);
    let mut list = FakeList::new(group(1)).with_hosts(0..3);
    stage.receive(list.snapshot(stage.clock.now()));
    until("they are in", || stage.holds(group(1), hosts(0..3))).await;

    let later = Expiry::At(hour().saturating_add(Duration::from_secs(600)));
    let soon = Expiry::At(hour());
    let changes = [(host(1), later), (host(7), soon), (host(8), soon)];
    stage.receive(list.change(&changes, &[host(0)], stage.clock.now()));
    until("it is told", || stage.state() == TargetState::Failing).await;

    assert!(stage.holds(group(1), hosts(1..3)), "nothing new, and not half of it");
    assert_eq!(stage.world.lock().unwrap().entries[&group(1)][&host(1)], later);
    let [receipt] = &stage.receipts()[..] else { panic!("one receipt") };
    assert!(receipt.detail.as_ref().unwrap().contains("there is room for 3"), "{receipt:?}");
    stage.receive(list.change(&[], &[host(8)], stage.clock.now()));
    until("the rest fits", || stage.holds(group(1), [host(1), host(2), host(7)])).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_that_fails_for_an_hour_is_neither_given_up_nor_hammered() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.world.lock().unwrap().faults.extend([Fault::Before; 200]);
    stage.receive(FakeList::new(group(1)).with_hosts(0..1).snapshot(stage.clock.now()));
    until("it fails", || stage.state() == TargetState::Failing).await;

    let [receipt] = &stage.receipts()[..] else { panic!("one receipt") };
    assert_eq!(receipt.state, ReceiptState::Failed);
    assert!(receipt.detail.as_ref().unwrap().contains("asking the fake"), "{receipt:?}");
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    let left = stage.world.lock().unwrap().faults.len();
    assert!((60..180).contains(&left), "{left} of 200 tries left after 50 minutes");
    assert!(!stage.keeper.is_finished());

    stage.world.lock().unwrap().faults.clear();
    until("it is in sync", || stage.state() == TargetState::InSync).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_change_is_repaired_at_once() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.receive(FakeList::new(group(1)).with_hosts(0..3).snapshot(stage.clock.now()));
    until("the list is in force", || stage.holds(group(1), hosts(0..3))).await;

    for _ in 0..5 {
        stage.tamper();
        stage.disturbance.notify_one();
        tokio::time::sleep(Duration::from_millis(100)).await;

        assert!(stage.holds(group(1), hosts(0..3)));
    }
    assert_eq!(stage.board.read().targets["door"].status.repairs, 5);
}

#[tokio::test(start_paused = true)]
async fn a_restart_adopts_what_is_there() {
    let first = Stage::new(&[group(1)], LocalPolicy::default());
    let list = FakeList::new(group(1)).with_hosts(0..5);
    first.receive(list.snapshot(first.clock.now()));
    until("the list is in force", || first.holds(group(1), hosts(0..5))).await;
    first.keeper.abort();

    let second = Stage::with_world(&[group(1)], LocalPolicy::default(), Arc::clone(&first.world));
    second.receive(list.snapshot(second.clock.now()));
    until("it is in sync", || second.state() == TargetState::InSync).await;

    assert_eq!(second.world.lock().unwrap().applied, [5], "there was nothing left to do");
}

#[tokio::test(start_paused = true)]
async fn a_group_without_a_list_does_not_freeze_a_gate_that_stands() {
    let first = Stage::new(&[group(1)], LocalPolicy::default());
    let mut list = FakeList::new(group(1)).with_hosts(0..5);
    first.receive(list.snapshot(first.clock.now()));
    until("the list is in force", || first.holds(group(1), hosts(0..5))).await;
    first.keeper.abort();
    let world = Arc::clone(&first.world);
    world.lock().unwrap().entries.insert(group(2), Observed::from([(host(9), Expiry::At(hour()))]));

    let second = Stage::with_world(&[group(1), group(2)], LocalPolicy::default(), world);
    drop(list.change(&[], &[host(0)], second.clock.now()));
    second.receive(list.snapshot(second.clock.now()));

    until("the withdrawal is in force", || second.holds(group(1), hosts(1..5))).await;
    assert!(second.holds(group(2), [host(9)]), "what has no list is left as it is");
}

#[tokio::test(start_paused = true)]
async fn what_stands_is_newer_than_what_was_saved() {
    let policy = LocalPolicy { failsafe: vec![host(500)], ..LocalPolicy::default() };
    let first = Stage::new(&[group(1)], policy.clone());
    let mut list = FakeList::new(group(1)).with_hosts(0..5);
    first.receive(list.snapshot(first.clock.now()));
    let (id, saved) = first.lists.take_unsaved(None, true, first.clock.now()).unwrap();
    first.receive(list.change(&[(host(7), Expiry::At(hour()))], &[host(0)], first.clock.now()));
    let newest = || hosts(1..5).into_iter().chain([host(7), host(500)]);
    until("the change is in force", || first.holds(group(1), newest())).await;
    first.keeper.abort();
    let denied = "20.0.0.0/8".parse().unwrap();
    let world = Arc::clone(&first.world);
    world.lock().unwrap().entries.get_mut(&id).unwrap().insert(denied, Expiry::At(hour()));
    world.lock().unwrap().entries.get_mut(&id).unwrap().remove(&host(500));

    let second = Stage::with_world(&[group(1)], policy, world);
    let now = second.clock.now();
    second.lists.restore(id, saved, Some(Duration::ZERO), now).unwrap();
    until("the policy holds", || second.holds(group(1), newest())).await;
    tokio::time::sleep(RECHECK * 2).await;
    assert!(second.holds(group(1), newest()), "what was saved undoes nothing");
    assert_eq!(second.receipts(), [], "and nothing is told of it");

    drop(list.change(&[], &[host(1)], second.clock.now()));
    second.receive(list.snapshot(second.clock.now()));
    let followed = || hosts(2..5).into_iter().chain([host(7), host(500)]);
    until("it is followed", || second.holds(group(1), followed())).await;
}

#[tokio::test(start_paused = true)]
async fn where_nothing_stands_what_was_saved_is_put_up_and_kept() {
    let before = Stage::new(&[group(1)], LocalPolicy::default());
    before.receive(FakeList::new(group(1)).with_hosts(0..5).snapshot(before.clock.now()));
    let (id, saved) = before.lists.take_unsaved(None, true, before.clock.now()).unwrap();

    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.lists.restore(id, saved, Some(Duration::ZERO), stage.clock.now()).unwrap();
    until("the saved list is in force", || stage.holds(group(1), hosts(0..5))).await;

    stage.tamper();
    stage.disturbance.notify_one();
    until("it is repaired", || stage.holds(group(1), hosts(0..5))).await;
}

#[tokio::test(start_paused = true)]
async fn a_flush_leaves_the_fail_safe_networks_and_holds() {
    let policy = LocalPolicy { failsafe: vec![host(500)], ..LocalPolicy::default() };
    let stage = Stage::new(&[group(1)], policy);
    let mut list = FakeList::new(group(1)).with_hosts(0..3);
    stage.receive(list.snapshot(stage.clock.now()));
    until("the list is in force", || {
        stage.holds(group(1), hosts(0..3).into_iter().chain([host(500)]))
    })
    .await;

    let (answer, flushed) = oneshot::channel();
    stage.orders.send(Order::Flush(answer)).await.unwrap();
    flushed.await.unwrap().unwrap();
    stage.receive(list.change(&[(host(9), Expiry::At(hour()))], &[], stage.clock.now()));
    tokio::time::sleep(RECHECK * 2).await;

    assert!(stage.holds(group(1), [host(500)]));
    assert_eq!(stage.state(), TargetState::Flushed);
    let [receipt] = &stage.receipts()[..] else { panic!("one receipt") };
    assert_eq!(receipt.state, ReceiptState::Held);

    stage.keeper.abort();
    let policy = LocalPolicy { failsafe: vec![host(500)], ..LocalPolicy::default() };
    let next = Stage::in_state(&[group(1)], policy, stage.world, stage.state_dir);
    next.receive(list.snapshot(next.clock.now()));
    until("it is kept", || next.state() == TargetState::Flushed).await;
    assert!(next.holds(group(1), [host(500)]), "also by the next task");
}

#[tokio::test(start_paused = true)]
async fn a_list_beyond_the_local_policy_is_told_as_held() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    let mut list = FakeList::new(group(1)).with_hosts(0..3);
    stage.receive(list.snapshot(stage.clock.now()));
    let wide: Network = "20.0.0.0/8".parse().unwrap();

    let changes = [(wide, Expiry::At(hour())), (host(9), Expiry::At(hour()))];
    stage.receive(list.change(&changes, &[host(0)], stage.clock.now()));
    until("the withdrawal is in force", || stage.holds(group(1), hosts(1..3))).await;

    let [receipt] = &stage.receipts()[..] else { panic!("one receipt") };
    assert_eq!((receipt.state, receipt.revision), (ReceiptState::Held, list.revision));
    assert!(receipt.detail.as_ref().unwrap().contains("20.0.0.0/8"), "{receipt:?}");
}

#[tokio::test(start_paused = true)]
async fn a_preview_changes_nothing() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    stage.world.lock().unwrap().faults.extend([Fault::Throttled(Duration::from_secs(3_000))]);
    stage.receive(FakeList::new(group(1)).with_hosts(0..3).snapshot(stage.clock.now()));
    until("it waits", || stage.state() == TargetState::Failing).await;

    let (answer, preview) = oneshot::channel();
    stage.orders.send(Order::Preview(answer)).await.unwrap();
    let preview = preview.await.unwrap().unwrap();

    assert_eq!(preview, Preview { text: "3 changes".to_owned(), changes: 3 });
    assert!(stage.world.lock().unwrap().applied.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_never_added_again() {
    let stage = Stage::new(&[group(1)], LocalPolicy::default());
    let mut list = FakeList::new(group(1)).with_hosts(0..2);
    let soon = stage.clock.now().saturating_add(Duration::from_secs(10));
    list.list.set(host(7), Expiry::At(soon));
    stage.world.lock().unwrap().faults.extend([Fault::Throttled(Duration::from_secs(20))]);

    stage.receive(list.snapshot(stage.clock.now()));
    until("the list is in force", || stage.world.lock().unwrap().is_gate_up).await;

    assert!(stage.holds(group(1), hosts(0..2)));
}
