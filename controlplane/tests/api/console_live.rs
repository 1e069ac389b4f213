//! The live list of a group, read off its stream.

use std::time::{Duration, Instant};

use postern_controlplane::domain::{Command, MemberKind, Role};
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::time::Expiry;
use reqwest::{Method, Response};
use serde_json::Value;

use crate::browser::{Browser, Person, join};
use crate::console_groups::{Host, peopled_group};
use crate::world::{NewPair, OFFICE, World, generous, within};

/// The stream of a page.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(browser: &Browser<'_>, group: GroupId) -> Stream {
        let response = get(browser, group).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Stream { response, text: String::new() }
    }

    /// The name and the data of the next event; none when the stream has ended.
    async fn next(&mut self) -> Option<(String, Value)> {
        // As a whole: comments keep coming where the event does not.
        within(self.read()).await
    }

    async fn read(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let said = block.split_once('\n').map(|(name, data)| {
                    let data = data.strip_prefix("data: ").unwrap();
                    let name = name.strip_prefix("event: ").unwrap().to_owned();
                    (name, serde_json::from_str(data).unwrap())
                });
                self.text = rest.to_owned();
                if said.is_some() {
                    return said;
                }
                continue;
            }
            let bytes = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Reads on until the page would show, or not show, `part`.
    async fn shows(&mut self, part: &str, is_shown: bool) -> String {
        loop {
            let (name, data) = self.next().await.expect("the stream goes on");
            assert_eq!(name, "list", "{data}");
            let html = data["html"].as_str().unwrap();
            if html.contains(part) == is_shown {
                return html.to_owned();
            }
        }
    }

    async fn ends_within_a_second(&mut self) {
        let since = Instant::now();
        assert_eq!(self.next().await, None);
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
}

async fn get(browser: &Browser<'_>, group: GroupId) -> Response {
    let path = format!("/console/groups/{group}/live");
    within(browser.request(Method::GET, &path).send()).await.unwrap()
}

/// A group with a pair in it, and a browser in which a member of the org is signed in.
async fn watched(world: &World) -> (OrgId, GroupId, NewPair, Browser<'_>, Person) {
    let org = world.org("acme").await;
    let (group, pair) = (world.group(org).await, world.pair(org, 3_600).await);
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    let mut browser = Browser::new(world);
    let max = join(&mut browser, org, "max@example.org", Role::Member).await;
    (org, group, pair, browser, max)
}

#[tokio::test]
async fn what_comes_goes_and_is_put_in_force_is_told_at_once() {
    let world = World::with(generous());
    let (org, group, pair, browser, _) = watched(&world).await;
    let host = Host::of(&world, org, group).await;
    let mut stream = Stream::open(&browser, group).await;

    let first = stream.next().await.unwrap();
    assert_eq!((first.0.as_str(), &first.1["as_of"]), ("list", &"2026-01-01T00:00:00Z".into()));
    assert!(first.1["html"].as_str().unwrap().contains("Nobody is let in"), "{}", first.1);
    world.report(&pair, OFFICE).await;
    let html = stream.shows(OFFICE, true).await;
    assert!(html.contains("laptop &#60;b&#62;") && !html.contains("<b>"), "{html}");
    assert!(html.contains("Open on 0 of 1 host."), "{html}");
    host.say(group, "applied").await;
    stream.shows("Open on 1 of 1 host.", true).await;
    world.report(&pair, "203.0.113.9").await;
    let html = stream.shows("203.0.113.9", true).await;
    assert!(!html.contains(OFFICE), "{html}");
    world.order(Command::DeletePair { org, pair: pair.id, expected: None }).await;
    stream.shows("203.0.113.9", false).await;
    world.order(Command::DeleteGroup { org, group, expected: None }).await;
    assert_eq!(stream.next().await.unwrap().0, "withdrawn");
}

#[tokio::test]
async fn an_entry_that_expires_goes_without_any_commit() {
    let world = World::with(generous());
    let (org, group, _, browser, _) = watched(&world).await;
    let pair = world.pair(org, 1).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, OFFICE).await;
    let mut stream = Stream::open(&browser, group).await;
    stream.shows(OFFICE, true).await;

    world.clock.advance(Duration::from_secs(1));

    stream.shows(OFFICE, false).await;
}

#[tokio::test]
async fn many_changes_in_a_row_are_told_together() {
    let world = World::with(generous());
    let (org, group, pair, browser, _) = watched(&world).await;
    let mut stream = Stream::open(&browser, group).await;
    stream.next().await.unwrap();

    const CHANGES: u32 = 50;
    for n in 1..=CHANGES {
        world.network(org, group, &format!("203.0.113.{n}")).await;
    }
    world.report(&pair, OFFICE).await;

    let mut events = 1;
    while !stream.next().await.unwrap().1["html"].as_str().unwrap().contains(OFFICE) {
        events += 1;
    }
    assert!(events < CHANGES / 2, "{events}");
}

#[tokio::test]
async fn the_stream_ends_with_the_login_and_with_its_rights() {
    let world = World::with(generous());
    let (org, group, _, mut browser, max) = watched(&world).await;
    let open = async |browser: &Browser<'_>| {
        let mut stream = Stream::open(browser, group).await;
        stream.next().await.unwrap();
        stream
    };

    let mut stream = open(&browser).await;
    world.order(Command::SetRole { org, user: max.id, role: Role::Admin }).await;
    stream.ends_within_a_second().await;

    let mut stream = open(&browser).await;
    let proof = browser.get("/console").await.field("proof").unwrap().to_owned();
    assert_eq!(browser.clone().post("/sign-out", &[("proof", &proof)]).await.status, 303);
    stream.ends_within_a_second().await;
    assert_eq!(get(&browser, group).await.status(), 303, "and none begins");

    let mut browser = Browser::new(&world);
    let eve = join(&mut browser, org, "eve@example.org", Role::Member).await;
    let mut stream = open(&browser).await;
    world.order(Command::RemoveUser { org, user: eve.id }).await;
    stream.ends_within_a_second().await;
}

#[tokio::test]
async fn a_page_that_stays_open_keeps_no_login_alive() {
    let world = World::with(generous());
    let (_, group, _, mut browser, _) = watched(&world).await;
    let hours = |count: u64| Duration::from_secs(count * 3_600);

    world.clock.advance(hours(11));
    let mut stream = Stream::open(&browser, group).await;
    stream.next().await.unwrap();
    world.clock.advance(hours(1));

    assert_eq!(browser.get("/console").await.status, 303);
}

#[tokio::test]
async fn streams_have_a_limit_by_login_and_stay_within_the_org() {
    let world = World::with(generous());
    let (_, group, _, browser, _) = watched(&world).await;
    let theirs = world.org("globex").await;
    let (foreign, _) = peopled_group(&world, theirs).await;

    assert_eq!(get(&browser, foreign).await.status(), 404);
    assert_eq!(get(&Browser::new(&world), group).await.status(), 303);
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(Stream::open(&browser, group).await);
    }
    let refused = get(&browser, group).await;
    assert_eq!(refused.status(), 429);
    let problem: Value = within(refused.json()).await.unwrap();
    assert_eq!(problem["detail"], "the most streams of one login at once is 16; end one first");
}
