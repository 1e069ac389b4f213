//! Groups in the console, held against the API and the engine's own state.

use std::time::Duration;

use postern_controlplane::domain::{MemberKind, Role};
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};

use crate::agents::{Agent, HOST, enrol};
use crate::browser::{Browser, Page, join};
use crate::world::{NewPair, OFFICE, World, generous};

/// A browser in which an admin of a new org is signed in.
pub(crate) async fn admin(world: &World) -> (OrgId, Browser<'_>) {
    let org = world.org("acme").await;
    let mut browser = Browser::new(world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    (org, browser)
}

/// A group with a pair in it that was reported, and a fixed network.
pub(crate) async fn peopled_group(world: &World, org: OrgId) -> (GroupId, NewPair) {
    let (group, pair) = (world.group(org).await, world.pair(org, 3_600).await);
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, OFFICE).await;
    world.network(org, group, "203.0.113.0/24").await;
    (group, pair)
}

/// An agent whose target says of the newest list of a group what is asked for.
pub(crate) struct Host<'a> {
    world: &'a World,
    agent: Agent,
}

impl Host<'_> {
    pub(crate) async fn of(world: &World, org: OrgId, group: GroupId) -> Host<'_> {
        let agent = enrol(world, &world.invite(org, &[group]).await).await;
        world.report_by(agent.bookmark.expose(), HOST).await;
        let targets = json!([{ "name": "fw <b>", "kind": "nftables", "groups": [group] }]);
        let update = json!({ "host": "web-1", "version": "1", "targets": targets });
        let host = Host { world, agent };
        let said = host.caller().json(Method::PUT, "/api/v1/agents/self", &update).await;
        assert_eq!(said.status(), 200);
        host
    }

    fn caller(&self) -> crate::world::Caller<'_> {
        self.world.holder(&self.agent.token, HOST)
    }

    pub(crate) async fn say(&self, group: GroupId, word: &str) {
        let receipt = {
            let (state, engine) = (self.world.engine.state(), &self.world.engine);
            let row = state.group(group).unwrap();
            let digest = row.list.digest_at(engine.now());
            json!({ "receipts": [{ "target": "fw <b>", "group": group, "epoch": engine.epoch(),
                "revision": row.list_revision, "digest": digest, "state": word, "entries": 2 }] })
        };
        let path = "/api/v1/agents/self/receipts";
        assert_eq!(self.caller().json(Method::POST, path, &receipt).await.status(), 204);
    }
}

/// Sends a form of a group's page.
async fn send(
    browser: &mut Browser<'_>,
    group: GroupId,
    to: &str,
    fields: &[(&str, &str)],
) -> Page {
    let page = format!("/console/groups/{group}");
    browser.fill_in(&page, &format!("{page}{to}"), fields).await
}

#[tokio::test]
async fn a_groups_page_says_who_is_let_in_from_where_until_when_and_where_that_is_in_force() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let (group, pair) = peopled_group(&world, org).await;
    let (first, _second) = (Host::of(&world, org, group).await, Host::of(&world, org, group).await);
    first.say(group, "applied").await;

    let page = browser.get("/console/groups/1").await;

    let number = world.engine.state().pair(pair.id).unwrap().record.number;
    assert_eq!(page.status, 200, "{}", page.text);
    for part in [
        &*format!("<a href=\"/console/pairs/{number}\">laptop &#60;b&#62;</a>"),
        "<td data-label=\"From\" class=\"mono\">198.51.100.7</td>",
        "<time datetime=\"2026-01-01T01:00:00Z\">2026-01-01 01:00 UTC</time> \
         <span class=\"left\" data-until=\"2026-01-01T01:00:00Z\">1 h</span>",
        "<td data-label=\"From\" class=\"mono\">203.0.113.0/24</td>",
        "Open on 1 of 2 hosts.",
        "fw &#60;b&#62;",
        "has not confirmed the newest list yet",
        "https://plane.example/api/v1/groups/1/ips?format=nginx",
    ] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    world.clock.advance(Duration::from_secs(3_600));
    let later = browser.get(&format!("/console/groups/{group}")).await;
    assert!(!later.text.contains("198.51.100.7"), "{}", later.text);
    assert!(later.text.contains("203.0.113.0/24"), "{}", later.text);
}

#[tokio::test]
async fn members_are_added_and_taken_out() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let (group, pair, key) =
        (world.group(org).await, world.pair(org, 3_600).await, world.key(org).await);
    world.report(&pair, OFFICE).await;
    let api = world.holder(&key, OFFICE);
    let ips = async || api.data("/api/v1/groups/1/ips").await["ips"].clone();
    let members = async || api.data("/api/v1/groups/1/members").await;

    let added =
        send(&mut browser, group, "/members/pairs", &[("pair", "1"), ("ends", "30m")]).await;
    assert_eq!(added.status, 303, "{}", added.text);
    assert_eq!(ips().await, json!([OFFICE]));
    assert_eq!(members().await[0]["expires_at"], "2026-01-01T00:30:00Z");
    let again = send(&mut browser, group, "/members/pairs", &[("pair", "1")]).await;
    assert_eq!(again.status, 422);
    assert!(again.text.contains("the pair is a member of the group already."), "{}", again.text);
    for (pair, part) in [("2", "there is no pair of this number."), ("", "there is no pair")] {
        let refused = send(&mut browser, group, "/members/pairs", &[("pair", pair)]).await;
        assert!(refused.status == 422 && refused.text.contains(part), "{}", refused.text);
    }

    let network = async |browser: &mut Browser<'_>, network: &str, note: &str, ends: &str| {
        let fields = [("network", network), ("note", note), ("ends", ends)];
        send(browser, group, "/members/networks", &fields).await
    };
    for (wrong, note, ends, part) in [
        ("10.1.2.3/8", "lan", "", "the network is 10.0.0.0/8."),
        ("nowhere", "lan", "", "`nowhere` is not an IP address or network"),
        ("127.0.0.1", "lan", "", "which may never be granted."),
        ("192.0.2.0/24", "", "", "what it is must not be empty."),
        ("192.0.2.0/24", "lan", "soon", "the time is `soon`; write a span of time"),
    ] {
        let refused = network(&mut browser, wrong, note, ends).await;
        assert_eq!(refused.status, 422);
        assert!(refused.text.contains(part), "{part}: {}", refused.text);
        assert!(refused.text.contains(&format!("value=\"{wrong}\"")), "what was typed stays");
    }
    assert_eq!(network(&mut browser, "192.0.2.0/24", "lan <b>", "").await.status, 303);
    assert_eq!(ips().await, json!(["192.0.2.0/24", OFFICE]));
    let page = browser.get("/console/groups/1").await;
    assert!(page.text.contains("lan &#60;b&#62;") && !page.text.contains("<b>"), "{}", page.text);

    for member in members().await.as_array().unwrap() {
        let id = member["id"].as_str().unwrap();
        let to = format!("/members/{id}/remove");
        assert_eq!(send(&mut browser, group, &to, &[]).await.status, 303);
        assert_eq!(send(&mut browser, group, &to, &[]).await.status, 404);
    }
    assert_eq!(ips().await, json!([]));
}

#[tokio::test]
async fn private_networks_are_no_members_where_the_operator_takes_none() {
    let settings = postern_controlplane::app::Settings { allow_private: false, ..generous() };
    let world = World::with(settings);
    let (org, mut browser) = admin(&world).await;
    let group = world.group(org).await;

    let fields = [("network", "10.0.0.0/8"), ("note", "lan")];
    let refused = send(&mut browser, group, "/members/networks", &fields).await;

    assert!(refused.text.contains("10.0.0.0/8 is private"), "{}", refused.text);
    assert!(world.engine.state().group(group).unwrap().members.is_empty());
}

#[tokio::test]
async fn a_group_is_made_renamed_limited_and_deleted() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let key = world.key(org).await;
    let api = world.holder(&key, OFFICE);

    let fields = [("name", "web <b>"), ("ttl", "90m")];
    let made = browser.fill_in("/console/groups", "/console/groups", &fields).await;
    let group: GroupId =
        made.header("location").strip_prefix("/console/groups/").unwrap().parse().unwrap();
    let page = browser.get("/console/groups/1").await;
    assert!(page.text.contains("<h1>web &#60;b&#62;</h1>"), "{}", page.text);
    assert!(page.text.contains("name=\"ttl\"") && page.text.contains("value=\"90m\""));
    let shown: Value = api.data("/api/v1/groups/1").await;
    assert_eq!((&shown["name"], &shown["ttl"]), (&json!("web <b>"), &json!(5_400)));

    let wrong = send(&mut browser, group, "", &[("name", " "), ("ttl", "1")]).await;
    assert_eq!(wrong.status, 422);
    assert!(wrong.text.contains("the name must not be empty."), "{}", wrong.text);
    assert!(wrong.text.contains("the longest time is `1`"), "{}", wrong.text);
    assert_eq!(send(&mut browser, group, "", &[("name", "mail"), ("ttl", "")]).await.status, 303);
    let shown = api.data("/api/v1/groups/1").await;
    assert_eq!((&shown["name"], &shown["ttl"]), (&json!("mail"), &Value::Null));

    world.network(org, group, "203.0.113.0/24").await;
    let asked = browser.get("/console/groups/1/delete").await;
    assert!(
        asked.text.contains("The one address that it lets in closes at once"),
        "{}",
        asked.text
    );
    assert!(world.engine.state().group(group).is_some(), "a GET deletes nothing");
    let gone = send(&mut browser, group, "/delete", &[]).await;
    assert_eq!((gone.status, gone.header("location")), (303, "/console/groups"));
    assert!(world.engine.state().group(group).is_none());
    assert_eq!(browser.get("/console/groups/1").await.status, 404);
}

#[tokio::test]
async fn a_member_sees_a_group_and_can_change_nothing_of_it() {
    let world = World::with(generous());
    let (org, mut admin) = admin(&world).await;
    let (group, _) = peopled_group(&world, org).await;
    let mut member = Browser::new(&world);
    join(&mut member, org, "max@example.org", Role::Member).await;
    let one = *world.engine.state().group(group).unwrap().members.keys().next().unwrap();
    let before = world.engine.state().group(group).unwrap().revision;

    let page = member.get("/console/groups/1").await;
    assert!(page.text.contains("198.51.100.7"), "{}", page.text);
    assert_eq!(page.text.matches("<form").count(), 1, "but to sign out: {}", page.text);
    assert_eq!(member.get("/console/groups/1/delete").await.status, 403);
    let (theirs, ours) = (page.field("proof").unwrap(), admin.get("/console").await);
    for to in
        ["", "/delete", "/members/pairs", "/members/networks", &format!("/members/{one}/remove")]
    {
        let path = format!("/console/groups/1{to}");
        let fields = [("name", "x"), ("pair", "1"), ("network", "192.0.2.1"), ("note", "x")];
        let with = |proof| [&fields[..], &[("proof", proof)]].concat();
        assert_eq!(member.post(&path, &with(theirs)).await.status, 403, "{path}");
        assert_eq!(admin.post(&path, &fields).await.status, 403, "{path}: no proof");
        assert_eq!(admin.post(&path, &with(theirs)).await.status, 403, "{path}: another's");
        assert_eq!(member.post(&path, &with(ours.field("proof").unwrap())).await.status, 403);
    }

    assert_eq!(world.engine.state().group(group).unwrap().revision, before);
}

#[tokio::test]
async fn another_orgs_group_is_as_unknown_as_any() {
    let world = World::with(generous());
    let (_, mut browser) = admin(&world).await;
    let theirs = world.org("globex").await;
    let (group, _) = peopled_group(&world, theirs).await;
    let proof = browser.get("/console").await.field("proof").unwrap().to_owned();
    let one = *world.engine.state().group(group).unwrap().members.keys().next().unwrap();

    let unknown = "/console/groups/00000000-0000-4000-8000-000000000000";
    let foreign = format!("/console/groups/{group}");
    for to in ["", "/delete"] {
        let pages = [
            browser.get(&format!("{foreign}{to}")).await,
            browser.get(&format!("{unknown}{to}")).await,
        ];
        assert_eq!(pages[0].status, 404);
        let text = |page: &Page| page.text.clone();
        assert_eq!(text(&pages[0]), text(&pages[1]), "byte for byte");
    }
    for to in
        ["", "/delete", "/members/pairs", "/members/networks", &format!("/members/{one}/remove")]
    {
        let fields = [("proof", &*proof), ("name", "x"), ("network", "192.0.2.1"), ("note", "x")];
        assert_eq!(browser.post(&format!("{foreign}{to}"), &fields).await.status, 404, "{to}");
    }
    assert_eq!(world.engine.state().group(group).unwrap().members.len(), 2);
}
