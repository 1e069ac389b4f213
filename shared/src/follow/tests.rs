use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wire::v1::Withdrawn;

fn group() -> GroupId {
    GroupId::from_random([1; 16])
}

fn epoch(number: u8) -> Epoch {
    Epoch::from_random([number; 16])
}

fn host(last: u8) -> Network {
    Network::host([192, 0, 2, last].into())
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms).unwrap()
}

fn until(ms: u64) -> Expiry {
    Expiry::At(at(ms))
}

fn even() -> PlaneClock {
    PlaneClock::pair(at(0), at(0))
}

/// The control plane, with every list that it ever had.
struct Plane {
    epoch: u8,
    revision: Revision,
    list: Allowlist,
    now: u64,
    /// By epoch and revision; a restored plane may use a revision a second time.
    history: BTreeMap<(Epoch, Revision), Vec<Allowlist>>,
    backup: (Revision, Allowlist),
    made: Vec<Delta>,
}

impl Plane {
    fn new() -> Plane {
        let mut plane = Plane {
            epoch: 1,
            revision: Revision(5),
            list: Allowlist::new(),
            now: 1_000,
            history: BTreeMap::new(),
            backup: (Revision(5), Allowlist::new()),
            made: Vec::new(),
        };
        plane.remember();
        plane
    }

    fn remember(&mut self) {
        let lists = self.history.entry((epoch(self.epoch), self.revision)).or_default();
        lists.push(self.list.clone());
    }

    fn commit(&mut self, changes: &BTreeMap<Network, Option<Expiry>>) -> Delta {
        let (from, as_of) = (self.revision, at(self.now));
        let base = self.list.digest_at(as_of);
        for (network, expiry) in changes {
            match expiry {
                Some(expiry) => drop(self.list.set(*network, *expiry)),
                None => drop(self.list.remove(*network)),
            }
        }
        self.revision.0 += 2;
        self.remember();
        let add = changes.iter().filter_map(|(cidr, expiry)| {
            expiry.map(|expires_at| Entry { cidr: *cidr, expires_at })
        });
        let delta = Delta {
            group: group(),
            epoch: epoch(self.epoch),
            from,
            base,
            revision: self.revision,
            as_of,
            digest: self.list.digest_at(as_of),
            add: add.collect(),
            remove: changes.iter().filter(|(_, e)| e.is_none()).map(|(net, _)| *net).collect(),
        };
        self.made.push(delta.clone());
        delta
    }

    /// Goes back to an earlier state, as from a backup, without knowing that it was restored.
    fn restore(&mut self) {
        (self.revision, self.list) = self.backup.clone();
    }

    fn snapshot(&self) -> Snapshot {
        let as_of = at(self.now);
        let entry = |(cidr, expires_at)| Entry { cidr, expires_at };
        Snapshot {
            group: group(),
            epoch: epoch(self.epoch),
            revision: self.revision,
            as_of,
            digest: self.list.digest_at(as_of),
            entries: self.list.live_at(as_of).map(entry).collect(),
        }
    }

    fn same(&self) -> Same {
        let digest = self.list.digest_at(at(self.now));
        let epoch = epoch(self.epoch);
        Same { group: group(), epoch, revision: self.revision, as_of: at(self.now), digest }
    }

    /// Answers a follower that connects.
    fn welcome(&mut self, follow: Follow) -> StreamEvent {
        let Some(have) = follow.have.filter(|have| have.epoch == epoch(self.epoch)) else {
            return StreamEvent::Snapshot(self.snapshot());
        };
        if self.revision < have.revision {
            self.epoch += 1;
            self.backup = (self.revision, self.list.clone());
            self.remember();
            self.made.clear();
        } else if have.revision == self.revision {
            return StreamEvent::Same(self.same());
        }
        StreamEvent::Snapshot(self.snapshot())
    }
}

fn follower_of(plane: &mut Plane) -> Follower {
    let mut follower = Follower::new(group());
    let welcome = plane.welcome(follower.follow(None));
    follower.receive(welcome, even()).unwrap();
    follower
}

fn changes(entries: &[(u8, Option<u64>)]) -> BTreeMap<Network, Option<Expiry>> {
    entries.iter().map(|(last, expiry)| (host(*last), expiry.map(until))).collect()
}

#[test]
fn a_delta_says_what_it_changed_in_local_time() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    let behind = PlaneClock::pair(at(10_000), at(4_000));

    let delta = plane.commit(&changes(&[(1, Some(9_000)), (2, None)]));
    let change = follower.receive(StreamEvent::Delta(delta), behind).unwrap();

    assert_eq!(change, Change::Changes(changes(&[(1, Some(3_000)), (2, None)])));
    assert_eq!(follower.list(behind).unwrap(), BTreeMap::from([(host(1), until(3_000))]));
}

#[test]
fn after_a_gap_the_follower_keeps_its_list_and_asks_for_a_snapshot() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    plane.commit(&changes(&[(1, Some(9_000))]));
    let second = plane.commit(&changes(&[(2, Some(9_000))]));

    let rejected = follower.receive(StreamEvent::Delta(second), even()).unwrap_err();

    assert_eq!(rejected, Rejected::Gap { from: Revision(7) });
    assert!(rejected.is_to_reconnect());
    assert_eq!(follower.list(even()).unwrap(), BTreeMap::new());
    assert_eq!(follower.follow(None), Follow { group: group(), have: None });

    let welcome = plane.welcome(follower.follow(None));
    follower.receive(welcome, even()).unwrap();
    assert_eq!(follower.list(even()).unwrap().len(), 2);
    assert!(follower.follow(None).have.is_some());
}

#[test]
fn a_delta_that_comes_twice_is_passed_over() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    let delta = plane.commit(&changes(&[(1, Some(9_000))]));
    follower.receive(StreamEvent::Delta(delta.clone()), even()).unwrap();

    let rejected = follower.receive(StreamEvent::Delta(delta), even()).unwrap_err();

    assert_eq!(rejected, Rejected::Duplicate(Revision(7)));
    assert!(!rejected.is_to_reconnect());
    assert!(follower.follow(None).have.is_some());
}

#[test]
fn a_restored_plane_is_found_out_and_followed_in_its_new_epoch() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    let delta = plane.commit(&changes(&[(1, Some(9_000))]));
    follower.receive(StreamEvent::Delta(delta), even()).unwrap();
    plane.restore();

    // Even one that has lost the thread, and so does not say what it has.
    let mut lost = follower.clone();
    lost.is_lost = true;
    let welcome = plane.welcome(lost.follow(None));
    let rejected = lost.receive(welcome, even()).unwrap_err();
    assert_eq!(rejected, Rejected::Older { theirs: Revision(5), ours: Revision(7) });

    let welcome = plane.welcome(lost.follow(None));
    assert_eq!(lost.receive(welcome, even()), Ok(Change::List(BTreeMap::new())));
    assert_eq!(lost.follow(None).have.unwrap().epoch, epoch(2));

    let delta = plane.commit(&changes(&[(2, Some(9_000))]));
    let rejected = follower.receive(StreamEvent::Delta(delta), even()).unwrap_err();
    assert_eq!(rejected, Rejected::ForeignEpoch { theirs: epoch(2) });
}

#[test]
fn messages_of_other_groups_and_of_withdrawal_are_told_apart() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    let other = GroupId::from_random([2; 16]);

    let foreign = StreamEvent::Withdrawn(Withdrawn { group: other });
    assert_eq!(follower.receive(foreign, even()), Err(Rejected::ForeignGroup(other)));
    assert!(follower.list(even()).is_some());

    let withdrawn = StreamEvent::Withdrawn(Withdrawn { group: group() });
    assert_eq!(follower.receive(withdrawn, even()), Ok(Change::Withdrawn));
    assert_eq!(follower.list(even()), None);
    assert_eq!(follower.save(at(0)), None);
}

#[test]
fn a_change_of_another_list_is_refused_even_where_the_outcome_would_add_up() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    let mut delta = plane.commit(&changes(&[(1, Some(9_000))]));
    delta.base = delta.digest;

    let rejected = follower.receive(StreamEvent::Delta(delta.clone()), even()).unwrap_err();

    assert_eq!(rejected, Rejected::Digest { theirs: delta.base });
}

#[test]
fn a_network_named_twice_is_refused() {
    let mut plane = Plane::new();
    let mut follower = follower_of(&mut plane);
    let mut delta = plane.commit(&changes(&[(1, Some(9_000))]));
    delta.remove.push(host(1));

    let rejected = follower.receive(StreamEvent::Delta(delta.clone()), even()).unwrap_err();

    assert_eq!(rejected, Rejected::Digest { theirs: delta.digest });
}

#[test]
fn without_a_trustworthy_clock_what_has_a_deadline_is_dropped() {
    let mut plane = Plane::new();
    plane.commit(&BTreeMap::from([(host(1), Some(until(9_000))), (host(2), Some(Expiry::Never))]));
    let saved = follower_of(&mut plane).save(at(1_500)).unwrap();

    let restored = Follower::restore(&saved, None, at(77)).unwrap();

    assert_eq!(restored.list, BTreeMap::from([(host(2), Expiry::Never)]));
    assert_eq!(restored.clock, None);
    assert_eq!(restored.follower.follow(None).have, None, "it needs the dropped entries again");
}

#[test]
fn a_saved_list_that_does_not_add_up_is_refused() {
    let mut plane = Plane::new();
    plane.commit(&changes(&[(1, Some(9_000)), (2, Some(9_000))]));
    let mut saved = follower_of(&mut plane).save(at(1_500)).unwrap();
    saved.entries.pop();

    let error = Follower::restore(&saved, Some(Duration::ZERO), at(77)).unwrap_err();

    assert_eq!(error, Rejected::Digest { theirs: saved.digest });
}

#[derive(Debug, Clone)]
enum Step {
    Commit(BTreeMap<Network, Option<Expiry>>),
    Deliver,
    Lose,
    Double,
    Swap,
    Truncate(u8),
    Replay(u8),
    Reconnect,
    Restore,
    SaveAndRestart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let expiry = prop_oneof![(0u64..20_000).prop_map(until), Just(Expiry::Never)];
    let change = (0u8..6).prop_map(host);
    let changes = prop::collection::btree_map(change, prop::option::of(expiry), 0..4);
    prop_oneof![
        6 => changes.prop_map(Step::Commit),
        6 => Just(Step::Deliver),
        1 => Just(Step::Lose),
        1 => Just(Step::Double),
        1 => Just(Step::Swap),
        1 => any::<u8>().prop_map(Step::Truncate),
        1 => any::<u8>().prop_map(Step::Replay),
        2 => Just(Step::Reconnect),
        1 => Just(Step::Restore),
        1 => Just(Step::SaveAndRestart),
    ]
}

/// Takes one entry out of a message, if it has any.
fn truncate(event: &mut StreamEvent, which: u8) {
    let pick = |len: usize| usize::from(which) % len;
    match event {
        StreamEvent::Delta(delta) if !delta.add.is_empty() => {
            delta.add.remove(pick(delta.add.len()));
        }
        StreamEvent::Delta(delta) if !delta.remove.is_empty() => {
            delta.remove.remove(pick(delta.remove.len()));
        }
        StreamEvent::Snapshot(snapshot) if !snapshot.entries.is_empty() => {
            snapshot.entries.remove(pick(snapshot.entries.len()));
        }
        StreamEvent::Delta(_)
        | StreamEvent::Snapshot(_)
        | StreamEvent::Same(_)
        | StreamEvent::Withdrawn(_) => {}
    }
}

proptest! {
    #[test]
    fn the_list_is_always_one_that_the_plane_had_and_at_last_its_newest(
        steps in prop::collection::vec((any_step(), 0u64..3_000), 0..60),
    ) {
        let mut plane = Plane::new();
        let mut follower = Follower::new(group());
        let mut mirror: BTreeMap<Network, Expiry> = BTreeMap::new();
        let mut wire: Vec<StreamEvent> = vec![plane.welcome(follower.follow(None))];

        for (step, wait) in steps.into_iter().chain([
            // What brings every follower up to date: to connect until nothing more is refused.
            (Step::Reconnect, 0), (Step::Deliver, 0), (Step::Reconnect, 0), (Step::Deliver, 0),
            (Step::Reconnect, 0), (Step::Deliver, 0), (Step::Reconnect, 0), (Step::Deliver, 0),
        ]) {
            plane.now += wait;
            match step {
                Step::Commit(changes) => wire.push(StreamEvent::Delta(plane.commit(&changes))),
                Step::Lose => drop(wire.pop()),
                Step::Double => wire.extend(wire.last().cloned()),
                Step::Swap => wire.reverse(),
                Step::Truncate(which) => wire.iter_mut().for_each(|event| truncate(event, which)),
                Step::Replay(which) if !plane.made.is_empty() => {
                    let old = &plane.made[usize::from(which) % plane.made.len()];
                    wire.insert(0, StreamEvent::Delta(old.clone()));
                }
                Step::Replay(_) => {}
                Step::Reconnect => wire = vec![plane.welcome(follower.follow(Some(at(plane.now))))],
                Step::Restore => {
                    plane.restore();
                    plane.made.clear();
                    wire.clear();
                }
                Step::SaveAndRestart => {
                    if let Some(saved) = follower.save(at(plane.now)) {
                        follower = Follower::restore(&saved, Some(Duration::ZERO), at(plane.now))
                            .unwrap()
                            .follower;
                        mirror = follower.list(even()).unwrap();
                    }
                }
                Step::Deliver if wire.is_empty() => {}
                Step::Deliver => {
                    let before = follower.list(even());
                    match follower.receive(wire.remove(0), even()) {
                        Ok(Change::List(list)) => mirror = list,
                        Ok(Change::Changes(changes)) => {
                            for (network, expiry) in changes {
                                mirror.remove(&network);
                                mirror.extend(expiry.map(|expiry| (network, expiry)));
                            }
                        }
                        Ok(Change::None) => {}
                        Ok(Change::Withdrawn) => prop_assert!(false, "nothing was withdrawn"),
                        Err(_) => prop_assert_eq!(follower.list(even()), before),
                    }
                }
            }

            let Some(position) = follower.position(Some(at(plane.now))) else { continue };
            let now = at(plane.now);
            let live = |list: &BTreeMap<Network, Expiry>| -> BTreeMap<Network, Expiry> {
                let is_live = |(_, expiry): &(&Network, &Expiry)| expiry.is_live_at(now);
                list.iter().filter(is_live).map(|(net, expiry)| (*net, *expiry)).collect()
            };
            let ours = live(&follower.list(even()).unwrap());
            let theirs = &plane.history[&(position.epoch, position.revision)];
            prop_assert!(theirs.iter().any(|list| list.live_at(now).collect::<BTreeMap<_, _>>() == ours));
            prop_assert_eq!(live(&mirror), ours);
        }

        let position = follower.position(None).unwrap();
        prop_assert_eq!((position.epoch, position.revision), (epoch(plane.epoch), plane.revision));
        prop_assert_eq!(position.digest, plane.list.digest_at(at(plane.now)));
    }

    #[test]
    fn no_deadline_is_later_than_the_planes_or_much_earlier(
        ahead in -2_000_000_000_000i64..2_000_000_000_000,
        deadline in 1u64..10_000_000,
        latencies in prop::collection::vec((0u64..3_000, 0u64..3_000), 1..10),
        drifts in prop::collection::vec(-1_000i64..1_000, 10),
    ) {
        const START: i64 = 4_000_000_000_000;
        let mut clock: Option<PlaneClock> = None;
        let mut ahead = ahead;
        let local = |ms: i64| at(u64::try_from(ms).unwrap());
        let deadline = START + i64::try_from(deadline).unwrap();

        for ((there, pause), drift) in latencies.into_iter().zip(drifts) {
            ahead += drift;
            let sent = START + i64::try_from(pause).unwrap();
            let as_of = local(sent + i64::try_from(there).unwrap() + ahead);
            let moved = match &mut clock {
                Some(clock) => clock.pair_again(as_of, local(sent)),
                None => {
                    clock = Some(PlaneClock::pair(as_of, local(sent)));
                    true
                }
            };
            let clock = clock.unwrap();
            let exact = deadline - ahead;
            let shown = clock.to_local(local(deadline)).unix_ms().cast_signed();

            let early = i64::try_from(there).unwrap();
            let held = if moved { 0 } else { 500 };
            prop_assert!(shown <= exact + held, "{} ms late", shown - exact);
            prop_assert!(exact - early - held <= shown, "{} ms early", exact - shown);
            prop_assert_eq!(clock.to_plane(clock.to_local(local(deadline))), local(deadline));
        }
    }

    #[test]
    fn no_restart_lengthens_a_deadline(
        deadlines in prop::collection::vec(1_000u64..60_000, 0..6),
        saved_at in 1_000u64..30_000, down in 0u64..40_000, ahead in -500i64..1_000_000,
    ) {
        let mut plane = Plane::new();
        let lasts = (0..).map(host);
        plane.commit(&lasts.clone().zip(deadlines.iter().map(|ms| Some(until(*ms)))).collect());
        let saved = follower_of(&mut plane).save(at(saved_at)).unwrap();
        let now = at(saved_at + down).saturating_add(Duration::from_millis(ahead.unsigned_abs()));

        let restored =
            Follower::restore(&saved, Some(Duration::from_millis(down)), now).unwrap();

        let left: BTreeMap<_, _> = lasts
            .zip(deadlines)
            .filter(|(_, deadline)| saved_at + down < *deadline)
            .map(|(network, deadline)| (network, deadline - saved_at - down))
            .collect();
        let shown = restored.list.iter().map(|(network, expiry)| {
            (*network, u64::try_from(expiry.left_at(now).unwrap().as_millis()).unwrap())
        });
        prop_assert_eq!(shown.collect::<BTreeMap<_, _>>(), left);
        prop_assert_eq!(now.since(restored.heard), Duration::from_millis(down));
    }
}
