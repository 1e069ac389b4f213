//! What Chromium makes of the bookmark's page.

use postern_controlplane::app::Settings;
use postern_controlplane::config::FamilyUrls;
use postern_controlplane::domain::MemberKind;
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{HOST, enrol};
use crate::window::{PATIENCE, Window};
use crate::world::{OFFICE, World, settings};

#[tokio::test(flavor = "multi_thread")]
async fn the_page_tells_each_host_as_it_confirms_without_being_loaded_again() {
    let world = World::start();
    let org = world.org("acme").await;
    let (group, pair) = (world.group(org).await, world.pair(org, 3_600).await);
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let agent = enrol(&world, &world.invite(org, &[group]).await).await;
    world.report_by(agent.bookmark.expose(), HOST).await;
    let host = world.holder(&agent.token, HOST);
    let targets: Vec<Value> = ["a", "b", "c"]
        .iter()
        .map(|name| json!({ "name": name, "kind": "nftables", "groups": [group] }))
        .collect();
    let update = json!({ "host": "web-1", "version": "1", "targets": targets });
    host.json(Method::PUT, "/api/v1/agents/self", &update).await;
    let say = async |target: &str, word: &str| {
        let (revision, epoch, digest) = {
            let state = world.engine.state();
            let row = state.group(group).unwrap();
            (row.list_revision, world.engine.epoch(), row.list.digest_at(world.engine.now()))
        };
        let receipt = json!({ "receipts": [{ "target": target, "group": group, "epoch": epoch,
            "revision": revision, "digest": digest, "state": word, "entries": 1 }] });
        let noted = host.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
        assert_eq!(noted.status(), 204);
    };
    let url = format!("http://{}/b/{}", world.address, pair.bookmark.expose());
    let window = Window::open_at(OFFICE).await;

    window.go(&url).await;
    window.says("This address is not on file.").await;
    window.value("window.stayed = true").await;
    window.click("button").await;
    window.says("Open on 0 of 3, until ").await;
    window.says("3 of them have not confirmed yet.").await;
    say("a", "applied").await;
    window.says("Open on 1 of 3, until ").await;
    say("b", "failed").await;
    window.says("On 1 the list could not be put in force.").await;
    say("b", "applied").await;
    say("c", "held").await;
    let text = window.says("Open on 2 of 3, until ").await;
    assert!(text.contains("On 1 the host's own policy holds part of the list back"), "{text}");
    assert!(!text.contains("not confirmed"), "{text}");
    assert!(text.contains("It closes in 59 min") || text.contains("It closes in 1 h"), "{text}");

    assert_eq!(window.value("window.stayed").await, true, "and it was loaded once");
    assert_eq!(window.complaints().await, Vec::<String>::new());
    let requests = window.requests().await;
    assert!(2 < requests.len(), "{requests:?}");
    let ours = format!("http://{}/", world.address);
    for (asked, referrer) in requests {
        assert!(asked.starts_with(&ours) || asked.starts_with("data:"), "{asked}");
        assert_eq!(referrer, None, "{asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_device_reports_when_its_page_is_opened_and_others_do_not() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let url = format!("http://{}/b/{}", world.address, pair.bookmark.expose());
    let address = || {
        let report = world.engine.state().pair(pair.id).unwrap().report;
        report.and_then(|report| report.ipv4).map(|spot| spot.address.to_string())
    };
    let (own, foreign) = (Window::open_at(OFFICE).await, Window::open_at("203.0.113.9").await);

    own.go(&url).await;
    own.click("input[type=checkbox]").await;
    assert_eq!(address(), None);
    own.click("button").await;
    own.says("This device reports by itself").await;
    assert_eq!(address().as_deref(), Some(OFFICE));
    assert_eq!(own.value("document.cookie").await, "", "no script sees what lets it");

    own.come_from("198.51.100.99").await;
    own.go(&url).await;
    own.says("Your address is on file until ").await;
    assert_eq!(address().as_deref(), Some("198.51.100.99"), "opened, and so reported");

    foreign.go(&url).await;
    foreign.says("This address is not on file.").await;
    foreign.value("document.dispatchEvent(new Event('visibilitychange'))").await;
    foreign.says("This address is not on file.").await;
    assert_eq!(address().as_deref(), Some("198.51.100.99"), "a robot with script opens nothing");

    own.click("button[value=forget]").await;
    own.says("From now on, report by itself").await;
    for window in [&own, &foreign] {
        assert_eq!(window.complaints().await, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_out_of_reach_is_asked_and_is_no_error() {
    let world = World::start();
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let ours = format!("http://{}", world.address);
    let path = format!("/b/{}", pair.bookmark.expose());
    // Nothing listens there.
    let nowhere = "http://localhost:1";
    let family_urls = FamilyUrls { ipv4: None, ipv6: Some(nowhere.parse().unwrap()) };
    world.app.reload(Settings { public_url: ours.parse().unwrap(), family_urls, ..settings() });
    let window = Window::open_at(OFFICE).await;

    window.go(&format!("{ours}{path}")).await;
    window.click("button").await;
    window.says("Your address is on file until ").await;
    let (there, until) = (format!("{nowhere}{path}"), tokio::time::Instant::now() + PATIENCE);
    while window.requests().await.iter().all(|(asked, _)| *asked != there) {
        assert!(tokio::time::Instant::now() < until, "the other name was not asked");
    }

    let text = window.text().await;
    assert!(text.contains("Your address is on file until "), "{text}");
    let complaints = window.complaints().await;
    assert!(complaints.iter().all(|told| told.contains(nowhere)), "{complaints:?}");
}
