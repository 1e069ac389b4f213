//! Both factors of every call, and the order in which they are looked at.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use postern_controlplane::app::Settings;
use postern_controlplane::domain::{Command, MemberKind};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_shared::scope::Scope;
use postern_shared::time::Expiry;
use postern_shared::token::{Token, TokenKind};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::world::{OFFICE, World, generous, problem, settings, within};

#[tokio::test]
async fn of_secret_state_origin_and_scope_all_must_be_right() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let soon = world.engine.now().saturating_add(Duration::from_secs(60));
    let mut opened = Vec::new();
    let mut unauthorized = BTreeSet::new();
    for secret in ["right", "unknown", "mistyped", "bookmark", "server key", "invitation"] {
        for state in ["live", "revoked", "expired"] {
            for scope in [Scope::PairsWrite, Scope::PairsRead, Scope::GroupsWrite] {
                for origin in [OFFICE, "198.51.100.8"] {
                    let expires = if state == "expired" { Expiry::At(soon) } else { Expiry::Never };
                    let (id, token) = world.key_with(org, &[scope], &[OFFICE], expires).await;
                    if state == "revoked" {
                        world.order(Command::RevokeKey { org, key: id }).await;
                    }
                    let text = shown(&world, secret, &token);
                    let now =
                        (state == "expired").then(|| world.clock.advance(Duration::from_secs(60)));
                    assert_eq!(now.is_some(), state == "expired");
                    let answer = within(
                        world
                            .at(origin)
                            .request(Method::GET, "/api/v1/pairs")
                            .header("authorization", format!("Bearer {text}"))
                            .send(),
                    )
                    .await
                    .unwrap();

                    let case = format!("{secret}, {state}, {scope}, {origin}");
                    let is_known = secret == "right" && state == "live";
                    let expected = match (is_known, origin == OFFICE, scope) {
                        (false, ..) => (401, "unauthorized"),
                        (true, false, _) => (403, "forbidden_origin"),
                        (true, true, Scope::GroupsWrite) => (403, "insufficient_scope"),
                        (true, true, _) => (200, ""),
                    };
                    assert_eq!(answer.status(), expected.0, "{case}");
                    if expected.0 == 200 {
                        opened.push(case);
                        continue;
                    }
                    let challenge = answer.headers().contains_key("www-authenticate");
                    assert_eq!(challenge, expected.0 == 401, "{case}");
                    let told = problem(answer).await;
                    assert_eq!(told["type"], expected.1, "{case}");
                    if expected.0 == 401 {
                        unauthorized.insert(told.to_string());
                    }
                }
            }
        }
    }

    assert_eq!(
        opened,
        ["right, live, pairs.write, 198.51.100.7", "right, live, pairs.read, 198.51.100.7"]
    );
    assert_eq!(unauthorized.len(), 1, "why a secret is not good is not told: {unauthorized:?}");
}

/// The text of a secret that is as wrong as asked for.
fn shown(world: &World, secret: &str, right: &Token) -> String {
    let chance = world.engine.chance();
    match secret {
        "right" => right.expose().to_owned(),
        "unknown" => chance.token(TokenKind::Key).expose().to_owned(),
        "mistyped" => {
            let (body, last) = right.expose().split_at(39);
            format!("{body}{}", if last == "0" { "1" } else { "0" })
        }
        "bookmark" => chance.token(TokenKind::Bookmark).expose().to_owned(),
        "server key" => chance.token(TokenKind::Server).expose().to_owned(),
        _ => chance.token(TokenKind::Enrolment).expose().to_owned(),
    }
}

#[tokio::test]
async fn secrets_of_other_kinds_are_no_keys() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let invitation = world.invite(org, &[]).await;

    for token in [&pair.bookmark, &pair.server_key, &invitation] {
        let answer = world.holder(token, OFFICE).get("/api/v1/account").await;
        assert_eq!(answer.status(), 401);
    }
    let key = world.key(org).await;
    let enrolled = world.holder(&key, OFFICE);
    let body = json!({ "host": "web-1", "version": "1" });
    let answer = enrolled.json(Method::POST, "/api/v1/agents/enroll", &body).await;
    assert_eq!(answer.status(), 401, "a key is no invitation");
}

#[tokio::test]
async fn only_one_bearer_secret_is_read() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let good = format!("Bearer {}", key.expose());
    let status = async |lines: &[&str]| {
        let mut request = world.at(OFFICE).request(Method::GET, "/api/v1/account");
        for line in lines {
            request = request.header("authorization", *line);
        }
        within(request.send()).await.unwrap().status().as_u16()
    };

    assert_eq!(status(&[&good]).await, 200);
    assert_eq!(status(&[&good.replace("Bearer", "bearer")]).await, 200);
    assert_eq!(status(&[]).await, 401);
    assert_eq!(status(&[&good, &good]).await, 401);
    assert_eq!(status(&[&good.replace("Bearer", "Basic")]).await, 401);
    assert_eq!(status(&[key.expose()]).await, 401);
    assert_eq!(status(&["Bearer \u{e9}"]).await, 401);
}

#[tokio::test]
async fn each_route_opens_to_its_own_scope_only() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let group = world.group(org).await;
    let routes = [
        (Method::GET, "/account".to_owned(), Scope::AccountRead),
        (Method::GET, "/account/keys".to_owned(), Scope::AccountRead),
        (Method::DELETE, format!("/account/keys/{}", pair.id), Scope::AccountWrite),
        (Method::PATCH, format!("/account/keys/{}", pair.id), Scope::AccountWrite),
        (Method::DELETE, format!("/pairs/{}/addresses", pair.id), Scope::PairsWrite),
        (Method::GET, "/pairs".to_owned(), Scope::PairsRead),
        (Method::POST, "/pairs".to_owned(), Scope::PairsWrite),
        (Method::GET, format!("/pairs/{}", pair.id), Scope::PairsRead),
        (Method::PATCH, format!("/pairs/{}", pair.id), Scope::PairsWrite),
        (Method::POST, format!("/pairs/{}/bookmark", pair.id), Scope::PairsWrite),
        (Method::POST, format!("/pairs/{}/server_key", pair.id), Scope::PairsWrite),
        (Method::GET, format!("/account/keys/{}", pair.id), Scope::AccountRead),
        (Method::GET, format!("/groups/{group}/members/{}", pair.id), Scope::GroupsRead),
        (Method::GET, "/groups".to_owned(), Scope::GroupsRead),
        (Method::POST, "/groups".to_owned(), Scope::GroupsWrite),
        (Method::GET, format!("/groups/{group}"), Scope::GroupsRead),
        (Method::PATCH, format!("/groups/{group}"), Scope::GroupsWrite),
        (Method::GET, format!("/groups/{group}/members"), Scope::GroupsRead),
        (Method::POST, format!("/groups/{group}/members"), Scope::GroupsWrite),
        (Method::DELETE, format!("/groups/{group}/members/{}", pair.id), Scope::GroupsWrite),
        (Method::GET, format!("/groups/{group}/ips"), Scope::GroupsRead),
        (Method::GET, format!("/stream?group={group}"), Scope::GroupsRead),
        (Method::DELETE, format!("/groups/{group}"), Scope::GroupsWrite),
        (Method::DELETE, format!("/pairs/{}", pair.id), Scope::PairsWrite),
    ];
    for (method, path, needed) in &routes {
        for scope in Scope::ALL {
            let (_, key) = world.key_with(org, &[scope], &[OFFICE], Expiry::Never).await;
            let implies = [scope].into_iter().collect::<postern_shared::scope::ScopeSet>();
            // A body that is no JSON: who lacks the scope is told that first.
            let request = world.holder(&key, OFFICE);
            let path = format!("/api/v1{path}");
            let request = request.request(method.clone(), &path).body("{");
            let answer = within(request.send()).await.unwrap();

            let is_refused = answer.status() == 403;
            assert_eq!(is_refused, !implies.allows(*needed), "{method} {path} with {scope}");
        }
    }
    let agents =
        [(Method::PUT, "/api/v1/agents/self"), (Method::POST, "/api/v1/agents/self/receipts")];
    let key = world.key(org).await;
    for (method, path) in agents {
        let answer = world.holder(&key, OFFICE).send(method, path).await;
        assert_eq!(answer.status(), 403, "a key is no agent: {path}");
    }
}

#[tokio::test]
async fn guessing_is_slowed_down_by_source() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let guess = async |address: &str| {
        let token = world.engine.chance().token(TokenKind::Key);
        world.holder(&token, address).get("/api/v1/account").await
    };

    let mut statuses = Vec::new();
    for _ in 0..21 {
        statuses.push(guess("203.0.113.66").await.status().as_u16());
    }
    assert_eq!((statuses[19], statuses[20]), (401, 429));
    let refused = guess("203.0.113.66").await;
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(guess("203.0.113.67").await.status(), 401, "another source has its own budget");
    assert_eq!(world.holder(&key, OFFICE).get("/api/v1/account").await.status(), 200);
    let bookmark = world.engine.chance().token(TokenKind::Bookmark);
    let path = format!("/b/{}", bookmark.expose());
    assert_eq!(
        world.at("203.0.113.66").get(&path).await.status(),
        429,
        "one budget for all secrets"
    );

    world.clock.advance(Duration::from_secs(60));
    assert_eq!(guess("203.0.113.66").await.status(), 401);
}

#[tokio::test]
async fn failures_at_an_address_shut_out_no_secret_in_force() {
    let world = World::start();
    let org = world.org("acme").await;
    let (key, group) = (world.key(org).await, world.group(org).await);
    let (pair, deleted) = (world.pair(org, 3_600).await, world.pair(org, 3_600).await);
    world.order(Command::DeletePair { org, pair: deleted.id, expected: None }).await;
    let invitation = world.invite(org, &[group]).await;
    world.report(&pair, OFFICE).await;
    let office = world.at(OFFICE);
    let post = async |bookmark: &Token| {
        office.send(Method::POST, &format!("/b/{}", bookmark.expose())).await
    };
    let unknown = world.engine.chance().token(TokenKind::Bookmark);
    let mut refused = 0;
    while refused < 10 {
        refused += u32::from(post(&unknown).await.status() == 429);
    }

    assert_eq!(post(&pair.bookmark).await.status(), 200);
    let queried = office.get(&format!("/serverquery/?key={}", pair.server_key.expose())).await;
    assert_eq!(queried.status(), 200);
    assert_eq!(world.holder(&key, OFFICE).get("/api/v1/account").await.status(), 200);
    let host = json!({ "host": "web", "version": "1.0.0" });
    let enrolled = world.holder(&invitation, OFFICE);
    let enrolled = enrolled.json(Method::POST, "/api/v1/agents/enroll", &host).await;
    assert_eq!(enrolled.status(), 201);
    assert_eq!(post(&unknown).await.status(), 429, "failures have to wait all the same");
    assert_eq!(post(&deleted.bookmark).await.status(), 429, "as what never was");
}

#[tokio::test]
async fn budgets_are_told_and_kept_and_writes_are_dearer() {
    let rates = RateLimits {
        reads: Budget::per_minute(NonZeroU32::new(6).unwrap()),
        writes: Budget::per_minute(NonZeroU32::new(2).unwrap()),
        ..RateLimits::DEFAULT
    };
    let world = World::with(Settings { rates, ..settings() });
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    let create = async |name: &str| {
        caller.json(Method::POST, "/api/v1/groups", &json!({ "name": name })).await
    };

    let first = caller.get("/api/v1/account").await;
    assert_eq!(first.headers()["ratelimit-policy"], "\"reads\";q=6;w=60");
    assert!(first.headers()["ratelimit"].to_str().unwrap().contains("r=5"));
    assert_eq!(create("a").await.status(), 201);
    assert_eq!(create("b").await.status(), 201);
    let refused = create("c").await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(world.engine.state().org(org).unwrap().groups.len(), 2);
    assert_eq!(caller.get("/api/v1/account").await.status(), 200, "reads have their own budget");
}

/// Body of an answer without what names the request.
async fn anonymous(answer: Response) -> (u16, Value) {
    (answer.status().as_u16(), problem(answer).await)
}

#[tokio::test]
async fn what_belongs_to_another_org_is_as_unknown_as_what_never_was() {
    let world = World::with(generous());
    let (ours, theirs) = (world.org("ours").await, world.org("theirs").await);
    let key = world.key(ours).await;
    let own_group = world.group(ours).await;
    let (their_pair, their_group) = (world.pair(theirs, 3_600).await, world.group(theirs).await);
    let kind = MemberKind::Pair(their_pair.id);
    world.member(theirs, their_group, kind, Expiry::Never).await;
    let (their_key, _) = world.key_with(theirs, &Scope::ALL, &[OFFICE], Expiry::Never).await;
    let unknown = "6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10";
    let caller = world.holder(&key, OFFICE);
    let (pair, group) = (their_pair.id.to_string(), their_group.to_string());
    let edit = json!({ "name": "mine now" });
    let member = json!({ "cidr": "0.0.0.0/0", "note": "open" });
    let routes: Vec<(Method, &str, &str, Option<&Value>)> = vec![
        (Method::GET, "/pairs/ID", &pair, None),
        (Method::PATCH, "/pairs/ID", &pair, Some(&edit)),
        (Method::DELETE, "/pairs/ID", &pair, None),
        (Method::GET, "/groups/ID", &group, None),
        (Method::PATCH, "/groups/ID", &group, Some(&edit)),
        (Method::DELETE, "/groups/ID", &group, None),
        (Method::GET, "/groups/ID/members", &group, None),
        (Method::POST, "/groups/ID/members", &group, Some(&member)),
        (Method::DELETE, "/groups/ID/members/7", &group, None),
        (Method::GET, "/groups/ID/members/1", &group, None),
        (Method::POST, "/pairs/ID/bookmark", &pair, None),
        (Method::DELETE, "/pairs/ID/addresses", &pair, None),
        (Method::POST, "/pairs/ID/server_key", &pair, None),
        (Method::GET, "/groups/ID/ips", &group, None),
        (Method::GET, "/groups/ID/ips?format=text", &group, None),
        (Method::GET, "/pairs/ID", "2", None),
        (Method::GET, "/groups/ID", "2", None),
    ];
    for (method, path, id, body) in routes {
        let ask = async |id: &str| {
            let path = format!("/api/v1{}", path.replace("ID", id));
            let request = caller.request(method.clone(), &path);
            let request = match body {
                Some(body) => request.json(body),
                None => request,
            };
            anonymous(within(request.send()).await.unwrap()).await
        };

        let (foreign, never) = (ask(id).await, ask(unknown).await);
        assert_eq!(foreign.0, 404, "{method} {path}");
        assert_eq!(foreign, never, "{method} {path}");
    }
    let revoke = async |id: &str| {
        let path = format!("/api/v1/account/keys/{id}");
        anonymous(caller.send(Method::DELETE, &path).await).await
    };
    assert_eq!(revoke(&their_key.to_string()).await, revoke(unknown).await);
    let join = async |pair: &str| {
        let path = format!("/api/v1/groups/{own_group}/members");
        anonymous(caller.json(Method::POST, &path, &json!({ "pair_id": pair })).await).await
    };
    assert_eq!(join(&pair).await, join(unknown).await);
    assert_eq!(join(&pair).await.0, 422);
    assert_eq!(world.engine.state().group(their_group).unwrap().members.len(), 1);
    assert!(world.engine.state().pair(their_pair.id).unwrap().is_live());
}

#[tokio::test]
async fn a_flood_of_wrong_secrets_writes_nothing_and_keeps_no_valid_one_waiting() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let groups = [world.group(org).await, world.group(org).await];
    let mut refused = BTreeSet::new();

    for number in 0..5_000_u16 {
        let [high, low] = number.to_be_bytes();
        let guesser = world.at(&format!("203.0.{high}.{low}"));
        let wrong = world.engine.chance().token(TokenKind::Bookmark);
        let path = format!("/b/{}", wrong.expose());
        refused.insert(guesser.send(Method::POST, &path).await.status().as_u16());
    }

    let after = world.group(org).await;
    let revision = |group| world.engine.state().group(group).unwrap().revision.0;
    let usual = revision(groups[1]) - revision(groups[0]);
    assert_eq!(revision(after) - revision(groups[1]), usual, "none of them reached the store");
    assert!(refused.is_subset(&BTreeSet::from([404, 429])), "{refused:?}");
    let report = world.report(&pair, OFFICE).await;
    assert_eq!(report["data"]["moved"], true);
}
