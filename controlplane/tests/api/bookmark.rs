//! `/b/{bookmark}`: what looks, what reports, and what is told to whom.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use postern_controlplane::app::Settings;
use postern_controlplane::domain::{Command, MemberKind};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_controlplane::server::TrustedProxies;
use postern_shared::time::Expiry;
use postern_shared::token::{Token, TokenKind};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::agents::{HOST, enrol};
use crate::world::{NewPair, OFFICE, World, problem, settings, within};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn url(bookmark: &Token) -> String {
    format!("/b/{}", bookmark.expose())
}

/// The addresses that the plane knows of a pair.
fn addresses(world: &World, pair: &NewPair) -> Vec<IpAddr> {
    let state = world.engine.state();
    let report = state.pair(pair.id).unwrap().report;
    report.into_iter().flat_map(|report| report.networks()).map(|(net, _)| net.address()).collect()
}

async fn page(world: &World, method: Method, pair: &NewPair) -> Response {
    let request = world.at(OFFICE).request(method, &url(&pair.bookmark)).header("accept", BROWSER);
    within(request.send()).await.unwrap()
}

#[tokio::test]
async fn the_page_shows_the_address_and_needs_nothing_from_elsewhere() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;

    let answer = page(&world, Method::GET, &pair).await;

    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("cache-control"), "no-store");
    assert_eq!(header("referrer-policy"), "no-referrer");
    assert_eq!(header("x-content-type-options"), "nosniff");
    let policy = header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    for part in [
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "script-src 'sha256-",
        "connect-src 'self'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(policy.ends_with("connect-src 'self'"), "nobody else is spoken to: {policy}");
    let html = within(answer.text()).await.unwrap();
    assert!(html.contains(OFFICE), "{html}");
    assert!(html.contains("x-forwarded-for by 127.0.0.1"), "it says why: {html}");
    assert!(html.contains("laptop &#60;b&#62;"), "names are text: {html}");
    assert!(html.contains(r#"<form method="post">"#), "{html}");
    assert_eq!(html.matches("<script").count(), 1, "{html}");
    for foreign in ["<script ", "http://", "https://", "src=", "@import", "url("] {
        assert!(!html.contains(foreign), "{foreign} in {html}");
    }
    assert!(!html.contains(pair.bookmark.expose()), "{html}");
}

#[tokio::test]
async fn looking_changes_nothing() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair_with(org, 3_600, true).await;
    let path = url(&pair.bookmark);
    let seen = || {
        let state = world.engine.state();
        let row = state.pair(pair.id).unwrap();
        (row.report, row.revision, row.last_seen())
    };
    let before = seen();

    for (method, status) in [(Method::GET, 200), (Method::HEAD, 200), (Method::OPTIONS, 204)] {
        let answer = world.at(OFFICE).send(method.clone(), &path).await;
        assert_eq!(answer.status(), status, "{method}");
        assert_eq!(answer.headers()["cache-control"], "no-store", "{method}");
    }
    for (name, value) in [
        ("sec-purpose", "prefetch;prerender"),
        ("purpose", "prefetch"),
        ("x-purpose", "preview"),
        ("x-moz", "prefetch"),
    ] {
        for method in [Method::GET, Method::POST] {
            let request = world.at(OFFICE).request(method, &path).header(name, value);
            let answer = within(request.send()).await.unwrap();
            assert_eq!(answer.status(), 204, "{name}");
            assert_eq!(within(answer.text()).await.unwrap(), "");
        }
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        assert_eq!(world.at(OFFICE).send(method, &path).await.status(), 405);
    }
    assert_eq!(seen(), before);
    world.report(&pair, OFFICE).await;
    assert_ne!(seen(), before, "the witness can see a report");
}

#[tokio::test]
async fn wrong_bookmarks_tell_no_more_than_their_checksum() {
    let world = World::start();
    let org = world.org("acme").await;
    let (live, deleted) = (world.pair(org, 3_600).await, world.pair(org, 3_600).await);
    world.order(Command::DeletePair { org, pair: deleted.id, expected: None }).await;
    let unknown = world.engine.chance().token(TokenKind::Bookmark);
    let right = live.bookmark.expose();
    let ask = async |text: &str, method: Method| {
        let answer = world.at(OFFICE).send(method, &format!("/b/{text}")).await;
        assert_eq!(answer.headers()["cache-control"], "no-store");
        (answer.status().as_u16(), problem(answer).await)
    };

    for method in [Method::GET, Method::POST] {
        let gone = ask(deleted.bookmark.expose(), method.clone()).await;
        let never = ask(unknown.expose(), method.clone()).await;
        assert_eq!(gone.0, 404);
        assert_eq!(gone, never, "whether there ever was such a bookmark is not told");
        let (status, cut) = ask(&right[..39], method.clone()).await;
        assert_eq!((status, cut["type"].as_str()), (400, Some("bad_request")));
        assert!(cut["detail"].as_str().unwrap().contains("40 characters"), "{cut}");
        let typo = format!("{}{}", &right[..39], if right.ends_with('0') { '1' } else { '0' });
        let (status, mistyped) = ask(&typo, method.clone()).await;
        assert_eq!(status, 400);
        assert!(mistyped["detail"].as_str().unwrap().contains("mistyped"), "{mistyped}");
        let (status, other) = ask(live.server_key.expose(), method.clone()).await;
        assert_eq!(status, 400);
        assert!(other["detail"].as_str().unwrap().contains("pob_"), "{other}");
        for told in [&cut, &mistyped, &other] {
            assert!(!told.to_string().contains(&right[4..20]), "{told}");
        }
    }
    let html = world.at(OFFICE).request(Method::GET, &url(&unknown)).header("accept", BROWSER);
    let html = within(html.send()).await.unwrap();
    assert_eq!(html.status(), 404);
    assert_eq!(html.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(addresses(&world, &live), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn bodies_that_say_more_than_a_visit_are_refused() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let send = async |media_type: &str, body: String| {
        let request = world.at(OFFICE).request(Method::POST, &url(&pair.bookmark));
        let request = request.header("content-type", media_type).body(body);
        within(request.send()).await.unwrap().status().as_u16()
    };

    for (media_type, body, expected) in [
        ("text/plain", "hello".to_owned(), 415),
        ("application/json", "{".to_owned(), 400),
        ("application/json", r#"{"visit":"x","visit":"y"}"#.to_owned(), 400),
        ("application/json", r#"{"address":"203.0.113.7"}"#.to_owned(), 422),
        ("application/json", r#"{"visit":7}"#.to_owned(), 422),
        ("application/json", r#"{"visit":"not a visit"}"#.to_owned(), 422),
        ("application/x-www-form-urlencoded", "address=203.0.113.7".to_owned(), 400),
        ("application/json", format!("{{\"visit\":\"{}\"}}", "0".repeat(5_000)), 413),
    ] {
        assert_eq!(send(media_type, body.clone()).await, expected, "{media_type} {body:.60}");
    }
    assert_eq!(addresses(&world, &pair), Vec::<IpAddr>::new());
    assert_eq!(send("application/json", "{}".to_owned()).await, 200);
}

#[tokio::test]
async fn addresses_that_may_never_be_granted_are_refused_and_private_ones_as_configured() {
    let world = World::start();
    let strict = World::with(Settings { allow_private: false, ..settings() });
    let status = async |world: &World, address: &str| {
        let org = world.org("acme").await;
        let pair = world.pair(org, 3_600).await;
        let path = url(&pair.bookmark);
        world.at(address).send(Method::POST, &path).await.status().as_u16()
    };

    for address in [
        "127.0.0.2",
        "0.0.0.0",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.2",
    ] {
        assert_eq!(status(&world, address).await, 422, "{address}");
    }
    for address in ["10.0.0.7", "192.168.1.9", "fd00::7"] {
        assert_eq!(status(&world, address).await, 200, "{address}");
        assert_eq!(status(&strict, address).await, 422, "{address}");
    }
    assert_eq!(status(&strict, OFFICE).await, 200);

    let org = strict.org("acme").await;
    let path = url(&strict.pair(org, 3_600).await.bookmark);
    for (address, why) in [("10.0.0.7", "10.0.0.7/32 is private"), ("127.0.0.2", "loopback")] {
        let request = strict.at(address).request(Method::POST, &path).header("accept", BROWSER);
        let page = request.send().await.unwrap().text().await.unwrap();
        assert!(page.contains(why), "{page}");
    }
}

#[tokio::test]
async fn header_fields_of_strangers_say_nothing_about_addresses() {
    let proxies = TrustedProxies::NONE;
    let world = World::with(Settings { proxies, ..settings() });
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let path = url(&pair.bookmark);

    for name in ["x-forwarded-for", "x-real-ip", "cf-connecting-ip", "true-client-ip"] {
        let request = world.at(OFFICE).request(Method::GET, &path).header("accept", BROWSER);
        let html = within(request.header(name, "203.0.113.99").send()).await.unwrap();
        let html = within(html.text()).await.unwrap();
        assert!(html.contains("127.0.0.1") && html.contains("other end of your connection"));
        assert!(!html.contains("203.0.113.99"), "{name}: {html}");
    }
    let spoofed = world.at(OFFICE).request(Method::POST, &path);
    let spoofed = spoofed.header("forwarded", "for=203.0.113.99");
    assert_eq!(within(spoofed.send()).await.unwrap().status(), 422, "loopback was seen");
    assert_eq!(addresses(&world, &pair), Vec::<IpAddr>::new());
}

#[tokio::test]
async fn a_proxy_is_believed_no_further_than_it_saw() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let post = async |claim: &str| {
        let answer = world.at(claim).send(Method::POST, &url(&pair.bookmark)).await;
        answer.status().as_u16()
    };

    assert_eq!(post("203.0.113.99, 198.51.100.7").await, 200);
    assert_eq!(addresses(&world, &pair), [OFFICE.parse::<IpAddr>().unwrap()]);
    assert_eq!(post("::ffff:198.51.100.8").await, 200);
    assert_eq!(addresses(&world, &pair), ["198.51.100.8".parse::<IpAddr>().unwrap()]);
    for claim in ["", "somewhere", "203.0.113.7, unknown", "203.0.113.7;drop"] {
        assert_eq!(post(claim).await, 400, "{claim:?}");
    }
    assert_eq!(addresses(&world, &pair), ["198.51.100.8".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn both_families_of_one_visit_are_kept_and_a_move_replaces_them() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;

    let first = world.report(&pair, OFFICE).await;
    let visit = json!({ "visit": first["data"]["visit"] });
    let second = world.at("2001:db8::7").json(Method::POST, &url(&pair.bookmark), &visit).await;
    let second: Value = within(second.json()).await.unwrap();
    assert_eq!(second["data"]["ipv4"], OFFICE);
    assert_eq!(second["data"]["ipv6"], "2001:db8::7");
    assert_eq!(second["data"]["visit"], first["data"]["visit"]);
    assert_eq!(second["data"]["moved"], true);
    assert_eq!(addresses(&world, &pair).len(), 2);

    world.clock.advance(Duration::from_secs(61));
    let late = world.at("2001:db8::8").json(Method::POST, &url(&pair.bookmark), &visit).await;
    let late: Value = within(late.json()).await.unwrap();
    assert_eq!(late["data"]["ipv4"], Value::Null);
    assert_eq!(addresses(&world, &pair), ["2001:db8::8".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn heartbeats_lengthen_nothing_before_a_sixteenth_is_gone() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_200).await;

    let first = world.report(&pair, OFFICE).await;
    assert_eq!(first["data"]["expires_at"], "2026-01-01T00:53:20Z");
    let next = first["data"]["next"].as_u64().unwrap();
    assert!((175..=200).contains(&next), "a sixteenth, a little less: {next}");
    world.clock.advance(Duration::from_secs(199));
    let beat = world.report(&pair, OFFICE).await;
    assert_eq!(beat["data"]["expires_at"], first["data"]["expires_at"]);
    assert_eq!(beat["data"]["moved"], false);
    let seen = world.engine.state().pair(pair.id).unwrap().last_seen();
    assert_eq!(seen, Some(world.engine.now()), "and yet it was heard");
    world.clock.advance(Duration::from_secs(1));
    let renewal = world.report(&pair, OFFICE).await;
    assert_eq!(renewal["data"]["expires_at"], "2026-01-01T00:56:40Z");
}

#[tokio::test]
async fn moves_have_a_budget_and_heartbeats_need_none() {
    let rates = RateLimits {
        writes: Budget::per_minute(NonZeroU32::new(3).unwrap()),
        ..RateLimits::DEFAULT
    };
    let world = World::with(Settings { rates, ..settings() });
    let org = world.org("acme").await;
    let (restless, calm) = (world.pair(org, 3_600).await, world.pair(org, 3_600).await);
    let post = async |pair: &NewPair, address: &str| {
        world.at(address).send(Method::POST, &url(&pair.bookmark)).await
    };

    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        assert_eq!(post(&restless, address).await.status(), 200);
    }
    let refused = post(&restless, "203.0.113.4").await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(addresses(&world, &restless), ["203.0.113.3".parse::<IpAddr>().unwrap()]);
    for _ in 0..10 {
        assert_eq!(post(&restless, "203.0.113.3").await.status(), 200);
    }
    assert_eq!(post(&calm, "203.0.113.4").await.status(), 200, "each pair has its own");
    world.clock.advance(Duration::from_secs(20));
    assert_eq!(post(&restless, "203.0.113.4").await.status(), 200);
}

#[tokio::test]
async fn a_bookmark_that_moves_too_often_stays_where_it_is_for_a_while() {
    let moves = Budget::per_hour(NonZeroU32::new(2).unwrap());
    let world =
        World::with(Settings { rates: RateLimits { moves, ..RateLimits::DEFAULT }, ..settings() });
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    let (pair, calm) = (world.pair(org, 7_200).await, world.pair(org, 7_200).await);
    let post = async |bookmark: &Token, address: &str| {
        world.at(address).send(Method::POST, &url(bookmark)).await
    };
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        assert_eq!(post(&pair.bookmark, address).await.status(), 200, "the first evicts nobody");
    }

    let refused = post(&pair.bookmark, "203.0.113.4").await;

    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"1800".parse().unwrap())
    );
    let refused = problem(refused).await;
    assert_eq!(refused["type"], "moved_too_often");
    assert!(
        refused["detail"].as_str().unwrap().contains("moved 2 times within an hour"),
        "{refused}"
    );
    let page = world.at("203.0.113.4").request(Method::POST, &url(&pair.bookmark));
    let page = within(page.header("accept", "text/html").send()).await.unwrap();
    assert_eq!(page.status(), 429);
    assert!(page.text().await.unwrap().contains("somebody else may be using it"));
    for (address, told) in [
        ("203.0.113.4", "<p>This bookmark has moved too often: it stays where it is until"),
        ("203.0.113.3", "<p>This address is on file until"),
    ] {
        let page = world.at(address).request(Method::GET, &url(&pair.bookmark));
        let page = within(page.header("accept", "text/html").send()).await.unwrap();
        assert!(page.text().await.unwrap().contains(told), "{address}");
    }
    assert_eq!(addresses(&world, &pair), ["203.0.113.3".parse::<IpAddr>().unwrap()]);
    assert_eq!(post(&calm.bookmark, "203.0.113.4").await.status(), 200, "each has its own");

    world.clock.advance(Duration::from_secs(1_799));
    assert_eq!(post(&pair.bookmark, "203.0.113.3").await.status(), 200);
    let until =
        world.engine.state().pair(pair.id).unwrap().stale_at("203.0.113.3".parse().unwrap());
    assert_eq!(
        until,
        Some(world.engine.now().saturating_add(Duration::from_secs(7_200))),
        "renewed"
    );
    assert_eq!(post(&pair.bookmark, "203.0.113.4").await.status(), 429);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(post(&pair.bookmark, "203.0.113.4").await.status(), 200);
    assert_eq!(post(&pair.bookmark, "203.0.113.5").await.status(), 429);

    let new =
        caller.json(Method::POST, &format!("/api/v1/pairs/{}/bookmark", pair.id), &json!({})).await;
    let new: Value = new.json().await.unwrap();
    let new: Token =
        new["data"]["bookmark"].as_str().unwrap().rsplit('/').next().unwrap().parse().unwrap();
    for address in ["203.0.113.5", "203.0.113.6", "203.0.113.7"] {
        assert_eq!(post(&new, address).await.status(), 200, "a new bookmark begins anew");
    }
    world.app.record_refusals().await;
    let counted = caller.data("/api/v1/account/audit?kind=requests_refused").await;
    let counted =
        counted.as_array().unwrap().iter().find(|it| it["details"]["refusal"] == "moved_too_often");
    let counted = counted.expect("the audit counts what was refused");
    assert_eq!(
        (&counted["details"]["count"], &counted["actor"]["id"]),
        (&json!(4), &json!(pair.id))
    );
}

#[tokio::test]
async fn a_report_waits_for_the_hosts_and_no_longer() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let invitation = world.invite(org, &[group]).await;
    let agent = enrol(&world, &invitation).await;
    world.at(HOST).send(Method::POST, &url(&agent.bookmark)).await;
    let host = world.holder(&agent.token, HOST);
    let targets: Vec<Value> = ["a", "b"]
        .iter()
        .map(|name| json!({ "name": name, "kind": "nftables", "groups": [group] }))
        .collect();
    let update = json!({ "host": "web-1", "version": "1", "targets": targets });
    host.json(Method::PUT, "/api/v1/agents/self", &update).await;
    let mut events = host.stream(&[group.to_string()]).await;
    events.event().await;

    let impatient = world.at(OFFICE).request(Method::POST, &url(&pair.bookmark));
    let impatient = within(impatient.header("prefer", "wait=0").send()).await.unwrap();
    assert_eq!(impatient.headers()["preference-applied"], "wait=0");
    let impatient: Value = within(impatient.json()).await.unwrap();
    assert_eq!(impatient["data"]["confirmation"], json!({ "open": 0, "of": 2 }));

    let patient = world.at("198.51.100.8").request(Method::POST, &url(&pair.bookmark));
    let patient = tokio::spawn(patient.header("prefer", "wait=30").send());
    events.event().await;
    events.event().await;
    let (revision, epoch, digest) = {
        let state = world.engine.state();
        let row = state.group(group).unwrap();
        let digest = row.list.digest_at(world.engine.now());
        (row.list_revision, world.engine.epoch(), digest)
    };
    for target in ["a", "b"] {
        let receipt = json!({ "receipts": [{ "target": target, "group": group, "epoch": epoch,
            "revision": revision, "digest": digest, "state": "applied", "entries": 1 }] });
        let noted = host.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
        assert_eq!(noted.status(), 204);
    }
    let patient = within(patient).await.unwrap().unwrap();
    let patient: Value = within(patient.json()).await.unwrap();
    assert_eq!(patient["data"]["confirmation"], json!({ "open": 2, "of": 2 }));

    let form = world.at("198.51.100.8").request(Method::POST, &url(&pair.bookmark));
    let form = form.header("accept", BROWSER).body("wait=5");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let html = within(within(form.send()).await.unwrap().text()).await.unwrap();
    assert!(html.contains("Open on 2 of 2."), "{html}");
}

#[tokio::test]
async fn a_host_that_holds_a_list_back_is_told_apart_from_one_that_says_nothing() {
    let world = World::start();
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let invitation = world.invite(org, &[group]).await;
    let agent = enrol(&world, &invitation).await;
    world.at(HOST).send(Method::POST, &url(&agent.bookmark)).await;
    let host = world.holder(&agent.token, HOST);
    let targets: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|name| json!({ "name": name, "kind": "nftables", "groups": [group] }))
        .collect();
    let update = json!({ "host": "web-1", "version": "1", "targets": targets });
    host.json(Method::PUT, "/api/v1/agents/self", &update).await;
    world.report(&pair, OFFICE).await;
    let say = async |target: &str, state: &str| {
        let (revision, epoch, digest) = {
            let state = world.engine.state();
            let row = state.group(group).unwrap();
            (row.list_revision, world.engine.epoch(), row.list.digest_at(world.engine.now()))
        };
        let receipt = json!({ "receipts": [{ "target": target, "group": group, "epoch": epoch,
            "revision": revision, "digest": digest, "state": state, "entries": 0 }] });
        let noted = host.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
        assert_eq!(noted.status(), 204);
    };
    let page = async || {
        let html = page(&world, Method::POST, &pair).await;
        let html = within(html.text()).await.unwrap();
        html.split("<script").next().unwrap().to_owned()
    };

    say("a", "held").await;
    say("b", "failed").await;

    let told = world.report(&pair, OFFICE).await;
    let expected = json!({ "open": 0, "of": 3, "held": 1, "failed": 1 });
    assert_eq!(told["data"]["confirmation"], expected);
    let html = page().await;
    for part in ["Open on 0 of 3.", "On 1 the host", "On 1 the list", "have not confirmed yet"] {
        assert!(html.contains(part), "{part}: {html}");
    }
    say("b", "applied").await;
    say("c", "applied").await;
    let html = page().await;
    assert!(html.contains("Open on 2 of 3.") && html.contains("holds part of the list"), "{html}");
    for part in ["have not confirmed yet", "could not be put in force"] {
        assert!(!html.contains(part), "{part}: {html}");
    }
    // Nothing is to come of a host that holds it back: nobody waits for that.
    let patient = world.at(OFFICE).request(Method::POST, &url(&pair.bookmark));
    let patient = within(patient.header("prefer", "wait=30").send()).await.unwrap();
    let patient: Value = within(patient.json()).await.unwrap();
    let expected = json!({ "open": 2, "of": 3, "held": 1 });
    assert_eq!(patient["data"]["confirmation"], expected);
}
