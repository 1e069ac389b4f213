use std::collections::{BTreeSet, VecDeque};
use std::sync::Mutex;

use bytes::Bytes;
use postern_shared::ids::GroupId;
use postern_shared::policy::LocalPolicy;
use postern_shared::position::Follow;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::{AgentSelf, BeaconAnswer, Confirmation, Receipts, Withdrawn};
use tokio::task::JoinHandle;

use super::*;
use crate::client::Polled;
use crate::clock::test::TokioClock;
use crate::status::ListState;
use crate::testing::{FakeList, clock, group, host, hour, until};

/// A control plane in memory, for tests: does what its script says, and notes what it was asked.
#[derive(Debug)]
struct FakePlane {
    clock: Arc<TokioClock>,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    /// What the next streams do; where there is none, a stream is silent for ever.
    streams: VecDeque<Vec<Step>>,
    /// How the next requests for a stream are refused; `None` lets one through.
    refusals: VecDeque<Option<(u16, &'static str, Option<u64>)>>,
    list: Option<FakeList>,
    etag: u64,
    /// How the next reports of the own address fail.
    beacon_failures: usize,
    beacons: Vec<Timestamp>,
    follows: Vec<(Timestamp, Vec<Follow>)>,
    polls: Vec<(Timestamp, Option<String>)>,
    reconnects: usize,
}

/// What a stream does next.
#[derive(Debug, Clone)]
enum Step {
    Bytes(Vec<u8>),
    /// The list's snapshot as of then.
    Snapshot(FakeList),
    Wait(Duration),
    End,
    Silence,
}

struct FakeEvents {
    clock: Arc<TokioClock>,
    steps: VecDeque<Step>,
}

impl Events for FakeEvents {
    async fn chunk(&mut self) -> Result<Option<Bytes>, PlaneError> {
        loop {
            match self.steps.pop_front().unwrap_or(Step::Silence) {
                Step::Bytes(bytes) => return Ok(Some(bytes.into())),
                Step::Snapshot(list) => {
                    let text = list.snapshot(self.clock.now()).to_sse().unwrap();
                    return Ok(Some(text.into()));
                }
                Step::Wait(span) => tokio::time::sleep(span).await,
                Step::End => return Ok(None),
                Step::Silence => std::future::pending().await,
            }
        }
    }
}

fn refused(status: u16, kind: &str, retry_after: Option<u64>) -> PlaneError {
    PlaneError::Refused {
        status,
        kind: kind.to_owned(),
        detail: None,
        retry_after: retry_after.map(Duration::from_secs),
    }
}

impl Plane for FakePlane {
    type Events = FakeEvents;

    async fn beacon(&self) -> Result<BeaconAnswer, PlaneError> {
        let mut script = self.script.lock().unwrap();
        script.beacons.push(self.clock.now());
        if 0 < script.beacon_failures {
            script.beacon_failures -= 1;
            return Err(refused(503, "unavailable", None));
        }
        Ok(BeaconAnswer {
            ipv4: Some([192, 0, 2, 1].into()),
            ipv6: None,
            moved: false,
            expires_at: hour(),
            next: 300,
            visit: "v".to_owned(),
            confirmation: Confirmation::default(),
        })
    }

    async fn introduce(&self, _update: &AgentUpdate) -> Result<AgentSelf, PlaneError> {
        let agent = postern_shared::ids::AgentId::from_random([1; 16]);
        let known = AgentGroup { id: group(1), number: 7, name: "ops".to_owned() };
        Ok(AgentSelf { agent, name: "web-1".to_owned(), groups: vec![known] })
    }

    async fn stream(&self, follow: &[Follow]) -> Result<FakeEvents, PlaneError> {
        let mut script = self.script.lock().unwrap();
        script.follows.push((self.clock.now(), follow.to_vec()));
        if let Some(Some((status, kind, retry_after))) = script.refusals.pop_front() {
            return Err(refused(status, kind, retry_after));
        }
        let steps = script.streams.pop_front().unwrap_or_default();
        Ok(FakeEvents { clock: Arc::clone(&self.clock), steps: steps.into() })
    }

    async fn poll(&self, _group: GroupId, etag: Option<&str>) -> Result<Polled, PlaneError> {
        let mut script = self.script.lock().unwrap();
        script.polls.push((self.clock.now(), etag.map(str::to_owned)));
        let Some(list) = script.list.clone() else { return Err(refused(404, "not_found", None)) };
        let newest = script.etag.to_string();
        if etag == Some(newest.as_str()) {
            return Ok(Polled::Unchanged);
        }
        let StreamEvent::Snapshot(snapshot) = list.snapshot(self.clock.now()) else {
            unreachable!("a snapshot was asked for")
        };
        Ok(Polled::List { snapshot: Box::new(snapshot), etag: Some(newest) })
    }

    async fn report(&self, _receipts: &Receipts) -> Result<(), PlaneError> {
        Ok(())
    }

    fn reconnect(&self) {
        self.script.lock().unwrap().reconnects += 1;
    }
}

/// A source that follows the fake, with one group.
struct Stage {
    clock: Arc<TokioClock>,
    plane: Arc<FakePlane>,
    lists: Arc<Lists>,
    board: Arc<Board>,
    beacon_wanted: Arc<Notify>,
    groups: watch::Receiver<Vec<AgentGroup>>,
    _task: JoinHandle<()>,
}

impl Stage {
    fn new(script: Script) -> Stage {
        let clock = clock();
        let now = clock.now();
        let plane = Arc::new(FakePlane { clock: Arc::clone(&clock), script: Mutex::new(script) });
        let followed = BTreeSet::from([group(1)]);
        let lists = Arc::new(Lists::new(&followed, LocalPolicy::default(), now));
        let board = Arc::new(Board::new("https://plane.example".to_owned(), now));
        let beacon_wanted = Arc::new(Notify::new());
        let (sender, groups) = watch::channel(Vec::new());
        let source = Source {
            plane: Arc::clone(&plane),
            lists: Arc::clone(&lists),
            clock: Arc::clone(&clock),
            chance: || u64::MAX,
            board: Arc::clone(&board),
            outbox: Arc::default(),
            beacon_wanted: Arc::clone(&beacon_wanted),
            update: AgentUpdate {
                host: "web-1".to_owned(),
                version: "0".to_owned(),
                targets: Vec::new(),
            },
            groups: sender,
        };
        let _task = tokio::spawn(source.follow());
        Stage { clock, plane, lists, board, beacon_wanted, groups, _task }
    }

    fn script<T>(&self, ask: impl FnOnce(&mut Script) -> T) -> T {
        ask(&mut self.plane.script.lock().unwrap())
    }

    fn streams(&self) -> usize {
        self.script(|script| script.follows.len())
    }

    fn entries(&self) -> usize {
        self.lists.standings(&[group(1)], self.clock.now())[&group(1)].entries
    }

    fn list(&self) -> ListState {
        self.lists.standings(&[group(1)], self.clock.now())[&group(1)].list
    }

    fn is_holding(&self) -> bool {
        0 < self.lists.standings(&[group(1)], self.clock.now())[&group(1)].held_count
    }

    fn elapsed(&self, since: Timestamp) -> u64 {
        self.clock.now().since(since).as_secs()
    }
}

fn comment() -> Step {
    Step::Bytes(b":\n\n".to_vec())
}

fn list() -> FakeList {
    FakeList::new(group(1)).with_hosts(0..10)
}

fn sse(event: &StreamEvent) -> Step {
    Step::Bytes(event.to_sse().unwrap().into_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_connection_begins_with_the_own_address_and_learns_the_groups() {
    let mut stage = Stage::new(Script::default());

    until("a stream is asked for", || stage.streams() == 1).await;

    assert_eq!(stage.script(|script| script.beacons.len()), 1);
    assert_eq!(stage.groups.borrow_and_update()[0].name, "ops");
    assert_eq!(stage.board.read().plane.ipv4, Some([192, 0, 2, 1].into()));
    let follow = stage.script(|script| script.follows[0].1.clone());
    assert_eq!(follow, [Follow { group: group(1), have: None }]);
}

#[tokio::test(start_paused = true)]
async fn an_event_cut_into_pieces_is_taken_whole() {
    let StreamEvent::Snapshot(snapshot) = list().snapshot(clock().now()) else { unreachable!() };
    let text = StreamEvent::Snapshot(snapshot).to_sse().unwrap();
    let pieces = text.as_bytes().chunks(7).map(|piece| Step::Bytes(piece.to_vec())).collect();

    let stage = Stage::new(Script { streams: [pieces].into(), ..Script::default() });
    until("the list is there", || stage.entries() == 10).await;

    assert_eq!(stage.streams(), 1);
    assert_eq!(stage.board.read().plane.link, Link::Stream);
}

#[tokio::test(start_paused = true)]
async fn forty_seconds_of_silence_end_a_stream_and_comments_keep_it() {
    let wait = Step::Wait(Duration::from_secs(39));
    let steps = vec![Step::Snapshot(list()), wait.clone(), comment(), wait, comment()];
    let stage = Stage::new(Script { streams: [steps].into(), ..Script::default() });
    let began = stage.clock.now();

    until("there is a second stream", || stage.streams() == 2).await;

    let took = stage.elapsed(began);
    assert!((118..=120).contains(&took), "{took} s");
    assert_eq!(stage.script(|script| script.reconnects), 1, "on a dead connection it stays dead");
    let have = stage.script(|script| script.follows[1].1[0].have);
    assert_eq!(have.map(|have| have.revision), Some(list().revision));
    assert_eq!(stage.entries(), 10, "what is in force stays so");
}

#[tokio::test(start_paused = true)]
async fn a_comment_says_that_the_lists_are_still_the_ones_meant() {
    let comments = (0..100).flat_map(|_| [Step::Wait(Duration::from_secs(30)), comment()]);
    let steps = std::iter::once(Step::Snapshot(list())).chain(comments).collect();
    let stage = Stage::new(Script { streams: [steps].into(), ..Script::default() });
    until("the list is there", || stage.entries() == 10).await;
    tokio::time::sleep(Duration::from_secs(1_000)).await;

    // Leases count from when the plane was last heard: here, shorter ones than the stream is long.
    let ttl_max = postern_shared::time::Ttl::from_secs(600).unwrap();
    let policy = LocalPolicy { ttl_max, ..LocalPolicy::default() };
    stage.lists.reconfigure(&BTreeSet::from([group(1)]), policy, stage.clock.now());

    assert_eq!(stage.entries(), 10);
}

#[tokio::test(start_paused = true)]
async fn whatever_does_not_fit_asks_for_a_snapshot_and_changes_nothing() {
    let now = clock().now();
    let mut gapped = list();
    drop(gapped.change(&[(host(50), Expiry::At(hour()))], &[], now));
    let gap = gapped.change(&[(host(51), Expiry::At(hour()))], &[], now);
    let mut wrong = list();
    let StreamEvent::Delta(mut delta) = wrong.change(&[(host(50), Expiry::At(hour()))], &[], now)
    else {
        unreachable!()
    };
    delta.add.push(postern_shared::wire::v1::Entry { cidr: host(66), expires_at: Expiry::Never });
    for bad in [sse(&gap), sse(&StreamEvent::Delta(delta))] {
        let steps = vec![Step::Snapshot(list()), bad];
        let stage = Stage::new(Script { streams: [steps].into(), ..Script::default() });

        until("there is a second stream", || stage.streams() == 2).await;

        let have = stage.script(|script| script.follows[1].1[0].have);
        assert_eq!(have, None, "it asks for a snapshot");
        assert_eq!(stage.entries(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_of_ours_ends_the_stream_or_is_passed_over() {
    for (bytes, is_end) in [
        (b"event: delta\ndata: {\"group\":1}\n\n".to_vec(), true),
        (b"event: delta\ndata: \xff\n\n".to_vec(), true),
        (b"event: later-version\ndata: {}\n\n".to_vec(), false),
        (b"<html>busy</html>\n\n".to_vec(), false),
    ] {
        let steps = vec![Step::Snapshot(list()), Step::Bytes(bytes.clone())];
        let stage = Stage::new(Script { streams: [steps].into(), ..Script::default() });

        until("the list is there", || stage.entries() == 10).await;
        tokio::time::sleep(Duration::from_secs(20)).await;

        assert_eq!(stage.streams() == 2, is_end, "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(stage.entries(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_do_not_get_through_give_way_to_polling_and_are_tried_again() {
    let script = Script { list: Some(list()), ..Script::default() };
    let stage = Stage::new(script);
    let began = stage.clock.now();

    until("lists are polled", || stage.board.read().plane.link == Link::Polling).await;
    let took = stage.elapsed(began);
    assert!((40..=44).contains(&took), "two streams of 20 s and the back-off: {took} s");
    until("the list is there", || stage.entries() == 10).await;

    let mut list = list();
    drop(list.change(&[(host(99), Expiry::At(hour()))], &[], stage.clock.now()));
    stage.script(|script| (script.list, script.etag) = (Some(list.clone()), 1));
    until("the change is there", || stage.entries() == 11).await;
    let polls = stage.script(|script| script.polls.len());
    tokio::time::sleep(Duration::from_secs(100)).await;
    let further = stage.script(|script| script.polls.len()) - polls;
    assert!((8..=25).contains(&further), "{further} polls in 100 s of nothing new");

    stage.script(|script| script.streams.push_back(vec![Step::Snapshot(list)]));
    until("the stream is back", || stage.board.read().plane.link == Link::Stream).await;
    assert!((600..700).contains(&stage.elapsed(began)));
}

#[tokio::test(start_paused = true)]
async fn a_polled_list_that_is_held_is_confirmed_by_a_newer_one_only() {
    let stage = Stage::new(Script { list: Some(list()), ..Script::default() });
    until("the list is there", || stage.entries() == 10).await;
    let mut shrunk = FakeList::new(group(1)).with_hosts(0..2);
    shrunk.revision = postern_shared::position::Revision(2);

    stage.script(|script| (script.list, script.etag) = (Some(shrunk.clone()), 1));
    until("it is held", || stage.is_holding()).await;
    // The same list under another name, as after a restart of the plane.
    stage.script(|script| script.etag = 2);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(stage.entries(), 10);

    shrunk.revision = postern_shared::position::Revision(3);
    stage.script(|script| (script.list, script.etag) = (Some(shrunk), 3));
    until("a newer list confirms it", || stage.entries() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_taken_away_closes_by_stream_and_by_polling() {
    let withdrawn = StreamEvent::Withdrawn(Withdrawn { group: group(1) });
    let steps = vec![Step::Snapshot(list()), Step::Wait(Duration::from_secs(1)), sse(&withdrawn)];
    let by_stream = Stage::new(Script { streams: [steps].into(), ..Script::default() });
    until("the list is there", || by_stream.entries() == 10).await;
    until("it is withdrawn", || by_stream.list() == ListState::Withdrawn).await;
    assert_eq!(by_stream.entries(), 0);

    let by_polling = Stage::new(Script { list: Some(list()), ..Script::default() });
    until("the list is there", || by_polling.entries() == 10).await;
    by_polling.script(|script| script.list = None);
    until("it is withdrawn", || by_polling.list() == ListState::Withdrawn).await;
    assert_eq!(by_polling.entries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_waited_out_and_an_unknown_address_is_reported() {
    let refusals = [Some((429, "rate_limited", Some(90))), Some((403, "forbidden_origin", None))];
    let streams = [vec![Step::Snapshot(list())]].into();
    let stage = Stage::new(Script { refusals: refusals.into(), streams, ..Script::default() });
    let began = stage.clock.now();

    until("the list is there", || stage.entries() == 10).await;

    let times: Vec<u64> = stage
        .script(|script| script.follows.iter().map(|(at, _)| at.since(began).as_secs()).collect());
    assert_eq!(times, [0, 91, 93], "what was asked for, and the jitter on top");
    let beacons = stage.script(|script| script.beacons.len());
    assert_eq!(beacons, 3, "each connection begins with the own address");
}

#[tokio::test(start_paused = true)]
async fn the_own_address_is_reported_again_in_time_and_on_demand() {
    let steps = (0..100).flat_map(|_| [comment(), Step::Wait(Duration::from_secs(15))]).collect();
    let stage = Stage::new(Script { streams: [steps].into(), ..Script::default() });
    let began = stage.clock.now();
    tokio::time::sleep(Duration::from_secs(650)).await;

    let times = stage.script(|script| script.beacons.clone());
    let times: Vec<u64> = times.iter().map(|at| at.since(began).as_secs()).collect();
    assert_eq!(times, [0, 300, 600]);

    stage.script(|script| script.beacon_failures = 2);
    stage.beacon_wanted.notify_one();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.script(|script| script.beacons.len()), 6, "on demand, and until it works");
    assert_eq!(stage.board.read().plane.beacon_error, None);
    assert_eq!(stage.streams(), 1, "the stream is none the worse");
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_ends_every_stream_is_not_hammered() {
    let streams = (0..1_000).map(|_| vec![comment(), Step::End]).collect();
    let stage = Stage::new(Script { streams, ..Script::default() });

    tokio::time::sleep(Duration::from_secs(3_600)).await;

    let tries = stage.streams();
    assert!((55..=70).contains(&tries), "{tries} tries in an hour");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_old_delta_moves_no_deadline() {
    let mut changed = list();
    let old = changed.change(&[(host(50), Expiry::At(hour()))], &[], clock().now());
    let outage = Some((503, "unavailable", Some(1_800)));
    let mut back = vec![sse(&old)];
    for _ in 0..100 {
        back.extend([Step::Wait(Duration::from_secs(30)), comment()]);
    }
    let stage = Stage::new(Script {
        streams: [vec![Step::Snapshot(list()), Step::End], back].into(),
        refusals: [None, outage].into(),
        ..Script::default()
    });
    let began = stage.clock.now();
    tokio::time::sleep(Duration::from_secs(3_590)).await;
    assert_eq!((stage.entries(), stage.script(|script| script.streams.len())), (11, 0));

    until("all have expired", || stage.entries() == 0).await;

    let took = stage.elapsed(began);
    assert!((3_599..=3_601).contains(&took), "{took} s");
}
