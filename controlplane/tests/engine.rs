//! The single writer: what is acknowledged is durable, in order, and told to followers.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use postern_controlplane::chance::{Chance, SeededChance};
use postern_controlplane::clock::{Clock, ManualClock};
use postern_controlplane::domain::Order as Asked;
use postern_controlplane::domain::{
    Actor, Command, Group, Member, MemberKind, Org, Pair, Rejection, Role, User, Visit,
};
use postern_controlplane::engine::{Engine, Refused, Stopped};
use postern_controlplane::store::{
    Committed, Item, Limits, MemoryStore, Options, Purpose, Reader, Record, RedbStore, Scan, Sink,
    Store, StoreError, Watch, WatchError,
};
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::{Epoch, GroupId, MemberId, OrgId, PairId, UserId};
use postern_shared::position::{Position, Revision};
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::token::TokenKind;
use postern_shared::wire::v1::StreamEvent;

const BOUND: Duration = Duration::from_secs(20);

fn start_time() -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000).unwrap()
}

/// An engine with one org in it.
struct Plane {
    engine: Engine,
    clock: Arc<ManualClock>,
    thread: std::thread::JoinHandle<()>,
    org: OrgId,
}

impl Plane {
    fn on(store: Box<dyn Store>, seed: u64) -> Plane {
        let clock = Arc::new(ManualClock::at(start_time()));
        let chance: Arc<dyn Chance> = Arc::new(SeededChance::new(seed));
        let (engine, thread) =
            Engine::start(store, Arc::clone(&clock) as Arc<dyn Clock>, chance).unwrap();
        let first = engine.state().orgs().next().map(|org| org.record.id);
        let org = first.unwrap_or_else(|| OrgId::from_random(engine.chance().id()));
        Plane { engine, clock, thread, org }
    }

    async fn with_org(store: Box<dyn Store>) -> Plane {
        let plane = Plane::on(store, 1);
        let org = Org {
            id: plane.org,
            name: "org".parse().unwrap(),
            created_at: plane.engine.now(),
            pairs_numbered: 0,
            groups_numbered: 0,
        };
        let admin = User {
            id: UserId::from_random(plane.engine.chance().id()),
            org: org.id,
            email: "admin@example.org".parse().unwrap(),
            role: Role::Admin,
            created_at: plane.engine.now(),
        };
        plane.ask(Command::CreateOrg { org, admin }).await.unwrap();
        plane
    }

    async fn ask(&self, command: Command) -> Result<Revision, Refused> {
        let order = Asked { actor: Actor::Operator, source: None, command };
        self.engine.submit(order).await.map(|done| done.revision)
    }

    fn pair(&self) -> Pair {
        let chance = self.engine.chance();
        Pair {
            id: PairId::from_random(chance.id()),
            org: self.org,
            number: 0,
            name: "laptop".parse().unwrap(),
            contact_email: None,
            ttl: Ttl::DEFAULT,
            bookmark: chance.token(TokenKind::Bookmark).hash(),
            server_key: chance.token(TokenKind::Server).hash(),
            reports_by_get: false,
            created_at: self.engine.now(),
            deleted_at: None,
        }
    }

    fn group(&self) -> Group {
        Group {
            id: GroupId::from_random(self.engine.chance().id()),
            org: self.org,
            number: 0,
            name: "ops".parse().unwrap(),
            ttl: None,
            created_at: self.engine.now(),
        }
    }

    fn member(&self, group: GroupId, kind: MemberKind) -> Command {
        Command::AddMember(Member {
            id: MemberId::from_random(self.engine.chance().id()),
            org: self.org,
            group,
            kind,
            expires: Expiry::Never,
            added_at: self.engine.now(),
        })
    }

    /// A group with a pair in it.
    async fn furnished(&self) -> (GroupId, PairId) {
        let (group, pair) = (self.group(), self.pair());
        let ids = (group.id, pair.id);
        self.ask(Command::CreateGroup(group)).await.unwrap();
        self.ask(Command::CreatePair(pair)).await.unwrap();
        self.ask(self.member(ids.0, MemberKind::Pair(ids.1))).await.unwrap();
        ids
    }

    fn report(&self, pair: PairId, address: &str) -> Command {
        let visit = Visit { id: self.engine.chance().number(), began: self.engine.now() };
        let state = self.engine.state();
        let bookmark = state.pair(pair).unwrap().record.bookmark;
        Command::Report { pair, bookmark, address: address.parse().unwrap(), visit }
    }

    fn listed(&self, group: GroupId) -> Allowlist {
        self.engine.state().group(group).unwrap().list.live_at(self.engine.now()).collect()
    }

    async fn end(self) {
        self.engine.stop().await;
        tokio::task::spawn_blocking(move || self.thread.join().unwrap()).await.unwrap();
    }
}

fn memory() -> Box<dyn Store> {
    Box::new(MemoryStore::new(Epoch::from_random([1; 16])))
}

fn redb_at(path: &Path) -> Box<dyn Store> {
    let options = Options::default;
    let made = RedbStore::create(path, Epoch::from_random([1; 16]), options());
    Box::new(made.or_else(|_| RedbStore::open(path, options())).unwrap())
}

#[tokio::test]
async fn orders_that_conflict_are_each_decided_on_what_the_other_left() {
    let plane = Plane::with_org(memory()).await;

    let orders = (0..200).map(|_| plane.ask(Command::CreatePair(plane.pair())));
    let done = join_all(orders).await;

    assert!(done.iter().all(Result::is_ok));
    let state = plane.engine.state();
    let numbers: Vec<u64> = state.org(plane.org).unwrap().pairs.keys().copied().collect();
    assert_eq!(numbers, (1..=200).collect::<Vec<u64>>());
}

#[tokio::test]
async fn orders_that_do_not_conflict_share_commits() {
    let plane = Plane::with_org(memory()).await;
    let pairs: Vec<Pair> = (0..50).map(|_| plane.pair()).collect();
    let ids: Vec<PairId> = pairs.iter().map(|pair| pair.id).collect();
    join_all(pairs.into_iter().map(|pair| plane.ask(Command::CreatePair(pair)))).await;

    let reports = ids.iter().map(|pair| plane.ask(plane.report(*pair, "203.0.113.9")));
    let revisions: BTreeSet<Revision> =
        join_all(reports).await.into_iter().map(Result::unwrap).collect();

    assert!(revisions.len() < 50, "{} commits for 50 reports", revisions.len());
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let plane = Plane::with_org(redb_at(&path)).await;
    let (group, pair) = plane.furnished().await;
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    let office = MemberKind::Network {
        network: "198.51.100.0/24".parse().unwrap(),
        note: "office".parse().unwrap(),
    };
    plane.ask(plane.member(group, office)).await.unwrap();
    let before = plane.listed(group);
    plane.end().await;

    let plane = Plane::on(redb_at(&path), 2);

    assert_eq!(before.len(), 2);
    assert_eq!(plane.listed(group), before);
    let number = plane.engine.state().pair(pair).unwrap().record.number;
    assert_eq!(number, 1);
    plane.end().await;
}

#[tokio::test]
async fn a_refused_order_changes_nothing_and_the_next_one_is_taken() {
    let plane = Plane::with_org(memory()).await;
    let (group, pair) = plane.furnished().await;

    let twice = plane.ask(plane.member(group, MemberKind::Pair(pair))).await;

    assert!(matches!(twice, Err(Refused::Rejected(Rejection::Conflict(_)))), "{twice:?}");
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    assert_eq!(plane.listed(group).len(), 1);
}

/// Follows a group by what the feed sends, and by nothing else.
struct Follower {
    group: GroupId,
    list: Allowlist,
    have: Option<(Epoch, Revision)>,
    names: Vec<&'static str>,
}

impl Follower {
    fn of(group: GroupId) -> Follower {
        Follower { group, list: Allowlist::new(), have: None, names: Vec::new() }
    }

    fn catch_up(&mut self, engine: &Engine) {
        let state = engine.state();
        let now = engine.now();
        let caught = engine.feed().catch_up(&state, engine.epoch(), self.group, self.have, now);
        for text in &caught.events {
            self.take(std::str::from_utf8(text).unwrap());
        }
        self.have = caught.position;
    }

    fn take(&mut self, text: &str) {
        let (name, data) = text.trim_end().split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap();
        let event = StreamEvent::from_sse(name, data.strip_prefix("data: ").unwrap());
        let (digest, as_of) = match event.unwrap().unwrap() {
            StreamEvent::Snapshot(snapshot) => {
                let entries = snapshot.entries.iter();
                self.list = entries.map(|entry| (entry.cidr, entry.expires_at)).collect();
                self.names.push("snapshot");
                (snapshot.digest, snapshot.as_of)
            }
            StreamEvent::Delta(delta) => {
                assert_eq!(self.list.digest_at(delta.as_of), delta.base);
                for entry in &delta.add {
                    self.list.set(entry.cidr, entry.expires_at);
                }
                for network in &delta.remove {
                    self.list.remove(*network).unwrap();
                }
                self.names.push("delta");
                (delta.digest, delta.as_of)
            }
            StreamEvent::Same(same) => {
                self.names.push("same");
                (same.digest, same.as_of)
            }
            StreamEvent::Withdrawn(_) => {
                self.list = Allowlist::new();
                self.names.push("withdrawn");
                return;
            }
        };
        assert_eq!(self.list.digest_at(as_of), digest);
    }
}

#[tokio::test]
async fn a_follower_is_led_on_by_deltas_and_ends_with_the_list() {
    let plane = Plane::with_org(memory()).await;
    let (group, pair) = plane.furnished().await;
    let mut moved = plane.engine.feed().subscribe(&plane.engine.state(), group).unwrap();
    let mut follower = Follower::of(group);
    follower.catch_up(&plane.engine);

    for last in 1..=5 {
        plane.ask(plane.report(pair, &format!("203.0.113.{last}"))).await.unwrap();
        tokio::time::timeout(BOUND, moved.changed()).await.unwrap().unwrap();
        follower.catch_up(&plane.engine);
    }
    follower.catch_up(&plane.engine);

    let wanted = ["snapshot", "delta", "delta", "delta", "delta", "delta", "same"];
    assert_eq!(follower.names, wanted);
    assert_eq!(follower.list, plane.listed(group));
}

#[tokio::test]
async fn a_follower_that_fell_far_behind_gets_the_whole_list() {
    let plane = Plane::with_org(memory()).await;
    let (group, pair) = plane.furnished().await;
    let _moved = plane.engine.feed().subscribe(&plane.engine.state(), group).unwrap();
    let mut follower = Follower::of(group);
    follower.catch_up(&plane.engine);

    for last in 1..=100 {
        plane.ask(plane.report(pair, &format!("203.0.113.{last}"))).await.unwrap();
    }
    follower.catch_up(&plane.engine);

    assert_eq!(follower.names, ["snapshot", "snapshot"]);
    assert_eq!(follower.list, plane.listed(group));
}

#[tokio::test]
async fn expiry_is_no_message() {
    let plane = Plane::with_org(memory()).await;
    let (group, pair) = plane.furnished().await;
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    let moved = plane.engine.feed().subscribe(&plane.engine.state(), group).unwrap();
    let mut follower = Follower::of(group);
    follower.catch_up(&plane.engine);

    plane.clock.advance(Ttl::DEFAULT.as_duration());
    follower.catch_up(&plane.engine);

    assert_eq!(follower.names, ["snapshot", "same"]);
    assert!(!moved.has_changed().unwrap());
    assert_eq!(plane.listed(group).len(), 0);
}

#[tokio::test]
async fn a_restored_store_begins_a_new_epoch_and_its_followers_begin_anew() {
    let plane = Plane::with_org(memory()).await;
    let (group, _) = plane.furnished().await;
    let mut follower = Follower::of(group);
    follower.catch_up(&plane.engine);
    let (epoch, revision) = follower.have.unwrap();
    let ahead = Position {
        epoch,
        revision: Revision(revision.0 + 1_000),
        digest: follower.list.digest_at(start_time()),
    };

    assert!(postern_controlplane::feed::is_ahead(ahead, plane.engine.epoch(), revision));
    plane.engine.replace_epoch(epoch).await;
    plane.engine.replace_epoch(epoch).await;
    follower.catch_up(&plane.engine);

    assert_ne!(plane.engine.epoch(), epoch);
    assert_eq!(follower.names, ["snapshot", "snapshot"]);
}

#[tokio::test]
async fn a_new_epoch_wakes_whoever_follows() {
    let plane = Plane::with_org(memory()).await;
    let (group, pair) = plane.furnished().await;
    let mut moved = plane.engine.feed().subscribe(&plane.engine.state(), group).unwrap();
    let mut follower = Follower::of(group);
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    follower.catch_up(&plane.engine);
    moved.mark_unchanged();

    plane.engine.replace_epoch(plane.engine.epoch()).await;

    tokio::time::timeout(BOUND, moved.changed()).await.unwrap().unwrap();
    follower.catch_up(&plane.engine);
    plane.ask(plane.report(pair, "203.0.113.10")).await.unwrap();
    follower.catch_up(&plane.engine);
    assert_eq!(follower.names, ["snapshot", "snapshot", "delta"]);
    assert_eq!(follower.list, plane.listed(group));
}

#[tokio::test]
async fn the_writer_stops_though_orders_in_conflict_are_waiting() {
    let plane = Plane::with_org(memory()).await;
    let orders: Vec<_> = (0..20).map(|_| plane.ask(Command::CreatePair(plane.pair()))).collect();
    let all = join_all(orders);
    let (done, ()) = tokio::join!(all, plane.engine.stop());

    let mut stopped = plane.engine.watch_stopped();
    let why = tokio::time::timeout(BOUND, stopped.wait_for(Option::is_some)).await;

    assert_eq!(*why.unwrap().unwrap(), Some(Stopped::Asked));
    let durable = plane.engine.state().org(plane.org).unwrap().pairs.len();
    assert_eq!(durable, done.iter().filter(|done| done.is_ok()).count());
    assert_eq!(durable, 20, "orders that were taken before the end are carried out");
}

#[tokio::test]
async fn a_crowd_of_one_org_delays_no_other() {
    let plane = Plane::with_org(memory()).await;
    let (_, pair) = plane.furnished().await;
    let crowd = join_all((0..300).map(|_| plane.ask(Command::CreatePair(plane.pair()))));

    let reported = plane.ask(plane.report(pair, "203.0.113.9"));
    let (crowd, reported) = tokio::join!(crowd, reported);

    let last = crowd.into_iter().map(Result::unwrap).max().unwrap();
    let reported = reported.unwrap();
    assert!(reported.0 + 100 < last.0, "the report waited: {reported} of {last}");
}

#[tokio::test]
async fn a_group_that_is_deleted_takes_its_members_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let plane = Plane::with_org(redb_at(&path)).await;
    let (group, pair) = plane.furnished().await;
    let mut moved = plane.engine.feed().subscribe(&plane.engine.state(), group).unwrap();
    let mut follower = Follower::of(group);
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    follower.catch_up(&plane.engine);
    moved.mark_unchanged();

    plane.ask(Command::DeleteGroup { org: plane.org, group, expected: None }).await.unwrap();
    follower.catch_up(&plane.engine);

    assert!(moved.changed().await.is_err(), "the channel of a group that is gone ends");
    assert_eq!(follower.names, ["snapshot", "withdrawn"]);
    assert!(plane.engine.state().pair(pair).unwrap().memberships.is_empty());
    plane.ask(plane.report(pair, "203.0.113.10")).await.unwrap();
    plane.end().await;
    let plane = Plane::on(redb_at(&path), 2);
    assert!(plane.engine.state().pair(pair).unwrap().memberships.is_empty());
    plane.end().await;
    let mut members = 0;
    let count = &mut |record: Record| {
        members += usize::from(record.key.table == postern_controlplane::store::Table::Members);
        Ok(())
    };
    redb_at(&path).load(count).unwrap();
    assert_eq!(members, 0, "the stored members of a group that is gone are cleaned up");
}

/// A memory store on a disk that a test can fill or break.
struct Troubled {
    store: MemoryStore,
    is_full: Arc<AtomicBool>,
    is_broken: Arc<AtomicBool>,
}

impl Store for Troubled {
    fn epoch(&self) -> Epoch {
        self.store.epoch()
    }

    fn replace_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.store.replace_epoch(epoch)
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }

    fn high_water(&self) -> Timestamp {
        self.store.high_water()
    }

    fn limits(&self) -> Limits {
        self.store.limits()
    }

    fn load(&self, sink: &mut Sink<'_>) -> Result<Revision, StoreError> {
        self.store.load(sink)
    }

    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, StoreError> {
        self.store.scan(scan)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.store.reader()
    }

    fn commit(
        &mut self,
        items: &[Item],
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        if self.is_broken.load(Ordering::SeqCst) {
            let source = std::io::Error::other("input/output error").into();
            return Err(StoreError::Fatal { step: "commit", source });
        }
        if purpose == Purpose::Ordinary {
            self.check_room()?;
        }
        self.store.commit(items, purpose, now)
    }

    fn watch(&self, after: Revision) -> Result<Watch, WatchError> {
        self.store.watch(after)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(StoreError::DiskReserve { free_bytes: 0, min_bytes: 1 }),
            false => Ok(()),
        }
    }
}

async fn troubled() -> (Plane, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (is_full, is_broken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let store = Troubled {
        store: MemoryStore::new(Epoch::from_random([1; 16])),
        is_full: Arc::clone(&is_full),
        is_broken: Arc::clone(&is_broken),
    };
    (Plane::with_org(Box::new(store)).await, is_full, is_broken)
}

#[tokio::test]
async fn on_a_full_disk_doors_can_still_be_closed() {
    let (plane, is_full, _) = troubled().await;
    let (group, pair) = plane.furnished().await;
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    is_full.store(true, Ordering::SeqCst);

    let opened = plane.ask(plane.report(pair, "203.0.113.10")).await;
    let closing = Command::DeletePair { org: plane.org, pair, expected: None };
    let closed = plane.ask(closing).await;

    assert!(matches!(opened, Err(Refused::DiskFull)), "{opened:?}");
    closed.unwrap();
    assert_eq!(plane.listed(group).len(), 0);
    is_full.store(false, Ordering::SeqCst);
    plane.ask(Command::CreatePair(plane.pair())).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_ends_the_writer_and_acknowledges_nothing() {
    let (plane, _, is_broken) = troubled().await;
    let (group, pair) = plane.furnished().await;
    is_broken.store(true, Ordering::SeqCst);

    let refused = plane.ask(plane.report(pair, "203.0.113.9")).await;

    assert!(matches!(refused, Err(Refused::Stopped)), "{refused:?}");
    let mut stopped = plane.engine.watch_stopped();
    let why = tokio::time::timeout(BOUND, stopped.wait_for(Option::is_some)).await;
    assert_eq!(*why.unwrap().unwrap(), Some(Stopped::StoreFailed));
    assert_eq!(plane.listed(group).len(), 0);
    let again = plane.ask(plane.report(pair, "203.0.113.9")).await;
    assert!(matches!(again, Err(Refused::Stopped)), "{again:?}");
}

#[tokio::test]
async fn only_a_writer_that_works_passes_by() {
    let plane = Plane::with_org(memory()).await;

    plane.engine.pass().await.unwrap();
    plane.engine.stop().await;
    plane.thread.join().unwrap();

    assert!(matches!(plane.engine.pass().await, Err(Refused::Stopped)));
}

#[tokio::test]
async fn losing_rights_is_told_to_whoever_holds_a_connection() {
    let plane = Plane::with_org(memory()).await;
    let (_, pair) = plane.furnished().await;
    let mut access = plane.engine.watch_access();
    access.mark_unchanged();
    plane.ask(plane.report(pair, "203.0.113.9")).await.unwrap();
    assert!(!access.has_changed().unwrap(), "nothing is locked to this pair");

    let key = postern_controlplane::domain::Key {
        id: postern_shared::ids::KeyId::from_random(plane.engine.chance().id()),
        org: plane.org,
        name: "ci".parse().unwrap(),
        hash: plane.engine.chance().token(TokenKind::Key).hash(),
        scopes: postern_shared::scope::ScopeSet::ALL,
        origins: vec![postern_controlplane::domain::Origin::Pair(pair)],
        created_at: plane.engine.now(),
        expires: Expiry::Never,
        revoked_at: None,
    };
    plane.ask(Command::MintKey(key.clone())).await.unwrap();
    access.mark_unchanged();

    let moved: IpAddr = "203.0.113.10".parse().unwrap();
    plane.ask(plane.report(pair, &moved.to_string())).await.unwrap();
    assert!(access.has_changed().unwrap(), "a key is locked to this pair");
    access.mark_unchanged();
    plane.ask(Command::RevokeKey { org: plane.org, key: key.id }).await.unwrap();
    assert!(access.has_changed().unwrap());
}
