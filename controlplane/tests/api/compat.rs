//! The façade for scripts that were written for IPAuth.

use std::process::Command;
use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::world::{NewPair, OFFICE, World, within};

fn query(pair: &NewPair) -> String {
    format!("/serverquery/?key={}", pair.server_key.expose())
}

fn whitelist(pair: &NewPair) -> String {
    format!("/whitelist/?key={}", pair.bookmark.expose())
}

/// What the published scripts make of an answer.
fn parsed_by_script(body: &str) -> String {
    let script = r#"printf '%s' "$1" | grep -oE '"ipaddress":"[0-9.]+' | cut -d'"' -f4"#;
    let output = Command::new("sh").args(["-c", script, "sh", body]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn body(world: &World, pair: &NewPair) -> (StatusCode, String) {
    let answer = world.at("203.0.113.1").get(&query(pair)).await;
    (answer.status(), within(answer.text()).await.unwrap())
}

#[tokio::test]
async fn stock_scripts_read_the_ipv4_address_and_nothing_else() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;

    let (status, none) = body(&world, &pair).await;
    assert!(status.is_client_error(), "curl -f must fail: {none}");
    assert_eq!(parsed_by_script(&none), "");

    world.report(&pair, "203.0.113.7").await;
    let (status, v4) = body(&world, &pair).await;
    assert_eq!(status, 200);
    assert_eq!(v4, r#"{"status":"success","ipaddress":"203.0.113.7"}"#);
    assert_eq!(parsed_by_script(&v4), "203.0.113.7");

    world.report(&pair, "2600:1700::5").await;
    let (status, v6) = body(&world, &pair).await;
    assert_eq!(status, 200);
    assert_eq!(v6, r#"{"status":"success","ipaddress6":"2600:1700::5"}"#);
    assert_eq!(parsed_by_script(&v6), "", "an IPv6 address must never be cut down to IPv4");

    world.clock.advance(Duration::from_secs(3_600));
    let (status, stale) = body(&world, &pair).await;
    assert!(status.is_client_error(), "{stale}");
}

#[tokio::test]
async fn only_pairs_that_opted_in_report_by_get() {
    let world = World::start();
    let org = world.org("acme").await;
    let (shy, bold) = (world.pair(org, 3_600).await, world.pair_with(org, 3_600, true).await);
    let address = |pair: &NewPair| world.engine.state().pair(pair.id).unwrap().report;

    let refused = world.at(OFFICE).get(&whitelist(&shy)).await;
    assert_eq!(refused.status(), 409);
    let browser = world.at(OFFICE).request(Method::GET, &whitelist(&shy));
    let sent = within(browser.header("accept", "text/html").send()).await.unwrap();
    assert_eq!(sent.status(), 303);
    assert_eq!(sent.headers()["location"], format!("/b/{}", shy.bookmark.expose()).as_str());
    assert_eq!(address(&shy), None);

    assert_eq!(world.at(OFFICE).send(Method::HEAD, &whitelist(&bold)).await.status(), 204);
    let ahead = world.at(OFFICE).request(Method::GET, &whitelist(&bold));
    let ahead = within(ahead.header("sec-purpose", "prefetch").send()).await.unwrap();
    assert_eq!(ahead.status(), 204);
    assert_eq!(address(&bold), None);

    let done = world.at(OFFICE).get(&whitelist(&bold)).await;
    assert_eq!(done.status(), 200);
    assert_eq!(done.headers()["cache-control"], "no-store");
    let text = within(done.text()).await.unwrap();
    assert_eq!(text, format!(r#"{{"status":"success","ipaddress":"{OFFICE}"}}"#));
}
