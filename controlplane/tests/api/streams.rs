//! `/stream`: what leads a follower on, and when it is cut off.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use futures_util::StreamExt as _;
use postern_controlplane::app::Settings;
use postern_controlplane::domain::{Command, MemberKind, PairEdit};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::position::{Position, Revision};
use postern_shared::scope::Scope;
use postern_shared::time::{Expiry, Ttl};
use postern_shared::token::TokenKind;
use postern_shared::wire::v1::{Snapshot, StreamEvent};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::agents::{Agent, HOST, enrol};
use crate::world::{
    Events, NewPair, OFFICE, Said, World, problem, settings, start_time, unplugged, within,
};

/// An org with a group, a pair in it, and an agent that follows it from [`HOST`].
struct Followed {
    world: World,
    org: OrgId,
    group: GroupId,
    pair: NewPair,
    agent: Agent,
}

async fn followed() -> Followed {
    followed_on(World::start()).await
}

async fn followed_on(world: World) -> Followed {
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let invitation = world.invite(org, &[group]).await;
    let agent = enrol(&world, &invitation).await;
    beacon(&world, &agent, HOST).await;
    Followed { world, org, group, pair, agent }
}

async fn beacon(world: &World, agent: &Agent, address: &str) {
    let path = format!("/b/{}", agent.bookmark.expose());
    assert_eq!(world.at(address).send(Method::POST, &path).await.status(), 200);
}

impl Followed {
    async fn open(&self, follow: &[String]) -> Events {
        self.world.holder(&self.agent.token, HOST).stream(follow).await
    }

    /// A stream that has had its snapshot.
    async fn opened(&self) -> (Events, Snapshot) {
        let mut events = self.open(&[self.group.to_string()]).await;
        let StreamEvent::Snapshot(snapshot) = events.event().await else { panic!() };
        (events, snapshot)
    }
}

fn at(snapshot: &Snapshot) -> String {
    let Snapshot { group, epoch, revision, digest, .. } = snapshot;
    format!("{group}@{}", Position { epoch: *epoch, revision: *revision, digest: *digest })
}

#[tokio::test]
async fn a_follower_is_told_what_it_lacks() {
    let plane = followed().await;
    plane.world.report(&plane.pair, OFFICE).await;
    let (mut events, snapshot) = plane.opened().await;
    assert_eq!(snapshot.entries.len(), 1);

    let mut same = plane.open(&[at(&snapshot)]).await;
    let StreamEvent::Same(told) = same.event().await else { panic!() };
    assert_eq!((told.revision, told.digest), (snapshot.revision, snapshot.digest));

    plane.world.report(&plane.pair, "198.51.100.8").await;
    for events in [&mut events, &mut same] {
        let StreamEvent::Delta(delta) = events.event().await else { panic!() };
        assert_eq!((delta.from, delta.base), (snapshot.revision, snapshot.digest));
        assert_eq!((delta.add.len(), delta.remove.len()), (1, 1));
    }
    let mut late = plane.open(&[at(&snapshot)]).await;
    let StreamEvent::Delta(_) = late.event().await else { panic!("one step is a delta") };

    let elsewhere = at(&Snapshot { epoch: postern_shared::ids::Epoch::FIRST, ..snapshot });
    let mut stranger = plane.open(&[elsewhere]).await;
    let StreamEvent::Snapshot(_) = stranger.event().await else { panic!("another epoch") };
}

#[tokio::test]
async fn a_restored_plane_takes_a_new_epoch_and_at_most_one_a_minute() {
    let plane = followed().await;
    let (_, snapshot) = plane.opened().await;
    let old = snapshot.epoch;
    let ahead = Snapshot { revision: Revision(snapshot.revision.0 + 1_000), ..snapshot };

    let mut events = plane.open(&[at(&ahead)]).await;
    let StreamEvent::Snapshot(fresh) = events.event().await else { panic!() };
    assert_ne!(fresh.epoch, old);
    assert_eq!(plane.world.engine.epoch(), fresh.epoch);

    let liar = Snapshot { revision: Revision(fresh.revision.0 + 1_000), ..fresh.clone() };
    plane.open(&[at(&liar)]).await.event().await;
    assert_eq!(plane.world.engine.epoch(), fresh.epoch, "a follower cannot keep it spinning");
    plane.world.clock.advance(Duration::from_secs(60));
    plane.open(&[at(&liar)]).await.event().await;
    assert_ne!(plane.world.engine.epoch(), fresh.epoch);
}

#[tokio::test]
async fn groups_of_others_are_withdrawn_like_groups_that_never_were() {
    let plane = followed().await;
    let other = plane.world.group(plane.org).await;
    let foreign_org = plane.world.org("theirs").await;
    let foreign = plane.world.group(foreign_org).await;
    let never = GroupId::from_random([9; 16]);

    let follow = [other, foreign, never].map(|group| group.to_string());
    let mut events = plane.open(&follow).await;
    let mut withdrawn = BTreeSet::new();
    for _ in 0..3 {
        let StreamEvent::Withdrawn(gone) = events.event().await else { panic!() };
        withdrawn.insert(gone.group);
    }
    assert_eq!(withdrawn, [other, foreign, never].into_iter().collect());

    let key = plane.world.key(plane.org).await;
    let mut events_of_key =
        plane.world.holder(&key, OFFICE).stream(&[foreign.to_string(), never.to_string()]).await;
    for _ in 0..2 {
        let StreamEvent::Withdrawn(_) = events_of_key.event().await else { panic!() };
    }

    // And they stay silent: what happens there is not for this follower.
    plane.world.network(foreign_org, foreign, "203.0.113.0/24").await;
    plane.world.network(plane.org, other, "203.0.113.0/24").await;
    let command = Command::RevokeAgent { org: plane.org, agent: plane.agent.answer.agent };
    plane.world.order(command).await;
    assert_eq!(events.next().await, Said::End);
}

#[tokio::test]
async fn losing_a_group_withdraws_it_and_leaves_the_others() {
    let plane = followed().await;
    let second = plane.world.group(plane.org).await;
    let agent = plane.agent.answer.agent;
    let give = |groups: &[GroupId]| Command::SetAgentGroups {
        org: plane.org,
        agent,
        groups: groups.iter().copied().collect(),
        expected: None,
    };
    plane.world.order(give(&[plane.group, second])).await;
    let mut events = plane.open(&[plane.group.to_string(), second.to_string()]).await;
    events.event().await;
    events.event().await;

    plane.world.order(give(&[plane.group])).await;
    let StreamEvent::Withdrawn(gone) = events.event().await else { panic!() };
    assert_eq!(gone.group, second);
    plane.world.network(plane.org, second, "203.0.113.0/24").await;
    plane.world.network(plane.org, plane.group, "203.0.113.0/24").await;
    let StreamEvent::Delta(delta) = events.event().await else { panic!() };
    assert_eq!(delta.group, plane.group);
}

#[tokio::test]
async fn groups_that_are_deleted_are_withdrawn() {
    // Many, since the end of a group's feed and the loss of the right come one after the other,
    // and whichever is seen first must be told.
    const GROUPS: usize = 40;
    let plane = followed().await;
    let key = plane.world.key(plane.org).await;
    let mut groups = Vec::new();
    for _ in 0..GROUPS {
        groups.push(plane.world.group(plane.org).await);
    }
    let follow: Vec<String> = groups.iter().map(GroupId::to_string).collect();
    let mut events = plane.world.holder(&key, OFFICE).stream(&follow).await;
    for _ in 0..GROUPS {
        events.event().await;
    }

    for group in groups {
        plane.world.order(Command::DeleteGroup { org: plane.org, group, expected: None }).await;
        let StreamEvent::Withdrawn(gone) = events.event().await else { panic!() };
        assert_eq!(gone.group, group);
    }
}

#[tokio::test]
async fn whoever_loses_the_right_is_cut_off_within_a_second() {
    let revoke_agent = async |plane: &Followed| {
        let command = Command::RevokeAgent { org: plane.org, agent: plane.agent.answer.agent };
        plane.world.order(command).await;
    };
    let move_away =
        async |plane: &Followed| beacon(&plane.world, &plane.agent, "203.0.113.51").await;

    let plane = followed().await;
    let (mut events, _) = plane.opened().await;
    revoke_agent(&plane).await;
    let since = Instant::now();
    assert_eq!(events.next().await, Said::End);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());

    let plane = followed().await;
    let (mut events, _) = plane.opened().await;
    move_away(&plane).await;
    let since = Instant::now();
    assert_eq!(events.next().await, Said::End, "the credential works only from where the pair is");
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());

    let plane = followed().await;
    let (id, key) =
        plane.world.key_with(plane.org, &[Scope::GroupsRead], &[OFFICE], Expiry::Never).await;
    let mut events = plane.world.holder(&key, OFFICE).stream(&[plane.group.to_string()]).await;
    events.event().await;
    plane.world.order(Command::RevokeKey { org: plane.org, key: id }).await;
    let since = Instant::now();
    assert_eq!(events.next().await, Said::End);
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_locked_key_follows_its_bookmark_and_is_cut_off_when_that_moves() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let (pair, key) = world.locked_key(org).await;
    let status = async |address: &str| {
        world.holder(&key, address).get("/api/v1/groups").await.status().as_u16()
    };
    let follow = async |address: &str| {
        let mut events = world.holder(&key, address).stream(&[group.to_string()]).await;
        events.event().await;
        events
    };
    let ends_at_once = async |events: &mut Events| {
        let since = Instant::now();
        assert_eq!(events.next().await, Said::End);
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    };
    let refused = world.holder(&key, HOST).get("/api/v1/groups").await;
    assert_eq!(problem(refused).await["type"], "forbidden_origin", "it never reported");

    // Its bookmark reports from anywhere: the lock cannot lock itself out.
    world.report(&pair, HOST).await;
    assert_eq!((status(HOST).await, status(OFFICE).await), (200, 403));
    let mut events = follow(HOST).await;
    world.report(&pair, OFFICE).await;
    ends_at_once(&mut events).await;
    assert_eq!((status(HOST).await, status(OFFICE).await), (403, 200));

    let mut events = follow(OFFICE).await;
    let hash = world.engine.chance().token(TokenKind::Bookmark).hash();
    world.order(Command::RotateBookmark { org, pair: pair.id, hash, expected: None }).await;
    ends_at_once(&mut events).await;
    assert_eq!(status(OFFICE).await, 403);

    let (pair, key) = world.locked_key(org).await;
    world.report(&pair, OFFICE).await;
    let mut events = world.holder(&key, OFFICE).stream(&[group.to_string()]).await;
    events.event().await;
    world.order(Command::DeletePair { org, pair: pair.id, expected: None }).await;
    ends_at_once(&mut events).await;
    assert_eq!(world.holder(&key, OFFICE).get("/api/v1/groups").await.status(), 403);
}

#[tokio::test]
async fn a_locked_key_is_worth_nothing_a_day_after_the_last_report() {
    let world = World::start();
    let org = world.org("acme").await;
    let (pair, key) = world.locked_key(org).await;
    let status = async || world.holder(&key, HOST).get("/api/v1/pairs").await.status().as_u16();
    world.report(&pair, HOST).await;

    world.clock.advance(Duration::from_secs(24 * 60 * 60 - 1));
    assert_eq!(status().await, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(status().await, 403);
    world.report(&pair, HOST).await;
    assert_eq!(status().await, 200);
}

#[tokio::test]
async fn a_stream_ends_by_itself_when_its_right_does() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let (pair, locked) = world.locked_key(org).await;
    let edit = PairEdit { ttl: Ttl::from_secs(3_600).ok(), ..PairEdit::default() };
    world.order(Command::EditPair { org, pair: pair.id, edit, expected: None }).await;
    world.report(&pair, HOST).await;
    let ends = world.engine.now().saturating_add(Duration::from_secs(100));
    let (_, ending) = world.key_with(org, &[Scope::GroupsRead], &[HOST], Expiry::At(ends)).await;
    tokio::time::pause();

    for (key, ends) in [(&ending, 100), (&locked, 3_600)] {
        let ends = start_time().saturating_add(Duration::from_secs(ends));
        let right = ends.since(world.engine.now());
        let path = format!("/api/v1/stream?group={group}");
        let answer = world.router.clone().oneshot(unplugged(&path, key, HOST)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let (since, clock) = (Instant::now(), Arc::clone(&world.clock));
        let ticking = tokio::spawn(async move {
            const TICK: Duration = Duration::from_millis(500);
            let mut ticks = tokio::time::interval(TICK);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                clock.advance(TICK);
            }
        });
        let mut body = answer.into_body().into_data_stream();
        while let Some(bytes) = body.next().await {
            bytes.unwrap();
        }
        let lasted = since.elapsed();
        ticking.abort();
        assert!(lasted < right + Duration::from_secs(1), "{lasted:?}");
        assert!(right <= lasted + Duration::from_secs(1), "{lasted:?}");
    }
}

#[tokio::test]
async fn an_origin_that_went_stale_is_told_nothing_more() {
    let plane = followed().await;
    let (mut events, _) = plane.opened().await;

    // Staleness is no event: the next thing to be told finds it.
    plane.world.clock.advance(Duration::from_secs(24 * 60 * 60));
    plane.world.network(plane.org, plane.group, "203.0.113.0/24").await;

    assert_eq!(events.next().await, Said::End);
}

#[tokio::test]
async fn streams_of_one_credential_are_bounded_and_given_back() {
    let plane = followed().await;
    let host = plane.world.holder(&plane.agent.token, HOST);
    let path = format!("/api/v1/stream?group={}", plane.group);
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(plane.opened().await);
    }

    let refused = host.get(&path).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "15");
    assert_eq!(problem(refused).await["type"], "too_many_at_once");
    drop(open);
    within(async {
        while host.get(&path).await.status() != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn queries_that_cannot_be_read_are_refused() {
    let plane = followed().await;
    let host = plane.world.holder(&plane.agent.token, HOST);
    let group = plane.group;

    let many: String = (0..257u16)
        .map(|index| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&index.to_be_bytes());
            format!("&group={}", GroupId::from_random(bytes))
        })
        .collect();
    for query in [
        String::new(),
        "?group=".into(),
        "?group=ssh".into(),
        "?group=18446744073709551616".into(),
        format!("?groups={group}"),
        format!("?group={group}&group={group}"),
        format!("?group={group}@1.2.3"),
        format!("?{}", &many[1..]),
    ] {
        let answer = host.get(&format!("/api/v1/stream{query}")).await;
        assert_eq!(answer.status(), 400, "{query:.60}");
        assert_eq!(problem(answer).await["type"], "bad_request");
    }
}

#[tokio::test]
async fn groups_are_followed_by_their_numbers_too() {
    let plane = followed().await;
    let group = plane.world.engine.state().group(plane.group).unwrap().record.clone();
    let hidden = plane.world.group(plane.org).await;
    let hidden = plane.world.engine.state().group(hidden).unwrap().record.number;

    let mut events = plane.open(&[group.number.to_string()]).await;
    let StreamEvent::Snapshot(snapshot) = events.event().await else { panic!() };
    assert_eq!(snapshot.group, group.id);
    let by_number = at(&snapshot).replace(&group.id.to_string(), &group.number.to_string());
    let StreamEvent::Same(_) = plane.open(&[by_number]).await.event().await else { panic!() };

    let host = plane.world.holder(&plane.agent.token, HOST);
    for (asked, told) in [
        (hidden.to_string(), format!("you can read no group {hidden}")),
        ("99".to_owned(), "you can read no group 99".to_owned()),
        (format!("{}&group={}", group.number, group.id), "twice".to_owned()),
        (format!("{}@1.2", group.number), "`epoch.revision.digest`".to_owned()),
        ("ssh".to_owned(), "a group's id, or its number".to_owned()),
    ] {
        let refused = problem(host.get(&format!("/api/v1/stream?group={asked}")).await).await;
        assert_eq!(refused["type"], "bad_request");
        assert!(refused["detail"].as_str().unwrap().contains(&told), "{told}: {refused}");
    }
}

/// A stream of which the first list was read, and since when time passes only while all wait for it.
async fn in_still_time(plane: &Followed) -> BodyDataStream {
    let path = format!("/api/v1/stream?group={}", plane.group);
    let request = unplugged(&path, &plane.agent.token, HOST);
    let response = plane.world.router.clone().oneshot(request).await.unwrap();
    let mut stream = response.into_body().into_data_stream();
    stream.next().await.unwrap().unwrap();
    tokio::time::pause();
    stream
}

#[tokio::test]
async fn silence_is_broken_every_15_seconds_and_a_stream_ends_within_two_hours() {
    let plane = followed().await;
    let mut stream = in_still_time(&plane).await;
    let opened = Instant::now();

    let mut comments = 0_u32;
    while let Some(bytes) = stream.next().await {
        assert_eq!(bytes.unwrap(), ":\n\n");
        comments += 1;
    }

    let age = opened.elapsed();
    assert_eq!(u64::from(comments), age.as_secs() / 15);
    assert!((3_600..=7_200).contains(&age.as_secs()), "{age:?}");
}

#[tokio::test]
async fn changes_that_tell_a_follower_nothing_break_no_silence() {
    let plane = followed().await;
    let elsewhere = plane.world.org("globex").await;
    let mut stream = in_still_time(&plane).await;

    let (opened, mut comments) = (Instant::now(), 0);
    for round in 1..=13 {
        let until = opened + Duration::from_secs(10 * round);
        while let Ok(bytes) = tokio::time::timeout_at(until, stream.next()).await {
            assert_eq!(bytes.unwrap().unwrap(), ":\n\n");
            comments += 1;
        }
        // As long as work blocks a thread, time stands still.
        let (done, blocked) = std::sync::mpsc::channel::<()>();
        let still = tokio::task::spawn_blocking(move || blocked.recv());
        plane.world.key(elsewhere).await;
        drop(done);
        still.await.unwrap().unwrap_err();
    }

    assert_eq!(comments, 8, "one every 15 seconds in 130");
}

#[tokio::test]
async fn a_plane_that_stops_ends_its_streams() {
    let plane = followed().await;
    let (mut events, _) = plane.opened().await;

    plane.world.engine.stop().await;

    assert_eq!(events.next().await, Said::End);
}

#[tokio::test]
async fn a_server_that_stops_ends_its_streams() {
    let plane = followed().await;
    let (mut events, _) = plane.opened().await;

    plane.world.stop();

    assert_eq!(events.next().await, Said::End);
}

#[tokio::test]
async fn receipts_that_say_no_are_recorded_once() {
    let plane = followed().await;
    let host = plane.world.holder(&plane.agent.token, HOST);
    let (_, snapshot) = plane.opened().await;
    let send = async |target: &str, state: &str| {
        let receipt = json!({ "receipts": [{ "target": target, "group": plane.group,
            "epoch": snapshot.epoch, "revision": snapshot.revision, "digest": snapshot.digest,
            "state": state, "entries": 0, "detail": "no room" }] });
        let path = "/api/v1/agents/self/receipts";
        host.json(Method::POST, path, &receipt).await.status().as_u16()
    };
    // A commit of its own shows how many there were before it.
    let commits = async || {
        plane.world.group(plane.org).await;
        plane.world.engine.state().org(plane.org).unwrap().revision.0
    };

    assert_eq!(send("fw", "failed").await, 409, "who has not said what it is, is told to");
    let update = json!({ "host": "web-1", "version": "1", "targets": [
        { "name": "fw", "kind": "nftables", "groups": [plane.group] }] });
    host.json(Method::PUT, "/api/v1/agents/self", &update).await;
    assert_eq!(send("\u{1b}[2J", "applied").await, 422);
    let mut records = Vec::new();
    for state in ["failed", "failed", "applied", "failed"] {
        let (first, second) = (commits().await, commits().await);
        assert_eq!(send("fw", state).await, 204);
        records.push(second - first < commits().await - second);
    }
    assert_eq!(records, [true, false, false, true]);
    assert!(host.get("/api/v1/account").await.status() == 403, "an agent is no key");
}

#[tokio::test]
async fn a_receipt_for_a_list_that_is_yet_to_come_is_not_believed() {
    let plane = followed().await;
    let host = plane.world.holder(&plane.agent.token, HOST);
    let (_, snapshot) = plane.opened().await;
    let update = json!({ "host": "web-1", "version": "1", "targets": [
        { "name": "fw", "kind": "nftables", "groups": [plane.group] }] });
    host.json(Method::PUT, "/api/v1/agents/self", &update).await;
    let noted = async |revision: u64| {
        let receipt = json!({ "receipts": [{ "target": "fw", "group": plane.group,
            "epoch": snapshot.epoch, "revision": revision, "digest": snapshot.digest,
            "state": "applied", "entries": 0 }] });
        let answer = host.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
        assert_eq!(answer.status(), 204);
        let board = plane.world.engine.board();
        board.agent(plane.agent.answer.agent).unwrap().receipts.len()
    };

    assert_eq!(noted(snapshot.revision.0 + 1).await, 0);
    assert_eq!(noted(snapshot.revision.0).await, 1);
}

#[tokio::test]
async fn an_agent_that_flaps_fills_no_disk_and_is_still_heard() {
    let writes = Budget::per_minute(NonZeroU32::new(2).unwrap());
    let rates = RateLimits { writes, ..RateLimits::DEFAULT };
    let plane = followed_on(World::with(Settings { rates, ..settings() })).await;
    let host = plane.world.holder(&plane.agent.token, HOST);
    let (_, snapshot) = plane.opened().await;
    let names = ["a", "b", "c", "d"];
    let target = |name| json!({ "name": name, "kind": "nftables", "groups": [plane.group] });
    let targets: Vec<Value> = names.into_iter().map(target).collect();
    let update = json!({ "host": "web-1", "version": "1", "targets": targets });
    host.json(Method::PUT, "/api/v1/agents/self", &update).await;
    let commits = async || {
        plane.world.group(plane.org).await;
        plane.world.engine.state().org(plane.org).unwrap().revision.0
    };

    let mut records = Vec::new();
    for name in names {
        let receipt = json!({ "receipts": [{ "target": name, "group": plane.group,
            "epoch": snapshot.epoch, "revision": snapshot.revision, "digest": snapshot.digest,
            "state": "failed", "entries": 0 }] });
        let (first, second) = (commits().await, commits().await);
        let noted = host.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
        assert_eq!(noted.status(), 204);
        records.push(second - first < commits().await - second);
    }

    assert_eq!(records, [true, true, false, false]);
    let board = plane.world.engine.board();
    assert_eq!(board.agent(plane.agent.answer.agent).unwrap().receipts.len(), 4);
}

#[tokio::test]
async fn a_follower_that_comes_back_is_told_what_time_it_is() {
    let plane = followed().await;
    plane.world.report(&plane.pair, OFFICE).await;
    let (_events, snapshot) = plane.opened().await;
    plane.world.report(&plane.pair, "198.51.100.8").await;
    plane.world.clock.advance(Duration::from_secs(1_800));

    let mut back = plane.open(&[at(&snapshot)]).await;

    // The delta has the time at which it happened: no clock can be held to that.
    let StreamEvent::Delta(delta) = back.event().await else { panic!() };
    let StreamEvent::Same(same) = back.event().await else { panic!() };
    let now = plane.world.engine.now();
    assert!(delta.as_of < now);
    assert_eq!((same.revision, same.as_of), (delta.revision, now));
}
