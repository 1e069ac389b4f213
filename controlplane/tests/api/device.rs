//! The bookmark's page as it watches, and devices that report by themselves.

use std::num::NonZeroU32;
use std::time::Duration;

use postern_controlplane::app::Settings;
use postern_controlplane::config::FamilyUrls;
use postern_controlplane::domain::{Command, MemberKind};
use postern_controlplane::http::limit::{Budget, RateLimits};
use postern_shared::time::Expiry;
use postern_shared::token::{Token, TokenKind};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::world::{NewPair, OFFICE, World, settings, within};

const PAGE: &str = "text/html";
const FORM: &str = "application/x-www-form-urlencoded";
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn path(bookmark: &Token) -> String {
    format!("/b/{}", bookmark.expose())
}

async fn world() -> (World, NewPair) {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    (world, pair)
}

/// What the page's form sends.
async fn press(world: &World, path: &str, body: &'static str, cookie: &str) -> Response {
    let request = world.at(OFFICE).request(Method::POST, path).header("accept", PAGE);
    let request = request.header("content-type", FORM).header("sec-fetch-site", "same-origin");
    within(request.header("cookie", cookie).body(body).send()).await.unwrap()
}

async fn says_that_it_reports_by_itself(world: &World, path: &str, cookie: &str) -> bool {
    let request = world.at(OFFICE).request(Method::GET, path).header("accept", PAGE);
    let page = within(request.header("cookie", cookie).send()).await.unwrap();
    within(page.text()).await.unwrap().contains("<form method=\"post\" data-by-itself")
}

/// The cookie of an answer, as it is sent back, and what the browser is told of it.
fn cookie(answer: &Response) -> Option<(String, String)> {
    let line = answer.headers().get("set-cookie")?.to_str().unwrap();
    let (value, attributes) = line.split_once("; ").unwrap();
    Some((value.to_owned(), attributes.to_owned()))
}

fn is_on_file(world: &World, pair: &NewPair) -> bool {
    world.engine.state().pair(pair.id).unwrap().report.is_some()
}

#[tokio::test]
async fn who_watches_is_told_and_reports_nothing() {
    let (world, pair) = world().await;
    let group = world.group(world.engine.state().pair(pair.id).unwrap().record.org);
    let group = group.await;
    let org = world.engine.state().pair(pair.id).unwrap().record.org;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let watched = format!("{}/state", path(&pair.bookmark));

    let nothing = world.at(OFFICE).data(&watched).await;
    assert_eq!(nothing["expires_at"], Value::Null);
    assert!(!is_on_file(&world, &pair));
    let report = world.report(&pair, OFFICE).await;
    let known = world.at(OFFICE).data(&watched).await;
    assert_eq!(known["expires_at"], report["data"]["expires_at"]);
    assert_eq!(known["ipv4"], OFFICE);
    assert_eq!(known["confirmation"], json!({ "open": 0, "of": 0 }));
    let elsewhere = world.at("203.0.113.9").data(&watched).await;
    assert_eq!(elsewhere["expires_at"], Value::Null, "only the caller's own address is told");
    assert_eq!(elsewhere["ipv4"], Value::Null);

    world.clock.advance(Duration::from_secs(3_600));
    let late = world.at(OFFICE).data(&watched).await;
    assert_eq!(late["expires_at"], Value::Null, "watching lengthened nothing");
    let ahead = world.at(OFFICE).request(Method::GET, &watched).header("purpose", "prefetch");
    assert_eq!(within(ahead.send()).await.unwrap().status(), 204);
    let answer = world.at(OFFICE).send(Method::POST, &watched).await;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.headers().get("set-cookie"), None);
}

#[tokio::test]
async fn a_device_is_remembered_after_a_click_that_asks_for_it_and_no_other() {
    let (world, pair) = world().await;
    let path = path(&pair.bookmark);

    for body in ["wait=0", ""] {
        assert_eq!(cookie(&press(&world, &path, body, "").await), None, "{body}");
    }
    let answer = press(&world, &path, "wait=0&device=remember", "").await;
    assert_eq!(answer.status(), 200);
    let (device, attributes) = cookie(&answer).unwrap();
    assert!(device.starts_with("__Secure-postern-device="), "{device}");
    assert_eq!(
        attributes,
        format!("Path={path}; Secure; HttpOnly; SameSite=Strict; Max-Age=7776000")
    );
    assert!(says_that_it_reports_by_itself(&world, &path, &device).await);
    assert!(!says_that_it_reports_by_itself(&world, &path, "").await);

    let again = press(&world, &path, "wait=0&device=itself", &device).await;
    assert_eq!(again.status(), 200);
    assert!(cookie(&again).is_some_and(|(renewed, _)| renewed != device), "used, so renewed");
    let forgotten = press(&world, &path, "wait=0&device=forget", &device).await;
    let (nothing, attributes) = cookie(&forgotten).unwrap();
    assert_eq!(nothing, "__Secure-postern-device=");
    assert!(attributes.ends_with("Max-Age=0"), "{attributes}");
}

#[tokio::test]
async fn nobody_reports_by_itself_without_a_good_cookie_of_its_own() {
    let (world, pair) = world().await;
    let org = world.engine.state().pair(pair.id).unwrap().record.org;
    let (other, strange) = (world.pair(org, 3_600).await, world.pair(org, 3_600).await);
    let (mine, theirs) = (path(&pair.bookmark), path(&other.bookmark));
    let device = async |path: &str| {
        let answer = press(&world, path, "wait=0&device=remember", "").await;
        cookie(&answer).unwrap().0
    };
    let (good, foreign) = (device(&mine).await, device(&theirs).await);
    let mut altered = good.clone();
    let last = if altered.ends_with('A') { "B" } else { "A" };
    altered.replace_range(altered.len() - 2..altered.len() - 1, last);
    let stranger = path(&strange.bookmark);

    for (path, cookie) in [
        (&stranger, String::new()),
        (&stranger, good.clone()),
        (&stranger, foreign.clone()),
        (&stranger, "__Secure-postern-device=".to_owned()),
        (&stranger, "__Secure-postern-device=AAAA".to_owned()),
        (&mine, foreign),
        (&mine, altered),
        (&mine, format!("{good}; {good}")),
    ] {
        let answer = press(&world, path, "device=itself", &cookie).await;
        assert_eq!(answer.status(), 403, "{cookie}");
        assert_eq!(answer.headers().get("set-cookie"), None);
    }
    assert!(!is_on_file(&world, &strange));
    // What a page of others makes a browser send, and what no browser says at all.
    for site in [Some("cross-site"), Some("same-site"), Some("none"), None] {
        for body in ["device=itself", "device=remember", "device=forget"] {
            let request = world.at(OFFICE).request(Method::POST, &mine).header("cookie", &good);
            let request = request.header("content-type", FORM).body(body);
            let request = match site {
                Some(site) => request.header("sec-fetch-site", site),
                None => request,
            };
            let answer = within(request.send()).await.unwrap();
            assert_eq!(answer.status(), 403, "{site:?} {body}");
            assert_eq!(answer.headers().get("set-cookie"), None);
        }
    }
    let ahead = world.at(OFFICE).request(Method::POST, &mine).header("cookie", &good);
    let ahead = ahead.header("sec-fetch-site", "same-origin").header("sec-purpose", "prerender");
    let ahead = ahead.header("content-type", FORM).body("device=itself");
    assert_eq!(within(ahead.send()).await.unwrap().status(), 204, "not even with the cookie");
    assert_eq!(press(&world, &mine, "device=itself", &good).await.status(), 200);
}

#[tokio::test]
async fn a_device_that_reports_by_itself_moves_no_more_often_than_any_other() {
    let moves = Budget::per_hour(NonZeroU32::MIN);
    let world =
        World::with(Settings { rates: RateLimits { moves, ..RateLimits::DEFAULT }, ..settings() });
    let pair = world.pair(world.org("acme").await, 3_600).await;
    let path = path(&pair.bookmark);
    let clicked = press(&world, &path, "device=remember", "").await;
    let (cookie, _) = cookie(&clicked).expect("the device is remembered");
    for elsewhere in ["203.0.113.8", "203.0.113.9"] {
        world.at(elsewhere).send(Method::POST, &path).await;
    }

    let by_itself = press(&world, &path, "device=itself", &cookie).await;

    assert_eq!(by_itself.status(), 429);
    assert_eq!(by_itself.headers()["retry-after"], "3600");
    let report = world.engine.state().pair(pair.id).unwrap().report.unwrap();
    let on_file: Vec<String> = report.networks().map(|(it, _)| it.address().to_string()).collect();
    assert_eq!(on_file, ["203.0.113.8"], "the second move was one too many");
}

#[tokio::test]
async fn a_new_bookmark_a_deletion_and_time_end_what_a_device_may() {
    let (world, pair) = world().await;
    let org = world.engine.state().pair(pair.id).unwrap().record.org;
    let path = path(&pair.bookmark);
    let remembered = press(&world, &path, "device=remember", "").await;
    let (device, _) = cookie(&remembered).unwrap();

    world.clock.advance(90 * DAY - Duration::from_secs(1));
    assert!(says_that_it_reports_by_itself(&world, &path, &device).await);
    world.clock.advance(Duration::from_secs(1));
    assert!(!says_that_it_reports_by_itself(&world, &path, &device).await);
    assert_eq!(press(&world, &path, "device=itself", &device).await.status(), 403);

    let remembered = press(&world, &path, "device=remember", "").await;
    let (device, _) = cookie(&remembered).unwrap();
    let renewed = world.engine.chance().token(TokenKind::Bookmark);
    let hash = renewed.hash();
    world.order(Command::RotateBookmark { org, pair: pair.id, hash, expected: None }).await;
    let renewed = format!("/b/{}", renewed.expose());
    assert_eq!(press(&world, &path, "device=itself", &device).await.status(), 404);
    assert_eq!(press(&world, &renewed, "device=itself", &device).await.status(), 403);
    assert!(!says_that_it_reports_by_itself(&world, &renewed, &device).await);
    assert!(!is_on_file(&world, &pair));

    let remembered = press(&world, &renewed, "device=remember", "").await;
    let (device, _) = cookie(&remembered).unwrap();
    world.order(Command::DeletePair { org, pair: pair.id, expected: None }).await;
    assert_eq!(press(&world, &renewed, "device=itself", &device).await.status(), 404);
}

#[tokio::test]
async fn the_name_of_the_other_family_answers_our_page_and_nobody_elses() {
    let family_urls = FamilyUrls {
        ipv4: Some("https://ipv4.plane.example".parse().unwrap()),
        ipv6: Some("https://ipv6.plane.example:8443".parse().unwrap()),
    };
    let world = World::with(Settings { family_urls, ..settings() });
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let path = path(&pair.bookmark);
    let page = async |address: &str| {
        let request = world.at(address).request(Method::GET, &path).header("accept", PAGE);
        let page = within(request.send()).await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
        (policy, within(page.text()).await.unwrap())
    };

    let (policy, html) = page(OFFICE).await;
    assert!(policy.ends_with("connect-src 'self' https://ipv6.plane.example:8443"), "{policy}");
    assert!(html.contains("data-other=\"https://ipv6.plane.example:8443\""), "{html}");
    let (policy, _) = page("2001:db8::7").await;
    assert!(policy.ends_with("connect-src 'self' https://ipv4.plane.example"), "{policy}");

    let first = world.report(&pair, OFFICE).await;
    let visit = format!("visit={}&wait=0", first["data"]["visit"].as_str().unwrap());
    for (origin, allowed) in [
        ("https://plane.example", Some("https://plane.example")),
        ("https://plane.example.evil.example", None),
        ("https://ipv4.plane.example", None),
        ("http://plane.example", None),
        ("null", None),
    ] {
        let request = world.at("2001:db8::7").request(Method::POST, &path);
        let request = request.header("origin", origin).header("host", "ipv6.plane.example");
        let request = request.header("content-type", FORM).body(visit.clone());
        let answer = within(request.send()).await.unwrap();
        let told = answer.headers().get("access-control-allow-origin");
        assert_eq!(told.map(|told| told.to_str().unwrap()), allowed, "{origin}");
        assert_eq!(answer.headers().get("access-control-allow-credentials"), None);
        let told: Value = within(answer.json()).await.unwrap();
        assert_eq!(
            (&told["data"]["ipv4"], &told["data"]["ipv6"]),
            (&json!(OFFICE), &json!("2001:db8::7"))
        );
    }
    let asked = world.at(OFFICE).request(Method::OPTIONS, &path);
    let asked = asked.header("origin", "https://plane.example");
    let asked = asked.header("access-control-request-method", "POST");
    let asked = within(asked.send()).await.unwrap();
    assert_eq!(asked.headers().get("access-control-allow-origin"), None, "no more than a form");
}
