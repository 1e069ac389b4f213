//! The console's pages of hosts. The witnesses are the agents' own routes and the audit.

use postern_controlplane::domain::{Command, Role};
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::token::Token;
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{Agent, HOST, enrol};
use crate::browser::{Browser, Page, join};
use crate::console_groups::admin;
use crate::world::{OFFICE, World, generous};

const HOSTS: &str = "/console/agents";

/// The invitation that a page shows.
fn invitation(page: &Page) -> String {
    let shown = page.text.split_once("id=\"invitation\">").unwrap().1;
    shown.split('<').next().unwrap().to_owned()
}

fn token(invitation: &str) -> Token {
    invitation.strip_prefix("https://plane.example#").unwrap().parse().unwrap()
}

/// An agent that has said where it is and what it protects.
async fn start(world: &World, invitation: &Token, groups: &[GroupId]) -> Agent {
    let agent = enrol(world, invitation).await;
    world.report_by(agent.bookmark.expose(), HOST).await;
    let update = json!({ "host": "web-1 <i>", "version": "0.9.1",
        "targets": [{ "name": "fw", "kind": "nftables", "groups": groups }] });
    let caller = world.holder(&agent.token, HOST);
    let answer = caller.json(Method::PUT, "/api/v1/agents/self", &update).await;
    assert_eq!(answer.status(), 200);
    agent
}

/// What an agent says of the newest list of a group.
async fn receipt(world: &World, agent: &Agent, group: GroupId, state: &str, detail: Option<&str>) {
    let caller = world.holder(&agent.token, HOST);
    let list = caller.data(&format!("/api/v1/groups/{group}/ips")).await;
    let receipt = json!({ "receipts": [{
        "target": "fw", "group": group, "epoch": list["epoch"], "revision": list["revision"],
        "digest": list["digest"], "state": state, "entries": 1, "detail": detail }] });
    let noted = caller.json(Method::POST, "/api/v1/agents/self/receipts", &receipt).await;
    assert_eq!(noted.status(), 204);
}

/// The kinds and actors of the newest records.
async fn newest(world: &World, org: OrgId, count: usize) -> Vec<(String, String)> {
    let key = world.key(org).await;
    let path = format!("/api/v1/account/audit?limit={}", count + 1);
    let records = world.holder(&key, OFFICE).data(&path).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let records = records.as_array().unwrap().iter().skip(1);
    records.map(|one| (text(&one["kind"]), text(&one["actor"]["name"]))).collect()
}

#[tokio::test]
async fn a_group_that_is_gone_is_no_state_to_be_content_with() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let group = world.group(org).await;
    let agent = start(&world, &world.invite(org, &[group]).await, &[group]).await;
    receipt(&world, &agent, group, "applied", None).await;
    let before = browser.get("/console").await;
    assert!(before.text.contains("class=\"state well\""), "{}", before.text);

    world.order(Command::DeleteGroup { org, group, expected: None }).await;

    let after = browser.get("/console").await;
    assert!(after.text.contains("class=\"state ill\""), "{}", after.text);
    assert!(after.text.contains("fw on gatekeeper follows a group that is gone"), "{}", after.text);
}

#[tokio::test]
async fn an_invited_host_enrols_once_with_what_the_page_has_shown_once() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let (web, _db) = (world.group(org).await, world.group(org).await);
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    let fields = [("name", "web-1 <b>"), ("group-1", "yes"), ("valid", "10m")];
    let page = browser.fill_in(HOSTS, HOSTS, &fields).await;

    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(page.text.contains("web-1 &#60;b&#62;"), "{}", page.text);
    let shown = invitation(&page);
    let list = browser.get(HOSTS).await;
    assert!(
        list.text.contains("web-1 &#60;b&#62;") && !list.text.contains("poe_"),
        "{}",
        list.text
    );
    let agent = enrol(&world, &token(&shown)).await;
    assert_eq!(agent.answer.name, "web-1 <b>");
    assert_eq!(agent.answer.groups.iter().map(|group| group.id).collect::<Vec<_>>(), [web]);
    let body = json!({ "host": "web-2", "version": "0.1.0" });
    let again = world.holder(&token(&shown), HOST);
    assert_eq!(again.json(Method::POST, "/api/v1/agents/enroll", &body).await.status(), 401);
    let list = browser.get(HOSTS).await;
    assert!(!list.text.contains(">Invited<"), "it is used up: {}", list.text);

    let late = browser.fill_in(HOSTS, HOSTS, &fields).await;
    world.clock.advance(std::time::Duration::from_secs(600));
    let late = world.holder(&token(&invitation(&late)), HOST);
    assert_eq!(late.json(Method::POST, "/api/v1/agents/enroll", &body).await.status(), 401);
    assert_eq!(newest(&world, org, 1).await, [("agent_invited".into(), "zoe@example.org".into())]);
}

#[tokio::test]
async fn what_is_wrong_in_an_invitation_is_said_and_what_was_typed_stays() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    world.group(org).await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    for (fields, told) in [
        (vec![("name", "web"), ("valid", "1h")], "tick at least one group"),
        (vec![("name", " "), ("group-1", "yes")], "the name must not be empty"),
        (vec![("name", "a\"b"), ("group-1", "yes"), ("valid", "soon")], "write a span of time"),
        (vec![("name", "web"), ("group-7", "yes")], "tick at least one group"),
    ] {
        let page = browser.fill_in(HOSTS, HOSTS, &fields).await;
        assert_eq!(page.status, 422, "{fields:?}");
        assert!(page.text.contains(told), "{told}: {}", page.text);
        assert!(!page.text.contains("poe_"));
    }
    let page =
        browser.fill_in(HOSTS, HOSTS, &[("name", "a\"b"), ("group-1", "yes"), ("valid", "x")]);
    let page = page.await.text;
    assert!(page.contains("value=\"a&#34;b\"") && page.contains("value=\"yes\" checked"), "{page}");
    assert!(world.engine.state().org(org).unwrap().enrolments.is_empty());
}

#[tokio::test]
async fn a_host_shows_how_far_each_list_got_and_why_not_further() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let invitation = world.invite(org, &[group]).await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let agent = start(&world, &invitation, &[group]).await;
    let path = format!("{HOSTS}/{}", agent.answer.agent);

    let mut shows = async |parts: &[&str], list: &str| {
        let page = browser.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        for part in parts {
            assert!(page.text.contains(part), "{part}: {}", page.text);
        }
        let all = browser.get(HOSTS).await.text;
        assert!(all.contains(list), "{list}: {all}");
    };
    shows(&["not confirmed yet", "web-1 &#60;i&#62;", "0.9.1", HOST, ">here<"], "0 of 1").await;
    receipt(&world, &agent, group, "applied", None).await;
    shows(&[">in force<"], "1 of 1").await;
    world.network(org, group, "192.0.2.0/24").await;
    shows(&["not confirmed yet"], "0 of 1").await;
    receipt(&world, &agent, group, "held", Some("wider than <24>")).await;
    shows(&["held back in part</span>: wider than &#60;24&#62;"], "0 of 1").await;
    receipt(&world, &agent, group, "failed", Some("table is gone")).await;
    shows(&["failed</span>: table is gone"], "0 of 1").await;
    world.clock.advance(std::time::Duration::from_secs(180));
    shows(&[">away<", "2026-01-01 00:00 UTC"], ">away<").await;
}

#[tokio::test]
async fn other_groups_count_at_once() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let (web, db) = (world.group(org).await, world.group(org).await);
    let invitation = world.invite(org, &[web]).await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let agent = start(&world, &invitation, &[web]).await;
    let path = format!("{HOSTS}/{}", agent.answer.agent);
    let caller = world.holder(&agent.token, HOST);
    let status = async |group: GroupId| {
        caller.get(&format!("/api/v1/groups/{group}/ips")).await.status().as_u16()
    };
    assert_eq!((status(web).await, status(db).await), (200, 404));

    let none = browser.fill_in(&path, &format!("{path}/groups"), &[]).await;
    assert_eq!(none.status, 422);
    assert!(none.text.contains("tick at least one group"), "{}", none.text);
    let set = browser.fill_in(&path, &format!("{path}/groups"), &[("group-2", "yes")]).await;

    assert_eq!((set.status, set.header("location")), (303, &*path));
    assert_eq!((status(web).await, status(db).await), (404, 200));
}

#[tokio::test]
async fn a_revoked_host_gets_nothing_more_and_is_asked_about_before() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let invitation = world.invite(org, &[group]).await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let agent = start(&world, &invitation, &[group]).await;
    let path = format!("{HOSTS}/{}", agent.answer.agent);
    let caller = world.holder(&agent.token, HOST);
    let ips = format!("/api/v1/groups/{group}/ips");

    let asked = browser.get(&format!("{path}/revoke")).await;
    assert!(asked.text.contains("Revoke gatekeeper?"), "{}", asked.text);
    assert_eq!(caller.get(&ips).await.status(), 200, "looking changes nothing");
    let revoke = format!("{path}/revoke");
    let done = browser.fill_in(&revoke, &revoke, &[]).await;

    assert_eq!((done.status, done.header("location")), (303, HOSTS));
    assert_eq!(caller.get(&ips).await.status(), 401);
    assert_eq!(newest(&world, org, 1).await, [("agent_revoked".into(), "zoe@example.org".into())]);
    let page = browser.get(&path).await;
    assert!(page.text.contains(">revoked<") && !page.text.contains("<h2 id=\"groups\">"));
    assert!(!browser.get(HOSTS).await.text.contains("gatekeeper"));
    assert_eq!(browser.get(&revoke).await.status, 303, "there is nothing to ask any more");
}

#[tokio::test]
async fn members_look_and_others_find_nothing() {
    let world = World::with(generous());
    let (org, other) = (world.org("acme").await, world.org("other").await);
    let group = world.group(org).await;
    let invitation = world.invite(org, &[group]).await;
    let agent = start(&world, &invitation, &[group]).await;
    let path = format!("{HOSTS}/{}", agent.answer.agent);
    let mut member = Browser::new(&world);
    join(&mut member, org, "max@example.org", Role::Member).await;
    let mut stranger = Browser::new(&world);
    join(&mut stranger, other, "eve@example.org", Role::Admin).await;

    let seen = [member.get(HOSTS).await, member.get(&path).await];
    assert!(seen.iter().all(|page| page.status == 200 && page.text.contains("gatekeeper")));
    let forms: Vec<usize> = seen.iter().map(|page| page.text.matches("<form").count()).collect();
    assert_eq!(forms, [1, 1], "nothing but the one that signs out");
    let proof = seen[0].field("proof").unwrap().to_owned();
    assert_eq!(member.get(&format!("{path}/revoke")).await.status, 403);
    for action in [HOSTS.to_owned(), format!("{path}/groups"), format!("{path}/revoke")] {
        let fields = [("proof", &*proof), ("name", "x"), ("group-1", "yes")];
        assert_eq!(member.post(&action, &fields).await.status, 403, "{action}");
    }
    assert!(!stranger.get(HOSTS).await.text.contains("gatekeeper"));
    let proof = stranger.get(HOSTS).await.field("proof").unwrap().to_owned();
    for page in [path.clone(), format!("{path}/revoke"), format!("{HOSTS}/nonsense")] {
        assert_eq!(stranger.get(&page).await.status, 404, "{page}");
    }
    for action in [format!("{path}/groups"), format!("{path}/revoke")] {
        let fields = [("proof", &*proof), ("group-1", "yes")];
        assert_eq!(stranger.post(&action, &fields).await.status, 404, "{action}");
    }
    let state = world.engine.state();
    assert!(state.agent(agent.answer.agent).unwrap().revoked_at.is_none());
}
