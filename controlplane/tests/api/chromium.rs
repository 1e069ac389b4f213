//! Chromium, driven through chromedriver (`.ci/prerequisites test` installs both), and what it
//! makes of the bookmark's page.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use postern_controlplane::app::Settings;
use postern_controlplane::config::FamilyUrls;
use postern_controlplane::domain::MemberKind;
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{HOST, enrol};
use crate::world::{BOUND, OFFICE, World, settings, within};

/// A window of Chromium. Both programs end with it.
struct Window {
    driver: Child,
    session: String,
    http: reqwest::Client,
}

impl Window {
    /// Opens a window whose requests come from `address`, as the trusted proxy tells it.
    async fn open(address: &str) -> Window {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is to be installed (`.ci/prerequisites test`)");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let port = line.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned();
            Some(port)
        });
        let server = format!("http://127.0.0.1:{}", port.unwrap());
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        // Chromium's own sandbox does not start for root; all that it opens here is ours.
        let options = json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"] });
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" } } } });
        let answer = within(http.post(format!("{server}/session")).json(&wanted).send()).await;
        let answer: Value = within(answer.unwrap().json()).await.unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let window = Window { driver, session: format!("{server}/session/{id}"), http };
        window.devtools("Network.enable", json!({})).await;
        let headers = json!({ "headers": { "x-forwarded-for": address } });
        window.devtools("Network.setExtraHTTPHeaders", headers).await;
        window
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}/{path}", self.session)).json(&body);
        let mut answer: Value = within(within(request.send()).await.unwrap().json()).await.unwrap();
        assert_eq!(answer["value"]["error"], Value::Null, "{answer}");
        answer["value"].take()
    }

    async fn devtools(&self, command: &str, params: Value) {
        self.ask("goog/cdp/execute", json!({ "cmd": command, "params": params })).await;
    }

    async fn go(&self, url: &str) {
        self.ask("url", json!({ "url": url })).await;
    }

    /// The value of an expression in the page.
    async fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression})");
        self.ask("execute/sync", json!({ "script": script, "args": [] })).await
    }

    async fn click(&self, selector: &str) {
        let element = json!({ "using": "css selector", "value": selector });
        let found = self.ask("element", element).await;
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.ask(&format!("element/{id}/click"), json!({})).await;
    }

    async fn text(&self) -> String {
        self.value("document.body.innerText").await.as_str().unwrap().to_owned()
    }

    /// Waits until the page says `part`.
    async fn says(&self, part: &str) -> String {
        let until = tokio::time::Instant::now() + BOUND;
        loop {
            let text = self.text().await;
            if text.contains(part) {
                return text;
            }
            assert!(tokio::time::Instant::now() < until, "{part} is not in: {text}");
        }
    }

    /// What went wrong in the page, as its console tells it.
    async fn complaints(&self) -> Vec<String> {
        let told = self.ask("se/log", json!({ "type": "browser" })).await;
        let severe = told.as_array().unwrap().iter().filter(|line| line["level"] == "SEVERE");
        severe.map(ToString::to_string).filter(|line| !line.contains("favicon.ico")).collect()
    }

    /// All addresses that were asked for since the last call, with the referrer that was sent.
    async fn requests(&self) -> Vec<(String, Option<String>)> {
        let told = self.ask("se/log", json!({ "type": "performance" })).await;
        let lines = told.as_array().unwrap().iter();
        let events = lines.map(|line| {
            let event: Value = serde_json::from_str(line["message"].as_str().unwrap()).unwrap();
            event["message"].clone()
        });
        let sent = events.filter(|event| event["method"] == "Network.requestWillBeSent");
        let shown = sent.map(|event| {
            let request = &event["params"]["request"];
            let referrer = request["headers"]["Referer"].as_str();
            let referrer = referrer.filter(|told| !told.is_empty()).map(ToOwned::to_owned);
            (request["url"].as_str().unwrap().to_owned(), referrer)
        });
        shown.collect()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // Told to end, chromedriver ends its Chromium first.
        let server = self.session.split("/session").next().unwrap_or_default();
        let address = server.trim_start_matches("http://");
        if let Ok(mut socket) = std::net::TcpStream::connect(address) {
            use std::io::{Read as _, Write as _};
            let path = self.session.trim_start_matches(server);
            let request =
                format!("DELETE {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
            let _ = socket.write_all(request.as_bytes());
            let _ = socket.set_read_timeout(Some(BOUND));
            let _ = socket.read(&mut [0; 1_024]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

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
    let window = Window::open(OFFICE).await;

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
    let (own, foreign) = (Window::open(OFFICE).await, Window::open("203.0.113.9").await);

    own.go(&url).await;
    own.click("input[type=checkbox]").await;
    assert_eq!(address(), None);
    own.click("button").await;
    own.says("This device reports by itself").await;
    assert_eq!(address().as_deref(), Some(OFFICE));
    assert_eq!(own.value("document.cookie").await, "", "no script sees what lets it");

    let headers = json!({ "headers": { "x-forwarded-for": "198.51.100.99" } });
    own.devtools("Network.setExtraHTTPHeaders", headers).await;
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
    let window = Window::open(OFFICE).await;

    window.go(&format!("{ours}{path}")).await;
    window.click("button").await;
    window.says("Your address is on file until ").await;
    let (there, until) = (format!("{nowhere}{path}"), tokio::time::Instant::now() + BOUND);
    while window.requests().await.iter().all(|(asked, _)| *asked != there) {
        assert!(tokio::time::Instant::now() < until, "the other name was not asked");
    }

    let text = window.text().await;
    assert!(text.contains("Your address is on file until "), "{text}");
    let complaints = window.complaints().await;
    assert!(complaints.iter().all(|told| told.contains(nowhere)), "{complaints:?}");
}
