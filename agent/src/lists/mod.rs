//! The lists of all followed groups: as the control plane said them, and as this host takes them.

mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use postern_shared::allowlist::Allowlist;
use postern_shared::follow::{Change, Follower, PlaneClock, Rejected};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Observed, Plan, Scope, plan};
use postern_shared::policy::{Accepted, Findings, LocalPolicy, Match};
use postern_shared::position::{Follow, Position};
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::StreamEvent;
use tokio::sync::Notify;

pub(crate) use self::saved::Saved;

use crate::clock::Clock;
use crate::reconcile::{Inbox, Pending};
use crate::status::ListState;

/// Deadlines that a target shows this far apart from the wanted ones count as equal: it is a
/// hundred times what the kernel's rounding and a slow pass make of them, and half of the second
/// by which an entry may close late.
const SLACK: Duration = Duration::from_millis(500);

/// The control plane is taken as followed for this long after it was heard, so that a task that was
/// cut off or asleep prolongs nothing: longer than a poll that is held, and its pause.
const HEARD_MAX: Duration = Duration::from_secs(90);

/// Shortest sleep between two looks at what time brings.
const TEND_PAUSE: Duration = Duration::from_millis(100);

/// The lists, shared by whoever receives them and whoever carries them out. Locked for the time
/// of one change at most.
#[derive(Debug)]
pub(crate) struct Lists {
    state: Mutex<State>,
    /// Rung when something is to be tended or saved earlier than it was known before.
    changed: Notify,
    unsaved: Notify,
}

#[derive(Debug)]
struct State {
    policy: LocalPolicy,
    clock: Option<PlaneClock>,
    /// Somebody follows the control plane.
    is_followed: bool,
    groups: BTreeMap<GroupId, Group>,
    inboxes: Vec<(BTreeSet<GroupId>, Arc<Inbox>)>,
}

#[derive(Debug)]
struct Group {
    follower: Follower,
    accepted: Accepted,
    list: ListState,
    /// When the plane last said that this is the list.
    heard: Timestamp,
    is_unsaved: bool,
}

/// How a target is to be brought to its lists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    /// What is ours stands in it, from this task or an earlier one.
    pub(crate) is_standing: bool,
    /// It has stood since before this task: what stands may be newer than what was saved.
    pub(crate) is_adopted: bool,
    /// The operator emptied it: only the fail-safe networks are wanted.
    pub(crate) is_flushed: bool,
}

/// What a target is to do, and what its groups' lists are while it does.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) plans: BTreeMap<GroupId, Plan>,
    pub(crate) standings: BTreeMap<GroupId, Standing>,
}

/// What is to be told of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) list: ListState,
    pub(crate) position: Option<Position>,
    /// Entries open on this host.
    pub(crate) entries: usize,
    /// What the local policy holds back.
    pub(crate) held: Option<String>,
    pub(crate) held_count: usize,
}

impl Lists {
    /// Makes lists of which none has come yet.
    pub(crate) fn new(groups: &BTreeSet<GroupId>, policy: LocalPolicy, now: Timestamp) -> Lists {
        let new = |group: &GroupId| (*group, Group::new(*group, policy.clone(), now));
        let groups = groups.iter().map(new).collect();
        let (inboxes, clock) = (Vec::new(), None);
        let state = Mutex::new(State { policy, clock, is_followed: false, groups, inboxes });
        Lists { state, changed: Notify::new(), unsaved: Notify::new() }
    }

    /// Puts another policy in force, and follows these groups from now on. Lists of groups that
    /// stay are kept; whoever was subscribed has to do so again.
    pub(crate) fn reconfigure(
        &self,
        groups: &BTreeSet<GroupId>,
        policy: LocalPolicy,
        now: Timestamp,
    ) {
        let mut state = self.lock();
        let state = &mut *state;
        state.inboxes.clear();
        state.groups.retain(|group, _| groups.contains(group));
        let clock = state.clock;
        for (id, group) in &mut state.groups {
            let list = clock.and_then(|clock| group.follower.list(clock)).unwrap_or_default();
            let before = group.accepted.findings();
            drop(group.accepted.replace_policy(policy.clone(), &list, group.heard, now));
            group.log_findings(*id, &before);
        }
        for id in groups {
            let new = || Group::new(*id, policy.clone(), now);
            state.groups.entry(*id).or_insert_with(new);
        }
        state.policy = policy;
        self.changed.notify_one();
    }

    /// Tells `inbox` of every change of these groups from now on.
    pub(crate) fn subscribe(&self, groups: &[GroupId], inbox: Arc<Inbox>) {
        self.lock().inboxes.push((groups.iter().copied().collect(), inbox));
    }

    /// What to ask the control plane for.
    pub(crate) fn follow(&self, now: Timestamp) -> Vec<Follow> {
        let state = self.lock();
        let plane_now = state.clock.map(|clock| clock.to_plane(now));
        state.groups.values().map(|group| group.follower.follow(plane_now)).collect()
    }

    /// Takes a message. `sent_at` is when the request was sent that this is the first message to
    /// answer with the time that it is now; `None` for any other message of the same connection.
    pub(crate) fn receive(
        &self,
        event: StreamEvent,
        sent_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Rejected> {
        let mut state = self.lock();
        if let (Some(sent_at), Some(as_of)) = (sent_at, as_of(&event)) {
            state.pair(as_of, sent_at, now);
        }
        let clock = state.clock.unwrap_or(PlaneClock::pair(now, now));
        let id = event.group();
        let Some(group) = state.groups.get_mut(&id) else {
            return Err(Rejected::ForeignGroup(id));
        };
        // What was adopted is compared with the list as a whole, too.
        let first = group.list != ListState::Followed;
        // The log of this run is to tell of what an earlier one has found.
        let findings = if first { Findings::default() } else { group.accepted.findings() };
        let before = group.follower.position(Some(clock.to_plane(now)));
        let change = group.follower.receive(event, clock)?;
        let is_same = before == group.follower.position(Some(clock.to_plane(now)));
        let mut touched = match change {
            Change::None => BTreeSet::new(),
            // What was asked for once more confirms nothing that the brake holds.
            Change::List(list) if is_same => group.accepted.retake_list(&list, now, now),
            Change::List(list) => group.accepted.take_list(&list, now, now),
            Change::Changes(changes) => group.accepted.take_changes(&changes, now),
            Change::Withdrawn => return self.withdraw(state, id, now),
        };
        // What waited for the plane to be heard again need not wait for the tender.
        touched.extend(group.accepted.tend(true, now));
        group.log_findings(id, &findings);
        (group.list, group.heard, group.is_unsaved) = (ListState::Followed, now, true);
        state.is_followed = true;
        if first {
            state.touch_all(id);
        } else {
            state.touch(id, &touched);
        }
        self.changed.notify_one();
        self.unsaved.notify_one();
        Ok(())
    }

    fn withdraw(
        &self,
        mut state: MutexGuard<'_, State>,
        id: GroupId,
        now: Timestamp,
    ) -> Result<(), Rejected> {
        let group = state.groups.get_mut(&id).expect("the caller has found it");
        // A group that never had a list is no reason to close a gate on everybody.
        if group.list == ListState::Missing {
            tracing::warn!(group = %id, "the control plane does not let this agent read the group");
            return Ok(());
        }
        let touched = group.accepted.withdraw(now);
        (group.list, group.heard, group.is_unsaved) = (ListState::Withdrawn, now, true);
        tracing::warn!(group = %id, entries = touched.len(), "the control plane withdrew the group");
        state.touch(id, &touched);
        self.unsaved.notify_one();
        Ok(())
    }

    /// Notes that the control plane, which says what changes, was heard: the lists of these groups,
    /// or of all, are still the ones that it means. Only then leases are prolonged.
    pub(crate) fn heard(&self, only: Option<GroupId>, now: Timestamp) {
        let mut state = self.lock();
        let was_followed = std::mem::replace(&mut state.is_followed, true);
        let mut is_news = false;
        for (id, group) in &mut state.groups {
            if group.list == ListState::Followed && only.is_none_or(|only| only == *id) {
                is_news |= !was_followed || !group.is_followed(now);
                group.heard = now;
            }
        }
        if is_news {
            self.changed.notify_one();
        }
    }

    /// Notes that nobody follows the control plane any more.
    pub(crate) fn lost(&self) {
        self.lock().is_followed = false;
        self.changed.notify_one();
    }

    /// Withdraws what the brake holds; answers how many entries that were.
    pub(crate) fn confirm(&self, only: Option<GroupId>, now: Timestamp) -> usize {
        let mut state = self.lock();
        let ids: Vec<GroupId> = state.groups.keys().copied().collect();
        let mut withdrawn = 0;
        for id in ids.into_iter().filter(|id| only.is_none_or(|only| only == *id)) {
            let group = state.groups.get_mut(&id).expect("it was just listed");
            let touched = group.accepted.confirm(now);
            group.is_unsaved |= !touched.is_empty();
            withdrawn += touched.len();
            state.touch(id, &touched);
        }
        self.unsaved.notify_one();
        withdrawn
    }

    /// What a target of these groups is to do, given what it was observed to hold. `None` as long
    /// as any of the groups has no list, unless the target stands already: then that group is
    /// left as it is, so that the others are still withdrawn from.
    pub(crate) fn wanted(
        &self,
        groups: &[GroupId],
        observed: &BTreeMap<GroupId, Observed>,
        pending: &Pending,
        mode: Mode,
        now: Timestamp,
    ) -> Option<Wanted> {
        let state = self.lock();
        let (nothing, untouched) = (Observed::new(), BTreeSet::new());
        let failsafe = Accepted::new(state.policy.clone(), now);
        let mut wanted = Wanted { plans: BTreeMap::new(), standings: BTreeMap::new() };
        for id in groups {
            let group = state.groups.get(id).filter(|group| group.list != ListState::Missing);
            let Some(group) = group else {
                if mode.is_standing {
                    continue;
                }
                return None;
            };
            let scope = match pending {
                Pending::All => Scope::All,
                Pending::Only(touched) => Scope::Only(touched.get(id).unwrap_or(&untouched)),
            };
            let accepted = if mode.is_flushed { &failsafe } else { &group.accepted };
            let observed = observed.get(id).unwrap_or(&nothing);
            if group.list == ListState::Cached && mode.is_adopted && !mode.is_flushed {
                let adopted = group.adopt(&state.policy, observed, now);
                wanted.plans.insert(*id, plan(&adopted, observed, scope, SLACK, now));
                continue;
            }
            wanted.plans.insert(*id, plan(accepted.in_force(), observed, scope, SLACK, now));
            wanted.standings.insert(*id, state.standing(group, now));
        }
        Some(wanted)
    }

    /// What is to be told of these groups' lists.
    pub(crate) fn standings(
        &self,
        groups: &[GroupId],
        now: Timestamp,
    ) -> BTreeMap<GroupId, Standing> {
        let state = self.lock();
        let standing = |id: &GroupId| Some((*id, state.standing(state.groups.get(id)?, now)));
        groups.iter().filter_map(standing).collect()
    }

    /// The groups that are followed.
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        self.lock().groups.keys().copied().collect()
    }

    /// All entries of a group that an address falls into, the longest prefix first.
    pub(crate) fn why(&self, group: GroupId, address: IpAddr, now: Timestamp) -> Vec<Match> {
        let state = self.lock();
        state.groups.get(&group).map(|group| group.accepted.why(address, now)).unwrap_or_default()
    }

    /// Does what time brings; answers when to do so next.
    fn tend(&self, now: Timestamp) -> Option<Timestamp> {
        let mut state = self.lock();
        let is_followed = state.is_followed;
        let ids: Vec<GroupId> = state.groups.keys().copied().collect();
        for id in ids {
            let group = state.groups.get_mut(&id).expect("it was just listed");
            let touched = group.accepted.tend(is_followed && group.is_followed(now), now);
            if !touched.is_empty() {
                state.touch(id, &touched);
            }
        }
        let next =
            |group: &Group| group.accepted.next_change(is_followed && group.is_followed(now), now);
        state.groups.values().filter_map(next).min()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

/// Tends the lists for as long as it is polled.
pub(crate) async fn tend(lists: Arc<Lists>, clock: Arc<impl Clock>) {
    loop {
        let now = clock.now();
        let sleep = async {
            match lists.tend(now) {
                Some(next) => tokio::time::sleep(next.since(now).max(TEND_PAUSE)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = lists.changed.notified() => {}
        }
    }
}

impl State {
    /// Pairs the plane's clock with ours; where it moved, every list is put into local time anew.
    fn pair(&mut self, as_of: Timestamp, sent_at: Timestamp, now: Timestamp) {
        let Some(clock) = &mut self.clock else {
            self.clock = Some(PlaneClock::pair(as_of, sent_at));
            return;
        };
        if !clock.pair_again(as_of, sent_at) {
            return;
        }
        let clock = *clock;
        tracing::info!("the control plane's clock moved against ours; deadlines are set anew");
        let mut moved = Vec::new();
        for (id, group) in &mut self.groups {
            if let Some(list) = group.follower.list(clock) {
                moved.push((*id, group.accepted.retake_list(&list, group.heard, now)));
            }
        }
        for (id, touched) in moved {
            self.touch(id, &touched);
        }
    }

    fn standing(&self, group: &Group, now: Timestamp) -> Standing {
        let plane_now = self.clock.map(|clock| clock.to_plane(now));
        let findings = group.accepted.findings();
        Standing {
            list: group.list,
            position: group.follower.position(plane_now),
            entries: match group.list {
                ListState::Missing => 0,
                ListState::Cached | ListState::Followed | ListState::Withdrawn => {
                    group.accepted.in_force().len_at(now)
                }
            },
            held_count: findings.held_count,
            held: (!findings.is_empty()).then(|| findings.to_string()),
        }
    }

    fn touch(&self, group: GroupId, networks: &BTreeSet<Network>) {
        for (groups, inbox) in &self.inboxes {
            if groups.contains(&group) {
                inbox.touch(group, networks);
            }
        }
    }

    fn touch_all(&self, group: GroupId) {
        let concerned = self.inboxes.iter().filter(|(groups, _)| groups.contains(&group));
        concerned.for_each(|(_, inbox)| inbox.touch_all());
    }
}

impl Group {
    fn new(id: GroupId, policy: LocalPolicy, now: Timestamp) -> Group {
        Group {
            follower: Follower::new(id),
            accepted: Accepted::new(policy, now),
            list: ListState::Missing,
            heard: now,
            is_unsaved: false,
        }
    }

    /// Logs what is held back, where that is other than before.
    fn log_findings(&self, id: GroupId, before: &Findings) {
        let findings = self.accepted.findings();
        if findings == *before {
            return;
        }
        if findings.is_empty() {
            tracing::info!(group = %id, "nothing of the list is held back any more");
        } else {
            tracing::warn!(group = %id, %findings, "the list is not in force as it came");
        }
    }

    /// Says whether the plane still means this list, if anybody follows it at all.
    fn is_followed(&self, now: Timestamp) -> bool {
        self.list == ListState::Followed && now.since(self.heard) < HEARD_MAX
    }

    /// What a target that stands should hold until the control plane is heard: what it holds,
    /// within the local policy.
    ///
    /// Lists reach the disk after the target, so a target that an earlier run left standing knows
    /// more than the cache does. To make it equal to the cache would shut out whoever came last,
    /// and let in again who was withdrawn last.
    fn adopt(&self, policy: &LocalPolicy, observed: &Observed, now: Timestamp) -> Allowlist {
        let latest = Expiry::At(now.saturating_add(policy.ttl_max.as_duration()));
        let mut adopted = Allowlist::new();
        for (network, expiry) in observed {
            if policy.judge(*network).is_none() {
                adopted.set(*network, (*expiry).min(latest));
            }
        }
        for network in &policy.failsafe {
            if let Some(expiry) = self.accepted.in_force().get(*network) {
                adopted.set(*network, expiry);
            }
        }
        adopted
    }
}

fn as_of(event: &StreamEvent) -> Option<Timestamp> {
    match event {
        StreamEvent::Same(same) => Some(same.as_of),
        StreamEvent::Delta(delta) => Some(delta.as_of),
        StreamEvent::Snapshot(snapshot) => Some(snapshot.as_of),
        StreamEvent::Withdrawn(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeList, clock, group, host};

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_prolonged_only_while_the_plane_is_really_heard() {
        let clock = clock();
        let lists = Lists::new(&BTreeSet::from([group(1)]), LocalPolicy::default(), clock.now());
        let mut list = FakeList::new(group(1));
        list.list.set(host(1), Expiry::Never);
        lists.receive(list.snapshot(clock.now()), Some(clock.now()), clock.now()).unwrap();
        let end = || lists.why(group(1), "10.0.0.1".parse().unwrap(), clock.now())[0].expiry;
        let first = end();

        // The task that follows was cut off: nobody says that the plane is lost.
        tokio::time::sleep(Duration::from_secs(4 * 86_400)).await;
        lists.tend(clock.now());
        assert_eq!(end(), first);

        lists.heard(None, clock.now());
        lists.tend(clock.now());
        assert!(first < end());
    }
}
