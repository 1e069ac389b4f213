//! `/groups/{id}/ips`: what a group allows, its versions, and holding back.

use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use postern_controlplane::domain::{Command, MemberKind};
use postern_shared::ids::{GroupId, KeyId, OrgId};
use postern_shared::scope::Scope;
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, pause, timeout};
use tower::ServiceExt as _;

use crate::world::{NewPair, OFFICE, World, unplugged, within};

#[tokio::test]
async fn a_list_is_told_in_the_forms_that_scripts_want() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    world.network(org, group, "203.0.113.0/24").await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, "2001:db8::7").await;
    let caller = world.holder(&key, OFFICE);
    let text = async |query: &str| {
        let answer = caller.get(&format!("/api/v1/groups/1/ips{query}")).await;
        assert_eq!(answer.status(), 200, "{query}");
        within(answer.text()).await.unwrap()
    };

    let ips = caller.data(&format!("/api/v1/groups/{group}/ips")).await;
    assert_eq!(ips["ips"], json!(["203.0.113.0/24", "2001:db8::7"]));
    assert_eq!(ips["entries"][0]["sources"][0]["name"], "office");
    assert_eq!(ips["entries"][1]["sources"][0]["id"], pair.id.to_string());
    assert_eq!(ips["entries"][1]["expires_at"], "2026-01-01T01:00:00Z");
    assert_eq!(text("?format=text").await, "203.0.113.0/24\n2001:db8::7\n");
    assert_eq!(text("?format=text&family=4").await, "203.0.113.0/24\n");
    assert_eq!(text("?format=text&family=6").await, "2001:db8::7\n");
    for query in ["?format=yaml", "?family=5", "?famly=4"] {
        let answer = caller.get(&format!("/api/v1/groups/1/ips{query}")).await;
        assert_eq!(answer.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_version_changes_with_the_list_and_with_expiry_and_with_nothing_else() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let caller = world.holder(&key, OFFICE);
    let path = format!("/api/v1/groups/{group}/ips");
    let version = async || {
        let answer = caller.get(&path).await;
        answer.headers()["etag"].to_str().unwrap().to_owned()
    };

    let empty = version().await;
    world.report(&pair, OFFICE).await;
    let open = version().await;
    assert_ne!(empty, open);
    world.clock.advance(Duration::from_secs(3_599));
    assert_eq!(version().await, open, "the time of the answer is no part of its version");
    let known = caller.request(Method::GET, &path).header("if-none-match", &open);
    assert_eq!(within(known.send()).await.unwrap().status(), 304);
    world.clock.advance(Duration::from_secs(1));
    let closed = version().await;
    assert_ne!(closed, open, "an expiry is a change");
    let known = caller.request(Method::GET, &path).header("if-none-match", &open);
    let answer = within(known.send()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let body: Value = within(answer.json()).await.unwrap();
    assert_eq!(body["data"]["ips"], json!([]));
}

/// A poll that is held back, since its list is the one that the client knows.
struct Held {
    world: World,
    org: OrgId,
    group: GroupId,
    pair: NewPair,
    key: KeyId,
    since: Instant,
}

/// Holds a poll back, lets `meanwhile` happen, and returns the answer with the time it took.
async fn held<F: Future<Output = ()>>(
    meanwhile: impl FnOnce(Held) -> F,
) -> (Response<Body>, Duration) {
    let world = World::start();
    let org = world.org("acme").await;
    let (key, token) = world.key_with(org, &[Scope::GroupsRead], &[OFFICE], Expiry::Never).await;
    let group = world.group(org).await;
    let pair = world.pair(org, 10).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, OFFICE).await;
    let path = format!("/api/v1/groups/{group}/ips");
    let router = world.router.clone();
    let first = router.clone().oneshot(unplugged(&path, &token, OFFICE)).await.unwrap();
    let mut request = unplugged(&path, &token, OFFICE);
    request.headers_mut().insert("if-none-match", first.headers()["etag"].clone());
    request.headers_mut().insert("prefer", "wait=30".parse().unwrap());
    let since = Instant::now();
    let mut answer = std::pin::pin!(router.oneshot(request));
    let early = timeout(Duration::from_millis(1), answer.as_mut()).await;
    assert!(early.is_err(), "nothing has changed yet");

    meanwhile(Held { world, org, group, pair, key, since }).await;

    let answer = answer.await.unwrap();
    assert_eq!(answer.headers().contains_key("preference-applied"), answer.status() != 401);
    (answer, since.elapsed())
}

#[tokio::test]
async fn a_held_poll_ends_at_once_when_the_list_changes() {
    let (answer, took) = held(async |held: Held| {
        held.world.network(held.org, held.group, "203.0.113.0/24").await;
    })
    .await;

    assert_eq!(answer.status(), 200);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_held_poll_ends_when_an_entry_expires() {
    let (answer, took) = held(async |held: Held| {
        assert!(held.world.engine.state().pair(held.pair.id).unwrap().is_live());
        pause();
        held.world.clock.advance(Duration::from_secs(10));
    })
    .await;

    assert_eq!(answer.status(), 200);
    assert!((10..11).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_held_poll_ends_unchanged_after_its_wait() {
    let (answer, took) = held(async |held: Held| {
        assert_eq!(held.since.elapsed().as_secs(), 0);
        pause();
    })
    .await;

    assert_eq!(answer.status(), 304);
    assert_eq!(answer.headers()["preference-applied"], "wait=30");
    assert!((30..31).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_held_poll_of_a_revoked_key_ends_with_nothing() {
    let (answer, took) = held(async |held: Held| {
        held.world.order(Command::RevokeKey { org: held.org, key: held.key }).await;
        // Even a change after the loss is not told.
        held.world.network(held.org, held.group, "203.0.113.0/24").await;
    })
    .await;

    assert_eq!(answer.status(), 401);
    assert!(took < Duration::from_secs(1), "{took:?}");
}
