//! Pairs in the console, held against the API and the engine's own state.

use std::collections::BTreeSet;
use std::time::Duration;

use postern_controlplane::app::Settings;
use postern_controlplane::domain::Role;
use postern_controlplane::http::limit::RateLimits;
use postern_controlplane::store::MemoryStore;
use postern_shared::ids::Epoch;
use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::{Browser, Page, join};
use crate::console_groups::admin;
use crate::mail::Sink;
use crate::world::{OFFICE, World, generous};

/// Sends a form of a pair's page.
async fn send(browser: &mut Browser<'_>, number: u64, to: &str, fields: &[(&str, &str)]) -> Page {
    let page = format!("/console/pairs/{number}");
    browser.fill_in(&page, &format!("{page}{to}"), fields).await
}

/// Makes a pair, and answers the page that shows its secrets.
async fn make(browser: &mut Browser<'_>, fields: &[(&str, &str)]) -> Page {
    browser.fill_in("/console/pairs", "/console/pairs", fields).await
}

/// What is shown once: all secrets of a page, in their order.
fn secrets(page: &Page) -> Vec<String> {
    let parts = page.text.split("class=\"secret\">").skip(1);
    let texts = parts.map(|part| part.split("</p>").next().unwrap());
    let bare = texts.map(|text| text.split_once("noreferrer\">").map_or(text, |(_, rest)| rest));
    bare.map(|text| text.split('<').next().unwrap().to_owned()).collect()
}

/// What another decoder reads in the page's picture.
fn decoded(page: &Page) -> String {
    const SCALE: usize = 4;
    let after =
        |mark: &str| page.text.split_once(mark).unwrap().1.split('"').next().unwrap().to_owned();
    let width: usize = after("viewBox=\"0 0 ").split(' ').next().unwrap().parse().unwrap();
    let squares = after("fill=\"#000\" d=\"");
    let dark: std::collections::BTreeSet<(usize, usize)> = squares
        .split_terminator("h1v1h-1z")
        .map(|square| {
            let (x, y) = square.strip_prefix('M').unwrap().split_once(' ').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        })
        .collect();
    let is_dark = |x: usize, y: usize| dark.contains(&(x / SCALE, y / SCALE));
    let side = width * SCALE;
    let mut picture = rqrr::PreparedImage::prepare_from_bitmap(side, side, is_dark);
    picture.detect_grids()[0].decode().unwrap().1
}

/// Reports by a link, from an address.
async fn report(world: &World, link: &str, address: &str) -> u16 {
    let path = link.strip_prefix("https://plane.example").unwrap();
    world.at(address).send(Method::POST, path).await.status().as_u16()
}

#[tokio::test]
async fn a_pair_is_made_and_its_secrets_are_shown_once_as_link_and_picture() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let key = world.key(org).await;
    let api = world.holder(&key, OFFICE);

    let fields = [("name", "Zoe's <b>"), ("email", "zoe@example.org"), ("ttl", "2h")];
    let made = make(&mut browser, &fields).await;

    assert_eq!((made.status, made.header("cache-control")), (200, "no-store"), "{}", made.text);
    let shown = secrets(&made);
    let [link, server_key, server_url] = &shown[..] else { panic!("{shown:?}") };
    assert!(link.starts_with("https://plane.example/b/pob_"), "{link}");
    assert_eq!(decoded(&made), *link);
    assert_eq!(server_url, &format!("https://plane.example/serverquery/?key={server_key}"));
    assert!(made.text.contains("<h1>Zoe&#39;s &#60;b&#62;</h1>"), "{}", made.text);
    assert!(!made.text.contains("Mail it"), "this plane sends no mail");
    let pair = api.data("/api/v1/pairs/1").await;
    assert_eq!(pair["contact_email"], "zoe@example.org");
    assert_eq!((&pair["name"], &pair["ttl"]), (&json!("Zoe's <b>"), &json!(7_200)));

    assert_eq!(report(&world, link, "203.0.113.9").await, 200);
    let answer = world.at(OFFICE).get(&server_url["https://plane.example".len()..]).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["ipaddress"], "203.0.113.9");
    for path in ["/console/pairs", "/console/pairs/1"] {
        let page = browser.get(path).await;
        assert!(!page.text.contains("pob_") && !page.text.contains("pos_"), "{path}");
        for part in ["Zoe&#39;s &#60;b&#62;", "203.0.113.9", "zoe@example.org", "2 h"] {
            assert!(page.text.contains(part), "{path}: {part}: {}", page.text);
        }
    }
}

#[tokio::test]
async fn mistakes_are_told_all_at_once_and_make_nothing() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;

    let wrong = make(&mut browser, &[("name", ""), ("email", "zoe <b>"), ("ttl", "soon")]).await;

    assert_eq!(wrong.status, 422);
    for part in [
        "the name must not be empty.",
        "the owner&#39;s mail address is not a mail address; write name@example.org.",
        "the time is `soon`; write a span of time such as 90s, 15m, 12h or 7d.",
        "value=\"zoe &#60;b&#62;\"",
    ] {
        assert!(wrong.text.contains(part), "{part}: {}", wrong.text);
    }
    assert!(world.engine.state().org(org).unwrap().pairs.is_empty());
}

#[tokio::test]
async fn a_new_bookmark_and_a_new_server_key_end_the_old_ones() {
    let world = World::with(generous());
    let (_, mut browser) = admin(&world).await;
    let first = secrets(&make(&mut browser, &[("name", "laptop")]).await);
    report(&world, &first[0], "203.0.113.9").await;
    let where_it_is = async |url: &str| {
        let answer = world.at(OFFICE).get(&url["https://plane.example".len()..]).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    };

    let rotated = send(&mut browser, 1, "/bookmark", &[]).await;
    let second = secrets(&rotated);
    assert_eq!(
        (rotated.status, rotated.header("cache-control"), second.len()),
        (200, "no-store", 1)
    );
    assert_eq!(report(&world, &first[0], "203.0.113.10").await, 404);
    assert!(!where_it_is(&first[2]).await.1.contains("203.0.113"), "what it reported is closed");
    assert_eq!(report(&world, &second[0], "203.0.113.11").await, 200);
    assert!(where_it_is(&first[2]).await.1.contains("203.0.113.11"));

    let rotated = secrets(&send(&mut browser, 1, "/server-key", &[]).await);
    assert!(!where_it_is(&first[2]).await.1.contains("203.0.113"), "the old one reads nothing");
    assert!(where_it_is(&rotated[1]).await.1.contains("203.0.113.11"), "and nothing was closed");
}

#[tokio::test]
async fn a_pair_is_changed_put_into_groups_closed_and_deleted() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let (group, key) = (world.group(org).await, world.key(org).await);
    let api = world.holder(&key, OFFICE);
    let link = secrets(&make(&mut browser, &[("name", "laptop")]).await).remove(0);
    let ips = async || api.data("/api/v1/groups/1/ips").await["ips"].clone();

    let fields =
        [("name", "tablet"), ("email", "max@example.org"), ("ttl", "90s"), ("by-get", "yes")];
    assert_eq!(send(&mut browser, 1, "", &fields).await.status, 303);
    let pair = api.data("/api/v1/pairs/1").await;
    assert_eq!((&pair["name"], &pair["ttl"]), (&json!("tablet"), &json!(90)));
    assert_eq!(pair["contact_email"], "max@example.org");
    assert_eq!(pair["reports_by_get"], true);
    let wrong = send(&mut browser, 1, "", &[("name", "tablet"), ("ttl", "")]).await;
    assert!(wrong.text.contains("the time is missing; write"), "{}", wrong.text);
    assert_eq!(send(&mut browser, 1, "", &[("name", "tablet"), ("ttl", "1h")]).await.status, 303);
    let pair = api.data("/api/v1/pairs/1").await;
    assert_eq!((&pair["contact_email"], &pair["reports_by_get"]), (&Value::Null, &json!(false)));

    assert_eq!(send(&mut browser, 1, "/groups", &[("group", "9")]).await.status, 422);
    assert_eq!(send(&mut browser, 1, "/groups", &[("group", "1")]).await.status, 303);
    assert_eq!(send(&mut browser, 1, "/groups", &[("group", "1")]).await.status, 422);
    report(&world, &link, "203.0.113.9").await;
    assert_eq!(ips().await, json!(["203.0.113.9"]));
    assert_eq!(send(&mut browser, 1, "/close", &[]).await.status, 303);
    assert_eq!(ips().await, json!([]));
    assert_eq!(send(&mut browser, 1, "/close", &[]).await.status, 303, "twice is no error");
    let audit = api.data("/api/v1/account/audit?limit=100").await;
    let closed: Vec<&Value> = audit
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record.to_string().contains("addresses_closed"))
        .collect();
    assert_eq!(closed.len(), 1, "{audit}");
    assert!(closed[0].to_string().contains("user"), "{}", closed[0]);
    assert_eq!(report(&world, &link, "203.0.113.9").await, 200);
    assert_eq!(ips().await, json!(["203.0.113.9"]), "its bookmark opens again");

    let asked = browser.get("/console/pairs/1/delete").await;
    assert!(asked.text.contains("its address closes in 1 group."), "{}", asked.text);
    assert_eq!(ips().await, json!(["203.0.113.9"]), "a GET deletes nothing");
    let gone = send(&mut browser, 1, "/delete", &[]).await;
    assert_eq!((gone.status, gone.header("location")), (303, "/console/pairs"));
    assert_eq!(ips().await, json!([]));
    assert_eq!(report(&world, &link, "203.0.113.9").await, 404);
    assert_eq!(browser.get("/console/pairs/1").await.status, 404);
    assert!(world.engine.state().group(group).unwrap().members.is_empty());
}

#[tokio::test]
async fn many_pairs_are_paged_and_found_by_name_mail_or_address() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    make(&mut browser, &[("name", "Needle"), ("email", "needle@example.org")]).await;
    for _ in 0..100 {
        world.pair(org, 3_600).await;
    }
    let last = world.pair(org, 3_600).await;
    world.report(&last, "203.0.113.77").await;
    let rows = |page: &Page| page.text.matches("<tr>").count() - 1;

    let first = browser.get("/console/pairs").await;
    assert_eq!(rows(&first), 100);
    assert!(first.text.contains("href=\"/console/pairs?after=100&amp;find=\""), "{}", first.text);
    let rest = browser.get("/console/pairs?after=100&find=").await;
    assert_eq!(rows(&rest), 2);
    assert!(!rest.text.contains("More pairs"));
    for (find, number) in [("NEEDLE", 1), ("needle%40", 1), ("113.77", 102)] {
        let found = browser.get(&format!("/console/pairs?find={find}")).await;
        let link = format!("<a href=\"/console/pairs/{number}\">");
        assert!(rows(&found) == 1 && found.text.contains(&link), "{find}: {}", found.text);
    }
    let none = browser.get("/console/pairs?find=%3Cb%3Ex").await;
    assert!(none.text.contains("No pair has that in its name"), "{}", none.text);
    assert!(none.text.contains("value=\"&#60;b&#62;x\""), "{}", none.text);
}

#[tokio::test]
async fn a_bookmark_is_mailed_to_its_owner_from_the_page_that_shows_it() {
    let mut sink = Sink::start().await;
    let store = Box::new(MemoryStore::new(Epoch::from_random([1; 16])));
    let world = World::mailing(store, generous(), Some(sink.transport()));
    let (org, mut browser) = admin(&world).await;
    let key = world.key(org).await;
    let unnamed = make(&mut browser, &[("name", "server")]).await;
    assert!(!unnamed.text.contains("Mail it"), "it has no owner");
    let made = make(&mut browser, &[("name", "laptop"), ("email", "zoe@example.org")]).await;
    assert!(made.text.contains("Mail it to zoe@example.org"), "{}", made.text);
    let (proof, bookmark) = (made.field("proof").unwrap(), made.field("bookmark").unwrap());

    let fields = [("proof", proof), ("bookmark", bookmark)];
    let sent = browser.post("/console/pairs/2/mail", &fields).await;

    assert_eq!((sent.status, sent.header("location")), (303, "/console/pairs/2"), "{}", sent.text);
    let mail = sink.mail().await;
    assert_eq!(mail["to"], json!(["zoe@example.org"]));
    let text = mail["text"].as_str().unwrap();
    assert!(text.contains(&secrets(&made)[0]), "{text}");
    let subject = mail["subject"].as_str();
    assert!(subject.is_none_or(|subject| !subject.contains("pob_")), "{subject:?}");
    for (pair, bookmark) in
        [("2", "pob_nonsense"), ("2", unnamed.field("proof").unwrap()), ("1", bookmark)]
    {
        let fields = [("proof", proof), ("bookmark", bookmark)];
        let refused = browser.post(&format!("/console/pairs/{pair}/mail"), &fields).await;
        assert_eq!(refused.status, 409, "{}", refused.text);
    }
    send(&mut browser, 2, "/bookmark", &[]).await;
    let late = browser.post("/console/pairs/2/mail", &fields).await;
    assert_eq!(late.status, 409);
    assert!(late.text.contains("not in force any more; make a new one."), "{}", late.text);
    let until = tokio::time::Instant::now() + crate::world::BOUND;
    while !browser.get("/console/pairs/2").await.text.contains("was taken by the mail server") {
        assert!(tokio::time::Instant::now() < until, "the page says what became of the mail");
        tokio::task::yield_now().await;
    }
    let caller = world.holder(&key, OFFICE);
    let records = caller.data("/api/v1/account/audit?kind=bookmark_mailed").await;
    let [record] = records.as_array().unwrap().as_slice() else { panic!("{records}") };
    assert_eq!(record["actor"]["name"], "zoe@example.org");
    let pair = caller.data("/api/v1/pairs/2").await["id"].clone();
    let details = json!({ "pair": pair, "name": "laptop", "to": "zoe@example.org" });
    assert_eq!(record["details"], details, "and no secret");
}

#[tokio::test]
async fn owner_and_admins_are_told_once_of_a_bookmark_that_moves_too_often() {
    let mut sink = Sink::start().await;
    let store = Box::new(MemoryStore::new(Epoch::from_random([1; 16])));
    let moves = RateLimits::DEFAULT.moves;
    let rates = RateLimits { moves, ..generous().rates };
    let world = World::mailing(store, Settings { rates, ..generous() }, Some(sink.transport()));
    let (_, mut browser) = admin(&world).await;
    let made = make(&mut browser, &[("name", "laptop"), ("email", "max@example.org")]).await;
    let link = secrets(&made).remove(0);
    for last in 1..=7 {
        assert_eq!(report(&world, &link, &format!("203.0.113.{last}")).await, 200);
    }
    assert!(!browser.get("/console").await.text.contains("moves too often"));

    for last in 8..=20 {
        assert_eq!(report(&world, &link, &format!("203.0.113.{last}")).await, 429);
    }

    let mails = [sink.mail().await, sink.mail().await];
    let to: BTreeSet<&str> = mails.iter().map(|mail| mail["to"][0].as_str().unwrap()).collect();
    assert_eq!(
        to,
        BTreeSet::from(["max@example.org", "zoe@example.org"]),
        "no admin who is invited only"
    );
    for mail in &mails {
        let text = mail["text"].as_str().unwrap();
        for part in [
            "\"laptop\"",
            "203.0.113.8",
            "203.0.113.7, stays let in",
            "2026-01-01 00:10 UTC",
            "https://plane.example/console/pairs/1",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("pob_"), "{text}");
    }
    for (page, part) in [
        ("/console", "Not live: the bookmark of laptop, which moves too often"),
        ("/console/pairs", "moves too often, stays until"),
        ("/console/pairs/1", "It has moved too often"),
    ] {
        let page = browser.get(page).await;
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    let rotated = send(&mut browser, 1, "/bookmark", &[]).await;
    assert!(!browser.get("/console").await.text.contains("moves too often"), "a new one ends it");
    let of_form = |name| (name, rotated.field(name).unwrap());
    browser.post("/console/pairs/1/mail", &[of_form("proof"), of_form("bookmark")]).await;
    assert_eq!(sink.mail().await["subject"], "Your bookmark for acme", "no warning came between");
}

#[tokio::test]
async fn a_bookmark_that_moves_too_often_in_an_old_visit_is_told_like_any_other() {
    let rates = RateLimits { moves: RateLimits::DEFAULT.moves, ..generous().rates };
    let world = World::with(Settings { rates, ..generous() });
    let (_, mut browser) = admin(&world).await;
    let link = secrets(&make(&mut browser, &[("name", "gateway")]).await).remove(0);
    let path = link.strip_prefix("https://plane.example").unwrap();
    let report = async |address: &str, body: &Value| {
        let answer = world.at(address).json(Method::POST, path, body).await;
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    report("203.0.113.1", &json!({})).await;
    world.clock.advance(Duration::from_secs(61 * 60));
    let (_, heartbeat) = report("203.0.113.1", &json!({})).await;
    let visit = json!({ "visit": heartbeat["data"]["visit"] });

    for last in 2..=7 {
        assert_eq!(report(&format!("203.0.113.{last}"), &visit).await.0, 200);
    }
    assert_eq!(report("203.0.113.8", &visit).await.0, 429);

    let page = browser.get("/console").await;
    assert!(page.text.contains("the bookmark of gateway, which moves too often"), "{}", page.text);
}

#[tokio::test]
async fn a_member_sees_pairs_and_can_change_nothing_of_them() {
    let world = World::with(generous());
    let (org, mut admin) = admin(&world).await;
    let link = secrets(&make(&mut admin, &[("name", "laptop")]).await).remove(0);
    report(&world, &link, OFFICE).await;
    let mut member = Browser::new(&world);
    join(&mut member, org, "max@example.org", Role::Member).await;
    let before = *world.engine.state().org(org).unwrap().pairs.values().next().unwrap();
    let revision = world.engine.state().pair(before).unwrap().revision;

    let pages = [member.get("/console/pairs").await, member.get("/console/pairs/1").await];
    for page in &pages {
        assert!(page.text.contains(OFFICE), "{}", page.text);
        assert!(!page.text.contains("method=\"post\" action=\"/console"), "{}", page.text);
    }
    assert_eq!(member.get("/console/pairs/1/delete").await.status, 403);
    let (theirs, ours) = (pages[0].field("proof").unwrap(), admin.get("/console").await);
    for to in
        ["", "/1", "/1/groups", "/1/bookmark", "/1/server-key", "/1/close", "/1/mail", "/1/delete"]
    {
        let path = format!("/console/pairs{to}");
        let fields = [("name", "x"), ("ttl", "1h"), ("group", "1"), ("bookmark", "x")];
        let with = |proof| [&fields[..], &[("proof", proof)]].concat();
        assert_eq!(member.post(&path, &with(theirs)).await.status, 403, "{path}");
        assert_eq!(admin.post(&path, &fields).await.status, 403, "{path}: no proof");
        assert_eq!(admin.post(&path, &with(theirs)).await.status, 403, "{path}: another's");
        assert_eq!(member.post(&path, &with(ours.field("proof").unwrap())).await.status, 403);
    }

    let state = world.engine.state();
    let row = state.pair(before).unwrap();
    assert_eq!((row.revision, state.org(org).unwrap().pairs.len()), (revision, 1));
    assert!(row.report.is_some());
}

#[tokio::test]
async fn another_orgs_pair_is_as_unknown_as_any() {
    let world = World::with(generous());
    let (_, mut browser) = admin(&world).await;
    let theirs = world.org("globex").await;
    let pair = world.pair(theirs, 3_600).await;
    world.report(&pair, OFFICE).await;
    let proof = browser.get("/console").await.field("proof").unwrap().to_owned();

    for to in ["", "/delete"] {
        let foreign = browser.get(&format!("/console/pairs/{}{to}", pair.id)).await;
        let unknown = "00000000-0000-4000-8000-000000000000";
        let never = browser.get(&format!("/console/pairs/{unknown}{to}")).await;
        assert_eq!((foreign.status, foreign.text), (404, never.text), "byte for byte");
    }
    for to in ["", "/groups", "/bookmark", "/server-key", "/close", "/mail", "/delete"] {
        let path = format!("/console/pairs/{}{to}", pair.id);
        let fields = [("proof", &*proof), ("name", "x"), ("ttl", "1h"), ("group", "1")];
        assert_eq!(browser.post(&path, &fields).await.status, 404, "{to}");
    }
    assert!(world.engine.state().pair(pair.id).unwrap().report.is_some());
}

#[tokio::test]
async fn an_agents_own_pair_is_left_to_the_agent() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let agent = crate::agents::enrol(&world, &world.invite(org, &[]).await).await;
    world.report_by(agent.bookmark.expose(), crate::agents::HOST).await;

    let page = browser.get("/console/pairs/1").await;
    assert!(page.text.contains("/console/agents/"), "{}", page.text);
    for to in ["/bookmark", "/server-key", "/close", "/delete"] {
        assert!(!page.text.contains(&format!("{to}\"")), "{to}: {}", page.text);
        let refused = send(&mut browser, 1, to, &[("once", "x")]).await;
        assert_eq!(refused.status, 409, "{to}");
        assert!(refused.text.contains("revoke the agent instead."), "{}", refused.text);
    }
}
