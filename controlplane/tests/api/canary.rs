//! No secret that was ever told is anywhere but in the one answer that told it (G6).

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use postern_controlplane::domain::{Command, MemberKind, Purpose, Role};
use postern_controlplane::metrics::Metrics;
use postern_controlplane::store::{Options, RedbStore};
use postern_shared::ids::Epoch;
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::agents::{HOST, enrol};
use crate::browser::{Browser, KNOWN, LOGIN, Page, Person, join, next_step, ticket};
use crate::world::{OFFICE, World, generous, within};

/// Everything that is logged, at the finest level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn secrets_are_in_no_log_no_failure_no_figure_and_no_file() {
    let log = Log::default();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).init();
    let metrics = Metrics::install().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    let store = RedbStore::create(&file, Epoch::from_random([1; 16]), Options::default()).unwrap();
    let world = World::on(Box::new(store), generous());

    let org = world.org("acme").await;
    let key = world.key(org).await;
    let group = world.group(org).await;
    let invitation = world.invite(org, &[group]).await;
    let agent = enrol(&world, &invitation).await;
    let caller = world.holder(&key, OFFICE);
    let answer = caller.json(Method::POST, "/api/v1/pairs", &json!({ "name": "laptop" })).await;
    let pair: Value = within(answer.json()).await.unwrap();
    let secret = |name: &str| pair["data"][name].as_str().unwrap().to_owned();
    let member = MemberKind::Pair(pair["data"]["id"].as_str().unwrap().parse().unwrap());
    world.member(org, group, member, Expiry::Never).await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let (recovery, _, way_back) = {
        let user = world.engine.state().user(zoe.id).unwrap().clone();
        ticket(&world, &user, Purpose::Recovery)
    };
    world.order(Command::Recover(recovery)).await;
    let shown = shown_by_the_console(&world, &mut browser, &zoe).await;
    let device = remembered(&world, &secret("bookmark")).await;
    let secrets = [
        device,
        zoe.password.clone(),
        zoe.typed_seed.clone(),
        zoe.recovery[0].clone(),
        browser.cookies[LOGIN].clone(),
        browser.cookies[KNOWN].clone(),
        way_back.expose().to_owned(),
        key.expose().to_owned(),
        invitation.expose().to_owned(),
        agent.token.expose().to_owned(),
        agent.bookmark.expose().to_owned(),
        secret("bookmark"),
        secret("server_key"),
    ];
    let secrets: Vec<String> = secrets.into_iter().chain(shown).collect();

    // Every secret in every place where one can be sent, in ways that work and ways that fail.
    let mut told = String::new();
    for text in &secrets {
        for (path, method) in [
            (format!("/b/{text}"), Method::POST),
            (format!("/b/{text}"), Method::GET),
            (format!("/b/{}x", text.get(..39).unwrap_or(text)), Method::GET),
            (format!("/welcome/{text}"), Method::POST),
            (format!("/reset/{text}"), Method::GET),
            (format!("/serverquery/?key={text}"), Method::GET),
            (format!("/whitelist/?key={text}"), Method::GET),
            (format!("/nowhere/{text}"), Method::GET),
            (format!("/api/v1/pairs/{text}"), Method::GET),
            (format!("/api/v1/pairs?cursor={text}"), Method::GET),
            (format!("/api/v1/stream?group={text}"), Method::GET),
            ("/api/v1/agents/enroll".to_owned(), Method::POST),
            (format!("/api/v1/groups/{group}/ips"), Method::GET),
        ] {
            for address in [OFFICE, HOST] {
                let request = world.at(address).request(method.clone(), &path);
                let request = request.header("authorization", format!("Bearer {text}"));
                let body = format!("{{\"visit\":\"{text}\"}}");
                let request = match method {
                    Method::POST => request.header("content-type", "application/json").body(body),
                    _ => request,
                };
                let answer = within(request.send()).await.unwrap();
                if answer.headers().contains_key("location") {
                    continue; // a browser is sent to the page of the very secret it came with
                }
                told.push_str(&format!("{:?}", answer.headers()));
                if answer.headers()["content-type"] != "text/event-stream" {
                    told.push_str(&within(answer.text()).await.unwrap());
                }
            }
        }
    }
    // And into each field of the form that signs in, but the one that is shown again.
    for text in &secrets {
        for name in ["password", "code", "org", "proof"] {
            let fields = [("email", "zoe@example.org"), (name, text)];
            let page = browser.fill_in("/sign-in", "/sign-in", &fields).await;
            told.push_str(&page.text);
        }
    }
    told.push_str(&through_the_console(&mut browser, &secrets).await);
    world.report_by(&secret("bookmark"), OFFICE).await;
    world.engine.stop().await;

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("an agent has enrolled"), "the log was watched");
    assert!(logged.contains("an invitation was accepted"), "of people, too");
    let request = Request::get("/metrics").header("host", "127.0.0.1").body(Body::empty()).unwrap();
    let local = "127.0.0.1:9643".parse().unwrap();
    let figures = metrics.router(local).oneshot(request).await.unwrap().into_body();
    let figures = axum::body::to_bytes(figures, usize::MAX).await.unwrap();
    let figures = String::from_utf8(figures.to_vec()).unwrap();
    let stored = std::fs::read(&file).unwrap();
    assert!(contains(&stored, b"gatekeeper"), "the file was read");
    for text in &secrets {
        // A part is as bad as the whole.
        let core = &text[4..20];
        for (place, text) in [("log", &logged), ("answers", &told), ("figures", &figures)] {
            assert!(!text.contains(core), "a secret is in the {place}");
        }
        assert!(!contains(&stored, core.as_bytes()), "a {} is in the file", &text[..4]);
    }

    assert!(!contains(&stored, &zoe.seed), "the authenticator's seed is in the file");
}

/// What pages of the console show once: a key with its bookmark, a host's invitation, a link.
async fn shown_by_the_console(
    world: &World,
    browser: &mut Browser<'_>,
    zoe: &Person,
) -> Vec<String> {
    next_step(world);
    let (keys, hosts, people) = ("/console/keys", "/console/agents", "/console/people");
    let code = zoe.code(world, 0);
    let fields =
        [("name", "rover"), ("scope-groups.read", "yes"), ("lock", "new"), ("code", &*code)];
    let key = browser.fill_in(keys, keys, &fields).await;
    let host = browser.fill_in(hosts, hosts, &[("name", "db-1"), ("group-1", "yes")]).await;
    let fields = [("email", "max@example.org"), ("role", "member")];
    let link = browser.fill_in(people, people, &fields).await;
    let token = |page: &Page, id: &str| {
        let shown = page.text.split_once(&format!("id=\"{id}\">")).expect(&page.text).1;
        let shown = shown.split('<').next().unwrap();
        shown.rsplit(['/', '#']).next().unwrap().to_owned()
    };
    let all = [(&key, "secret"), (&key, "bookmark"), (&host, "invitation"), (&link, "link")];
    let tokens = all.map(|(page, id)| token(page, id));
    let kinds: Vec<&str> = tokens.iter().map(|token| &token[..4]).collect();
    assert_eq!(kinds[..3], ["pok_", "pob_", "poe_"]);
    tokens.to_vec()
}

/// The cookie of a device that may report by itself.
async fn remembered(world: &World, bookmark: &str) -> String {
    let request = world.at(OFFICE).request(Method::POST, &format!("/b/{bookmark}"));
    let request = request.header("accept", "text/html").header("sec-fetch-site", "same-origin");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = within(request.body("wait=0&device=remember").send()).await.unwrap();
    let line = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let value = line.split(';').next().unwrap().split_once('=').unwrap().1;
    assert!(20 < value.len(), "{line}");
    value.to_owned()
}

/// Every secret in every place of the console where one can be sent and is not shown again, and all
/// that the console shows otherwise.
async fn through_the_console(browser: &mut Browser<'_>, secrets: &[String]) -> String {
    let mut told = String::new();
    let proof = browser.get("/console").await.field("proof").expect("signed in").to_owned();
    for text in secrets {
        for place in [
            "/console/keys/",
            "/console/keys?after=",
            "/console/agents/",
            "/console/people/",
            "/console/groups/",
            "/console/audit?after=",
            "/console/audit?kind=",
        ] {
            told.push_str(&browser.get(&format!("{place}{text}")).await.text);
        }
        let key = [("name", "x"), ("scope-pairs.read", "yes"), ("origins", "192.0.2.1")];
        for (proof, code) in [(&*proof, &**text), (&**text, "000000")] {
            let fields = [&key[..], &[("proof", proof), ("once", "x"), ("code", code)]].concat();
            told.push_str(&browser.post("/console/keys", &fields).await.text);
        }
    }
    for page in ["/console", "/console/keys", "/console/agents", "/console/people"] {
        told.push_str(&browser.get(page).await.text);
    }
    let audit = browser.get("/console/audit").await.text;
    assert!(audit.contains("minted the key rover"), "{audit}");
    told + &audit + &browser.get("/console/audit/export").await.text
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
