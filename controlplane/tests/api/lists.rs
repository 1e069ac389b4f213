//! `/groups/{id}/ips`: what a group allows, its versions, and holding back.

use std::time::Duration;

use postern_controlplane::domain::MemberKind;
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{OFFICE, World, within};

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
