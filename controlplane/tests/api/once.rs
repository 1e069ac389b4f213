//! Requests that come again: carried out once, answered each time.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::agents::HOST;
use crate::world::{Caller, OFFICE, World, generous, problem, within};

async fn named(caller: &Caller<'_>, name: &str, path: &str, body: &Value) -> Response {
    let request = caller.request(Method::POST, path).header("idempotency-key", name);
    within(request.json(body).send()).await.unwrap()
}

/// Status, place, version and content of an answer.
async fn told(answer: Response) -> (u16, Vec<String>, Value) {
    let status = answer.status().as_u16();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let headers = vec![header("location"), header("etag")];
    let mut body: Value = within(answer.json()).await.unwrap();
    (status, headers, body["data"].take())
}

#[tokio::test]
async fn a_request_that_comes_again_is_answered_again_and_not_carried_out_again() {
    let world = World::start();
    let org = world.org("acme").await;
    let (key, other) = (world.key(org).await, world.key(org).await);
    let (caller, colleague) = (world.holder(&key, OFFICE), world.holder(&other, OFFICE));
    let body = json!({ "name": "ops-vps-1" });
    let pairs = async || world.engine.state().org(org).unwrap().pairs_live;

    let first = told(named(&caller, "\"one\"", "/api/v1/pairs", &body).await).await;
    assert_eq!(first.0, 201);
    // What has happened to the pair since is no part of the answer.
    let renamed = caller.json(Method::PATCH, "/api/v1/pairs/1", &json!({ "name": "x" })).await;
    assert_eq!(renamed.status(), 200);
    let again = told(named(&caller, "one", "/api/v1/pairs", &body).await).await;
    assert_eq!(first, again, "with its secrets, which are told to nobody else");
    assert_eq!(pairs().await, 1);

    for (path, body) in
        [("/api/v1/pairs", json!({ "name": "other" })), ("/api/v1/groups", body.clone())]
    {
        let refused = named(&caller, "one", path, &body).await;
        assert_eq!(refused.status(), 422, "{path}");
        assert_eq!(problem(refused).await["type"], "idempotency_key_reused");
    }
    let theirs = told(named(&colleague, "one", "/api/v1/pairs", &body).await).await;
    assert_ne!(theirs.2["id"], first.2["id"], "names are each caller's own");
    assert_eq!(pairs().await, 2);

    world.clock.advance(Duration::from_secs(24 * 60 * 60));
    let anew = told(named(&caller, "one", "/api/v1/pairs", &body).await).await;
    assert_ne!(anew.2["id"], first.2["id"], "after a day a name is free again");
}

#[tokio::test]
async fn every_request_that_makes_something_can_have_a_name() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    world.group(org).await;
    world.pair(org, 3_600).await;
    let caller = world.holder(&key, OFFICE);
    let requests = [
        ("/api/v1/pairs", json!({ "name": "a" })),
        ("/api/v1/groups", json!({ "name": "a" })),
        ("/api/v1/groups/1/members", json!({ "cidr": "203.0.113.0/24", "note": "a" })),
        ("/api/v1/groups/1/members", json!({ "pair_id": 1 })),
        ("/api/v1/pairs/1/bookmark", Value::Null),
        ("/api/v1/pairs/1/server_key", Value::Null),
    ];

    for (count, (path, body)) in requests.iter().enumerate() {
        let name = format!("request-{count}");
        let mut data = Vec::new();
        for _ in 0..2 {
            let answer = named(&caller, &name, path, body).await;
            assert!(answer.status().is_success(), "{path} {body}");
            let etag = answer.headers()["etag"].clone();
            let mut body: Value = within(answer.json()).await.unwrap();
            data.push((etag, body["data"].take()));
        }
        assert_eq!(data[0], data[1], "{path}");
    }
}

#[tokio::test]
async fn what_was_refused_may_come_again_as_it_is() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    let body = json!({ "cidr": "203.0.113.0/24", "note": "office" });
    let path = "/api/v1/groups/1/members";

    assert_eq!(named(&caller, "one", path, &body).await.status(), 404);
    world.group(org).await;
    assert_eq!(named(&caller, "one", path, &body).await.status(), 201);
    for name in ["", "a b", "\"", "a\"b", &"x".repeat(256)] {
        let refused = named(&caller, name, path, &body).await;
        assert_eq!(refused.status(), 400, "{name:?}");
    }
}

#[tokio::test]
async fn of_requests_at_once_one_is_carried_out() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    let body = json!({ "name": "ops-vps-1" });
    let all = (0..1_000).map(|_| named(&caller, "one", "/api/v1/pairs", &body));

    let answers = futures_util::future::join_all(all).await;

    let mut made = BTreeSet::new();
    for answer in answers {
        match answer.status().as_u16() {
            201 => made.insert(told(answer).await.2["id"].to_string()),
            409 => {
                assert!(answer.headers().contains_key("retry-after"));
                assert_eq!(problem(answer).await["type"], "idempotency_key_in_use");
                false
            }
            other => panic!("{other}"),
        };
    }
    assert_eq!(made.len(), 1);
    assert_eq!(world.engine.state().org(org).unwrap().pairs_live, 1);
}

#[tokio::test]
async fn of_100_enrolments_with_one_token_at_once_one_gets_in() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let invitation = world.invite(org, &[group]).await;
    let caller = world.holder(&invitation, HOST);
    let body = json!({ "host": "web-1", "version": "0.1.0" });
    let all = (0..100).map(|_| caller.json(Method::POST, "/api/v1/agents/enroll", &body));

    let answers = futures_util::future::join_all(all).await;

    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses[0], 201);
    assert!(statuses[1..].iter().all(|status| *status == 401), "{statuses:?}");
}

#[tokio::test]
async fn an_enrolment_whose_answer_was_lost_is_answered_again() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let invitation = world.invite(org, &[group]).await;
    let caller = world.holder(&invitation, HOST);
    let body = json!({ "host": "web-1", "version": "0.1.0" });
    let path = "/api/v1/agents/enroll";

    let first = told(named(&caller, "one", path, &body).await).await;
    let again = told(named(&caller, "one", path, &body).await).await;
    assert_eq!(first, again);
    assert_eq!(named(&caller, "two", path, &body).await.status(), 401, "it is used up");
    assert_eq!(caller.json(Method::POST, path, &body).await.status(), 401);
    assert_eq!(world.engine.state().agents_of(org).count(), 1);
}
