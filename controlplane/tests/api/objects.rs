//! Pairs, groups, members and keys as objects: made once, read in pages, changed by version.

use std::collections::BTreeSet;

use postern_controlplane::app::Settings;
use postern_controlplane::domain::MemberKind;
use postern_shared::scope::Scope;
use postern_shared::time::Expiry;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::agents::enrol;
use crate::world::{Caller, OFFICE, World, problem, settings, within};

async fn data(answer: Response) -> Value {
    let mut body: Value = within(answer.json()).await.unwrap();
    assert!(body["meta"]["request_id"].as_str().unwrap().starts_with("req_"));
    body["data"].take()
}

async fn created(caller: &Caller<'_>, path: &str, body: Value) -> (String, Value) {
    let answer = caller.json(Method::POST, path, &body).await;
    assert_eq!(answer.status(), 201, "{path} {body}");
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    (location, data(answer).await)
}

/// The pointers and details of a refusal.
async fn mistakes(answer: Response) -> Vec<String> {
    assert_eq!(answer.status(), 422);
    let told = problem(answer).await;
    let errors = told["errors"].as_array().unwrap();
    let text = |error: &Value| {
        format!("{}: {}", error["pointer"].as_str().unwrap(), error["detail"].as_str().unwrap())
    };
    errors.iter().map(text).collect()
}

#[tokio::test]
async fn a_new_pair_is_told_its_secrets_once_and_they_work() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);

    let body = json!({ "name": "ops-vps-1", "contact_email": "ops@example.org", "ttl": 600 });
    let (location, pair) = created(&caller, "/api/v1/pairs", body).await;
    let secret = |name: &str| pair[name].as_str().unwrap().to_owned();
    let path = secret("bookmark_url");
    let path = path.strip_prefix("https://plane.example").unwrap();
    assert_eq!(path, format!("/b/{}", secret("bookmark")));
    let answer = world.at("203.0.113.7").send(Method::POST, path).await;
    assert_eq!(answer.status(), 200);
    let server_url = secret("server_url");
    let path = server_url.strip_prefix("https://plane.example").unwrap();
    let answer = world.at(OFFICE).get(path).await;
    let text = within(answer.text()).await.unwrap();
    assert!(text.contains("203.0.113.7"), "{text}");
    assert!(server_url.ends_with(&secret("server_key")));

    let (shown, listed) = (caller.data(&location).await, caller.data("/api/v1/pairs").await);
    for text in [shown.to_string(), listed.to_string()] {
        for name in ["bookmark", "server_key"] {
            assert!(!text.contains(&secret(name)), "{text}");
        }
    }
    assert_eq!(shown["number"], 1);
    assert_eq!(shown["ttl"], 600);
    assert_eq!(shown["addresses"][0]["address"], "203.0.113.7");
    assert_eq!(shown["addresses"][0]["expires_at"], "2026-01-01T00:10:00Z");
    assert_eq!(caller.data("/api/v1/pairs/1").await, shown, "its number names it as well");
    world.clock.advance(std::time::Duration::from_secs(600));
    assert_eq!(caller.data("/api/v1/pairs/1").await["addresses"], json!([]), "nothing stale");
}

#[tokio::test]
async fn a_plane_that_takes_no_private_address_takes_none_as_a_member() {
    let world = World::with(Settings { allow_private: false, ..settings() });
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let members = format!("/api/v1/groups/{}/members", world.group(org).await);
    let caller = world.holder(&key, OFFICE);

    for cidr in ["10.1.0.0/16", "192.168.7.7", "100.64.0.0/10", "fd00::/8", "0.0.0.0/1"] {
        let body = json!({ "cidr": cidr, "note": "n" });
        let told = mistakes(caller.json(Method::POST, &members, &body).await).await;
        assert!(told.len() == 1 && told[0].starts_with("/cidr: "), "{told:?}");
        assert!(told[0].contains("private"), "{told:?}");
    }
    created(&caller, &members, json!({ "cidr": "198.51.100.0/24", "note": "n" })).await;
}

#[tokio::test]
async fn every_mistake_of_a_body_is_told_at_once() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    let caller = world.holder(&key, OFFICE);
    let members = format!("/api/v1/groups/{group}/members");
    let post = async |path: &str, body: Value| {
        mistakes(caller.json(Method::POST, path, &body).await).await
    };

    let told = post("/api/v1/pairs", json!({ "name": "a\nb", "ttl": 0, "colour": 1 })).await;
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0], "/name: must not contain the character U+000A");
    assert!(told[1].starts_with("/ttl: a lifetime of 0 seconds"), "{told:?}");
    assert!(told[2].starts_with("/colour: is not a field; there are `name`"), "{told:?}");
    assert_eq!(post("/api/v1/groups", json!({})).await, ["/name: is missing"]);
    let told = post(&members, json!({ "cidr": "10.0.0.1/24", "note": "" })).await;
    assert!(told[0].contains("10.0.0.0/24"), "the corrected network is said: {told:?}");
    assert_eq!(told[1], "/note: must not be empty");
    for (cidr, expected) in [
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("0.0.0.0/8", "unspecified"),
        ("fe80::/64", "link-local"),
    ] {
        let told = post(&members, json!({ "cidr": cidr, "note": "n" })).await;
        assert!(told[0].starts_with("/cidr: ") && told[0].contains(expected), "{told:?}");
    }
    for (body, expected) in [
        (json!({}), "/pair_id: is missing"),
        (json!({ "cidr": "10.0.0.0/24" }), "/note: is missing"),
        (json!({ "pair_id": pair.id, "cidr": "10.0.0.0/24" }), "/cidr: cannot stand beside"),
        (json!({ "pair_id": pair.id, "note": "n" }), "/note: belongs to"),
        (json!({ "pair_id": 99 }), "/pair_id: is no pair"),
        (
            json!({ "pair_id": 1, "expires_at": "2026-01-01T00:00:00Z" }),
            "/expires_at: must be later",
        ),
    ] {
        let told = post(&members, body.clone()).await;
        assert_eq!(told.len(), 1, "{body} {told:?}");
        assert!(told[0].starts_with(expected), "{body} {told:?}");
    }
    for (media_type, body, status) in [
        ("text/plain", "{}", 415),
        ("application/json", "{", 400),
        ("application/json", "[]", 422),
        ("application/json", r#"{"name":"a","name":"b"}"#, 400),
    ] {
        let request = caller.request(Method::POST, "/api/v1/pairs");
        let request = request.header("content-type", media_type).body(body);
        assert_eq!(within(request.send()).await.unwrap().status(), status, "{media_type} {body}");
    }
    assert_eq!(world.engine.state().org(org).unwrap().pairs_live, 1);
    assert_eq!(world.engine.state().group(group).unwrap().members.len(), 0);
}

#[tokio::test]
async fn a_change_is_held_to_the_version_that_was_read() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    let caller = world.holder(&key, OFFICE);
    let bookmark = format!("/b/{}", pair.bookmark.expose());
    for path in ["/api/v1/pairs/1", "/api/v1/groups/1"] {
        let version = async || {
            let answer = caller.get(path).await;
            answer.headers()["etag"].to_str().unwrap().to_owned()
        };
        let change = async |method: Method, version: Option<&str>, body: Value| {
            let request = caller.request(method, path).json(&body);
            let request = match version {
                Some(version) => request.header("if-match", version),
                None => request,
            };
            within(request.send()).await.unwrap()
        };

        let first = version().await;
        let renamed = change(Method::PATCH, Some(&first), json!({ "name": "one" })).await;
        assert_eq!(renamed.status(), 200);
        let second = renamed.headers()["etag"].to_str().unwrap().to_owned();
        assert_ne!(first, second);
        let lost = change(Method::PATCH, Some(&first), json!({ "name": "two" })).await;
        assert_eq!(lost.status(), 412);
        assert_eq!(problem(lost).await["type"], "precondition_failed");
        assert_eq!(caller.data(path).await["name"], "one");
        world.at(OFFICE).send(Method::POST, &bookmark).await;
        assert_eq!(version().await, second, "who only moves changes no version");
        let free = change(Method::PATCH, None, json!({ "ttl": 60 })).await;
        assert_eq!(data(free).await["ttl"], 60);
        assert_eq!(change(Method::DELETE, Some(&second), json!({})).await.status(), 412);
        assert_eq!(change(Method::DELETE, None, json!({})).await.status(), 204);
        assert_eq!(caller.get(path).await.status(), 404);
    }
    assert_eq!(world.at(OFFICE).get(&bookmark).await.status(), 404, "its secrets die with a pair");
}

#[tokio::test]
async fn lists_come_in_pages_that_join_without_gap() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    let caller = world.holder(&key, OFFICE);
    for index in 0..7 {
        world.pair(org, 3_600).await;
        world.group(org).await;
        world.network(org, group, &format!("10.0.{index}.0/24")).await;
        world.key_with(org, &[Scope::PairsRead], &[OFFICE], Expiry::Never).await;
    }
    for (path, at, count) in [
        ("/api/v1/pairs".to_owned(), "", 7),
        ("/api/v1/groups".to_owned(), "", 8),
        ("/api/v1/account/keys".to_owned(), "", 8),
        (format!("/api/v1/groups/{group}"), "members", 7),
        (format!("/api/v1/groups/{group}/members"), "", 7),
    ] {
        let (mut ids, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let answer = caller.get(&format!("{path}?limit=3{cursor}")).await;
            assert_eq!(answer.status(), 200, "{path}");
            let body: Value = within(answer.json()).await.unwrap();
            let list = if at.is_empty() { &body["data"] } else { &body["data"][at] };
            let list = list.as_array().unwrap();
            assert!(list.len() <= 3);
            ids.extend(list.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
            pages += 1;
            match body["meta"]["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((ids.len(), pages), (count, 3), "{path}");
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), count, "{path}");
    }
    for query in ["limit=0", "limit=1001", "limit=many", "cursor=!", "cursor=AQEB"] {
        let answer = caller.get(&format!("/api/v1/pairs?{query}")).await;
        assert_eq!(answer.status(), 400, "{query}");
    }
    let pairs = caller.get("/api/v1/pairs?limit=3").await;
    let pairs: Value = within(pairs.json()).await.unwrap();
    let of_pairs = pairs["meta"]["next_cursor"].as_str().expect("there are more");
    let elsewhere = caller.get(&format!("/api/v1/groups?cursor={of_pairs}")).await;
    assert_eq!(elsewhere.status(), 400, "both lists go by numbers");
    let other = world.group(org).await;
    let members = caller.get(&format!("/api/v1/groups/{group}/members?limit=3")).await;
    let members: Value = within(members.json()).await.unwrap();
    let of_members = members["meta"]["next_cursor"].as_str().expect("there are more");
    for (group, wanted) in [(group, 200), (other, 400)] {
        let path = format!("/api/v1/groups/{group}/members?cursor={of_members}");
        assert_eq!(caller.get(&path).await.status(), wanted, "each group has a list of its own");
    }
}

#[tokio::test]
async fn members_come_and_go_by_either_of_their_names() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    let (first, second) = (world.pair(org, 3_600).await, world.pair(org, 3_600).await);
    let caller = world.holder(&key, OFFICE);
    let path = format!("/api/v1/groups/{group}/members");
    world.report(&first, "203.0.113.1").await;
    world.report(&second, "203.0.113.2").await;

    let until = json!({ "pair_id": first.id, "expires_at": "2026-01-01T00:30:00Z" });
    let (location, member) = created(&caller, &path, until).await;
    assert_eq!(member["kind"], "pair");
    assert_eq!(member["expires_at"], "2026-01-01T00:30:00Z");
    let (_, by_number) = created(&caller, &path, json!({ "pair_id": 2 })).await;
    assert_eq!(by_number["pair_id"], second.id.to_string());
    let fixed = json!({ "cidr": "10.0.0.0/24", "note": "office" });
    let (fixed_location, _) = created(&caller, &path, fixed.clone()).await;
    for twice in [json!({ "pair_id": first.id }), fixed] {
        let answer = caller.json(Method::POST, &path, &twice).await;
        assert_eq!(answer.status(), 409, "{twice}");
    }
    let ips = caller.data(&format!("/api/v1/groups/{group}/ips")).await;
    assert_eq!(ips["ips"], json!(["10.0.0.0/24", "203.0.113.1", "203.0.113.2"]));
    assert_eq!(ips["entries"][1]["expires_at"], "2026-01-01T00:30:00Z");

    for gone in [location, fixed_location, format!("{path}/{}", second.id)] {
        assert_eq!(caller.send(Method::DELETE, &gone).await.status(), 204, "{gone}");
        assert_eq!(caller.send(Method::DELETE, &gone).await.status(), 404, "{gone}");
    }
    let ips = caller.data(&format!("/api/v1/groups/{group}/ips")).await;
    assert_eq!(ips["ips"], json!([]));
}

#[tokio::test]
async fn an_account_knows_itself_and_revokes_its_keys() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let (other_id, other) = world.key_with(org, &Scope::ALL, &[OFFICE], Expiry::Never).await;
    world.pair(org, 3_600).await;
    let caller = world.holder(&key, OFFICE);

    let account = caller.data("/api/v1/account").await;
    assert_eq!(account["org"]["name"], "acme");
    assert_eq!(account["key"]["origins"], json!(["198.51.100.7/32"]));
    assert_eq!(account["key"]["last_used_at"], "2026-01-01T00:00:00Z");
    let counts = json!({ "users": 1, "keys": 2, "pairs": 1, "groups": 0, "agents": 0 });
    assert_eq!(account["counts"], counts);

    let path = format!("/api/v1/account/keys/{other_id}");
    assert_eq!(world.holder(&other, OFFICE).get("/api/v1/account").await.status(), 200);
    assert_eq!(caller.send(Method::DELETE, &path).await.status(), 204);
    assert_eq!(world.holder(&other, OFFICE).get("/api/v1/account").await.status(), 401);
    assert_eq!(caller.data("/api/v1/account").await["counts"]["keys"], 1);
}

#[tokio::test]
async fn a_pair_is_closed_until_it_reports_again() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let (group, pair) = (world.group(org).await, world.pair(org, 3_600).await);
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let caller = world.holder(&key, OFFICE);
    world.report(&pair, "203.0.113.7").await;
    let (ips, addresses) = ("/api/v1/groups/1/ips", "/api/v1/pairs/1/addresses");
    assert_eq!(caller.data(ips).await["ips"], json!(["203.0.113.7"]));

    assert_eq!(caller.send(Method::DELETE, addresses).await.status(), 204);

    assert_eq!(caller.data(ips).await["ips"], json!([]));
    assert_eq!(caller.data("/api/v1/pairs/1").await["addresses"], json!([]));
    assert_eq!(caller.send(Method::DELETE, addresses).await.status(), 204, "it is closed already");
    world.report(&pair, "203.0.113.7").await;
    assert_eq!(caller.data(ips).await["ips"], json!(["203.0.113.7"]), "its bookmark stays");
    let audit = caller.data("/api/v1/account/audit?kind=addresses_closed").await;
    assert_eq!(audit.as_array().unwrap().len(), 1);
    assert_eq!(audit[0]["actor"]["kind"], "key");
    let agent = crate::agents::enrol(&world, &world.invite(org, &[]).await).await;
    let own = world.engine.state().agent(agent.answer.agent).unwrap().pair;
    let path = format!("/api/v1/pairs/{own}/addresses");
    assert_eq!(caller.send(Method::DELETE, &path).await.status(), 409, "an agent's own");
}

#[tokio::test]
async fn a_key_is_narrowed_and_gains_nothing() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let pair = world.pair(org, 3_600).await;
    let scopes = [Scope::PairsWrite, Scope::GroupsRead];
    let wide = ["198.51.100.0/24", "203.0.113.0/24"];
    let (id, narrowed) = world.key_with(org, &scopes, &wide, Expiry::Never).await;
    let (caller, holder) = (world.holder(&key, OFFICE), world.holder(&narrowed, OFFICE));
    let path = format!("/api/v1/account/keys/{id}");
    let narrow = async |body: Value| caller.json(Method::PATCH, &path, &body).await;
    let seen = caller.get(&path).await.headers()["etag"].clone();

    let done = narrow(json!({ "scopes": ["pairs.read"], "origins": [OFFICE] })).await;

    assert_eq!(done.status(), 200);
    assert_ne!(done.headers()["etag"], seen);
    let told = data(done).await;
    let kept = json!([["pairs.read"], ["198.51.100.7/32"]]);
    assert_eq!(json!([told["scopes"], told["origins"]]), kept);
    assert_eq!(holder.get("/api/v1/pairs").await.status(), 200);
    assert_eq!(holder.get("/api/v1/groups").await.status(), 403, "a scope less");
    assert_eq!(holder.json(Method::POST, "/api/v1/pairs", &json!({})).await.status(), 403);
    let elsewhere = world.holder(&narrowed, "203.0.113.9").get("/api/v1/pairs").await;
    assert_eq!(elsewhere.status(), 403, "an origin less");
    for (body, wanted) in [
        (json!({ "scopes": ["pairs.write"] }), "/scopes"),
        (json!({ "origins": ["198.51.100.0/24"] }), "/origins"),
        (json!({ "origins": [format!("pair:{}", pair.id)] }), "/origins"),
        (json!({ "scopes": ["everything"] }), "/scopes"),
        (json!({ "scopes": "pairs.read" }), "/scopes"),
        (json!({ "scopes": ["pairs.read", "pairs.read"] }), "/scopes"),
        (json!({ "origins": ["pair:1"] }), "/origins"),
        (json!({ "origins": [7] }), "/origins"),
        (json!({ "expires_at": null }), "/expires_at"),
    ] {
        let refused = narrow(body.clone()).await;
        assert_eq!(refused.status(), 422, "{body}");
        assert!(mistakes(refused).await[0].starts_with(wanted), "{body}");
    }
    assert_eq!(narrow(json!({ "scopes": [] })).await.status(), 409, "that is for revoking");
    assert_eq!(narrow(json!({})).await.status(), 200, "nothing is taken away");
    let late = caller.request(Method::PATCH, &path).header("if-match", seen);
    let late = within(late.json(&json!({ "scopes": ["pairs.read"] })).send()).await.unwrap();
    assert_eq!(late.status(), 412);
    assert_eq!(data(caller.get(&path).await).await["scopes"], json!(["pairs.read"]));
    assert_eq!(caller.send(Method::DELETE, &path).await.status(), 204);
    assert_eq!(narrow(json!({ "scopes": ["pairs.read"] })).await.status(), 409, "it is revoked");
}

#[tokio::test]
async fn a_key_does_not_shut_itself_out() {
    let world = World::start();
    let org = world.org("acme").await;
    let wide = ["198.51.100.0/24", "203.0.113.0/24"];
    let scopes = [Scope::AccountWrite];
    let (id, key) = world.key_with(org, &scopes, &wide, Expiry::Never).await;
    let (other, _) = world.key_with(org, &scopes, &wide, Expiry::Never).await;
    let path = format!("/api/v1/account/keys/{id}");
    let elsewhere = json!({ "origins": ["203.0.113.0/24"] });

    let refused = world.holder(&key, OFFICE).json(Method::PATCH, &path, &elsewhere).await;

    assert_eq!(refused.status(), 422);
    let told = mistakes(refused).await;
    assert!(told[0].starts_with("/origins") && told[0].contains(OFFICE), "{told:?}");
    let foreign = world.pair(world.org("globex").await, 3_600).await;
    world.report(&foreign, OFFICE).await;
    for pair in [foreign.id.to_string(), "6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10".to_owned()] {
        let origins = json!({ "origins": [format!("pair:{pair}")] });
        let told = world.holder(&key, OFFICE).json(Method::PATCH, &path, &origins).await;
        let told = mistakes(told).await.join(", ").replace(&pair, "it");
        assert!(told.contains("would gain the pair it"), "where others are is not told: {told}");
    }
    let another = format!("/api/v1/account/keys/{other}");
    for (from, path) in [(OFFICE, &another), ("203.0.113.9", &path)] {
        let done = world.holder(&key, from).json(Method::PATCH, path, &elsewhere).await;
        assert_eq!(done.status(), 200, "{from} {path}");
    }
    assert_eq!(world.holder(&key, OFFICE).get("/api/v1/account").await.status(), 403);
}

#[tokio::test]
async fn a_new_bookmark_ends_the_old_one_and_closes_its_address() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    let caller = world.holder(&key, OFFICE);
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, "203.0.113.66").await;
    let before = caller.get("/api/v1/pairs/1").await.headers()["etag"].clone();

    let rotated = caller.send(Method::POST, "/api/v1/pairs/1/bookmark").await;
    assert_eq!(rotated.status(), 200);
    assert_ne!(rotated.headers()["etag"], before);
    let rotated = data(rotated).await;
    assert_eq!(rotated["addresses"], json!([]));
    let bookmark = rotated["bookmark"].as_str().unwrap();
    assert_eq!(rotated["bookmark_url"], format!("https://plane.example/b/{bookmark}"));
    assert_eq!(rotated.get("server_key"), None);
    assert_eq!(caller.data("/api/v1/groups/1/ips").await["ips"], json!([]));
    let old = format!("/b/{}", pair.bookmark.expose());
    assert_eq!(world.at("203.0.113.66").send(Method::POST, &old).await.status(), 404);
    world.report_by(bookmark, "203.0.113.7").await;
    assert_eq!(caller.data("/api/v1/groups/1/ips").await["ips"], json!(["203.0.113.7"]));
    let read = format!("/serverquery/?key={}", pair.server_key.expose());
    assert_eq!(world.at(OFFICE).get(&read).await.status(), 200, "the server key stays");
}

#[tokio::test]
async fn a_new_server_key_ends_the_old_one_and_closes_nothing() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let pair = world.pair(org, 3_600).await;
    let caller = world.holder(&key, OFFICE);
    world.report(&pair, "203.0.113.7").await;

    let request = caller.request(Method::POST, "/api/v1/pairs/1/server_key");
    let stale = within(request.header("if-match", "\"old\"").send()).await.unwrap();
    assert_eq!(stale.status(), 412);
    let rotated = data(caller.send(Method::POST, "/api/v1/pairs/1/server_key").await).await;
    let url = rotated["server_url"].as_str().unwrap();
    let path = url.strip_prefix("https://plane.example").unwrap();
    assert!(path.ends_with(rotated["server_key"].as_str().unwrap()));

    let answer = within(world.at(OFFICE).get(path).await.text()).await.unwrap();
    assert!(answer.contains("\"203.0.113.7\""), "{answer}");
    let old = format!("/serverquery/?key={}", pair.server_key.expose());
    assert_eq!(world.at(OFFICE).get(&old).await.status(), 404);
}

#[tokio::test]
async fn the_secrets_of_an_agents_own_pair_are_its_own() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    enrol(&world, &world.invite(org, &[group]).await).await;
    let caller = world.holder(&key, OFFICE);

    for path in ["/api/v1/pairs/1/bookmark", "/api/v1/pairs/1/server_key"] {
        let answer = caller.send(Method::POST, path).await;
        assert_eq!(answer.status(), 409, "{path}");
        assert!(problem(answer).await["detail"].as_str().unwrap().contains("revoke the agent"));
    }
}

#[tokio::test]
async fn keys_and_members_have_versions_as_well() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    world.network(org, group, "203.0.113.0/24").await;
    let (id, _) = world.key_with(org, &[Scope::PairsRead], &[OFFICE], Expiry::Never).await;
    let caller = world.holder(&key, OFFICE);
    let members = caller.data("/api/v1/groups/1/members").await;
    let member = members[0]["id"].as_str().unwrap();

    for (path, at, last) in [
        (format!("/api/v1/account/keys/{id}"), "name", "key"),
        (format!("/api/v1/groups/1/members/{member}"), "note", "office"),
    ] {
        let shown = caller.get(&path).await;
        let version = shown.headers()["etag"].clone();
        assert_eq!(data(shown).await[at], last);
        let delete = async |version: &str| {
            let request = caller.request(Method::DELETE, &path).header("if-match", version);
            within(request.send()).await.unwrap().status().as_u16()
        };
        assert_eq!(delete("\"other\"").await, 412, "{path}");
        assert_eq!(delete(version.to_str().unwrap()).await, 204, "{path}");
    }
    let revoked = caller.data(&format!("/api/v1/account/keys/{id}")).await;
    assert_eq!(revoked["revoked_at"], "2026-01-01T00:00:00Z", "a revoked key is still shown");
}

#[tokio::test]
async fn every_secret_may_ask_who_it_is() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let (_, key) = world.key_with(org, &[Scope::GroupsWrite], &[OFFICE], Expiry::Never).await;
    let agent = enrol(&world, &world.invite(org, &[group]).await).await;

    let told = world.holder(&key, OFFICE).data("/api/v1/whoami").await;
    assert_eq!(told["org"]["name"], "acme");
    assert_eq!(told["address"], OFFICE);
    assert_eq!(told["key"]["scopes"], json!(["groups.write"]));
    assert_eq!(told.get("agent"), None);
    world.report_by(agent.bookmark.expose(), "203.0.113.5").await;
    let told = world.holder(&agent.token, "203.0.113.5").data("/api/v1/whoami").await;
    assert_eq!(told["agent"]["name"], "gatekeeper");
    assert_eq!(told.get("key"), None);
    assert_eq!(world.at(OFFICE).get("/api/v1/whoami").await.status(), 401);
}
