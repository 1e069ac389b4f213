//! The list in the forms of other programs: what they get beside the text itself.

use std::time::Duration;

use postern_controlplane::domain::MemberKind;
use postern_shared::ids::GroupId;
use postern_shared::time::Expiry;
use postern_shared::token::Token;
use reqwest::{Method, Response};
use serde_json::json;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::world::{OFFICE, World, problem, unplugged, within};

/// The forms that say the same as long as the list does.
const STEADY: [&str; 5] = ["text", "csv", "nginx", "apache", "haproxy"];
/// The forms that carry the seconds left.
const COUNTING: [&str; 2] = ["nft", "ipset"];
const DAY: Duration = Duration::from_secs(86_400);

/// A control plane with one group, in which there are a fixed network and a pair inside of it.
struct Plane {
    world: World,
    key: Token,
    group: GroupId,
}

impl Plane {
    async fn with_list() -> Plane {
        let plane = Plane::with_empty_list().await;
        let org = plane.world.engine.state().group(plane.group).unwrap().record.org;
        plane.world.network(org, plane.group, "203.0.113.0/24").await;
        let pair = plane.world.pair(org, 40 * 86_400).await;
        plane.world.member(org, plane.group, MemberKind::Pair(pair.id), Expiry::Never).await;
        let first = plane.world.report(&pair, "203.0.113.7").await;
        let visit = json!({"visit": first["data"]["visit"]});
        let bookmark = format!("/b/{}", pair.bookmark.expose());
        let caller = plane.world.at("2001:db8::7");
        assert_eq!(caller.json(Method::POST, &bookmark, &visit).await.status(), 200);
        plane
    }

    async fn with_empty_list() -> Plane {
        let world = World::start();
        let org = world.org("acme").await;
        let (key, group) = (world.key(org).await, world.group(org).await);
        Plane { world, key, group }
    }

    async fn get(&self, query: &str, known: Option<&str>) -> Response {
        let path = format!("/api/v1/groups/{}/ips?{query}", self.group);
        let request = self.world.holder(&self.key, OFFICE).request(Method::GET, &path);
        let request = known.into_iter().fold(request, |r, tag| r.header("if-none-match", tag));
        within(request.send()).await.unwrap()
    }

    async fn text(&self, query: &str) -> String {
        let answer = self.get(query, None).await;
        assert_eq!(answer.status(), 200, "{query}");
        within(answer.text()).await.unwrap()
    }

    async fn tag(&self, query: &str) -> String {
        header(&self.get(query, None).await, "etag")
    }
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers()[name].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_form_names_what_json_names_in_the_words_of_its_program() {
    let plane = Plane::with_list().await;

    assert_eq!(plane.text("format=text").await, "203.0.113.0/24\n203.0.113.7\n2001:db8::7\n");
    assert_eq!(
        plane.text("format=csv").await,
        "cidr,family,expires_at\n203.0.113.0/24,4,never\n203.0.113.7/32,4,2026-02-10T00:00:00Z\n\
         2001:db8::7/128,6,2026-02-10T00:00:00Z\n"
    );
    let nft = plane.text("format=nft&table=fw&name=office").await;
    // The fixed network never ends, and so neither does the address inside of it.
    let v4 = "add element inet fw office_v4 {\n    203.0.113.0/24,\n}\n";
    let v6 = "add element inet fw office_v6 {\n    2001:db8::7 timeout 3456000s,\n}\n";
    assert!(nft.contains(v4) && nft.contains(v6), "{nft}");
    let ipset = plane.text("format=ipset&family=4").await;
    let added = "add postern_1_v4n 203.0.113.0/24 timeout 0\n\
                 add postern_1_v4n 203.0.113.7 timeout 2147483\nswap postern_1_v4n postern_1_v4\n";
    assert!(ipset.contains(added) && !ipset.contains("v6"), "{ipset}");
    let nginx = plane.text("format=nginx&name=office&family=6").await;
    assert!(nginx.ends_with("geo $office {\n    default 0;\n    2001:db8::7 1;\n}\n"), "{nginx}");
    let apache = plane.text("format=apache").await;
    assert_eq!(apache.matches("Require ip ").count(), 3, "{apache}");
    assert!(plane.text("format=haproxy").await.ends_with("\n203.0.113.7\n2001:db8::7\n"));
}

#[tokio::test]
async fn every_form_says_how_long_it_is_good_and_how_much_is_in_it() {
    let plane = Plane::with_list().await;

    for form in STEADY.into_iter().chain(COUNTING) {
        let query = format!("format={form}");
        let answer = plane.get(&query, None).await;
        assert_eq!(answer.status(), 200);
        let is_counting = COUNTING.contains(&form);
        let kept = if is_counting { "no-store" } else { "private, no-cache" };
        assert_eq!(header(&answer, "cache-control"), kept, "{form}");
        let tag = header(&answer, "etag");
        assert_eq!(tag.starts_with("W/"), is_counting, "{form}");
        let media_type = header(&answer, "content-type");
        let expected = if form == "csv" { "text/csv;" } else { "text/plain;" };
        assert!(media_type.starts_with(expected) && media_type.contains("charset=utf-8"));
        assert_eq!(header(&answer, "postern-entries"), "3", "{form}");
        assert_eq!(header(&answer, "postern-as-of"), "2026-01-01T00:00:00Z", "{form}");

        let again = plane.get(&query, Some(&tag)).await;
        assert_eq!(again.status(), 304, "{form}");
        assert_eq!(header(&again, "etag"), tag);
        assert_eq!(header(&again, "cache-control"), kept, "{form}");
        assert_eq!(within(again.text()).await.unwrap(), "");
        let filtered = plane.get(&format!("{query}&family=4"), Some(&tag)).await;
        assert_eq!(filtered.status(), 200, "{form}");
        assert_eq!(header(&filtered, "postern-entries"), "2", "{form}");
    }
}

#[tokio::test]
async fn the_version_of_seconds_left_changes_when_they_must_be_loaded_again() {
    let plane = Plane::with_list().await;
    let (text, ipset, nft) = ("format=text", "format=ipset", "format=nft");
    let before = [plane.tag(text).await, plane.tag(ipset).await, plane.tag(nft).await];
    let (told, then) = (plane.text(ipset).await, plane.text(nft).await);

    plane.world.clock.advance(Duration::from_secs(1));
    assert_eq!(plane.tag(nft).await, before[2], "a second is no change");
    assert_ne!(plane.text(nft).await, then, "the seconds are those that are left");

    // `ipset` was told 24 days, although 40 were left. Long before these are over it is told again.
    plane.world.clock.advance(14 * DAY);
    assert_eq!(plane.tag(text).await, before[0]);
    assert_ne!(plane.tag(ipset).await, before[1]);
    assert_eq!(plane.tag(nft).await, before[2], "`nft` was told the truth");
    assert_eq!(plane.text(ipset).await, told, "there are still more than 24 days left");
}

#[tokio::test]
async fn an_empty_list_is_a_success_and_an_unknown_one_is_not() {
    let plane = Plane::with_empty_list().await;

    for (form, whole) in [
        ("text", ""),
        ("csv", "cidr,family,expires_at\n"),
        ("haproxy", "# http-request deny unless { src -f FILE }\n"),
        ("apache", "<RequireAny>\n    Require all denied\n</RequireAny>\n"),
    ] {
        let answer = plane.get(&format!("format={form}"), None).await;
        assert_eq!(answer.status(), 200, "{form}");
        assert_eq!(header(&answer, "postern-entries"), "0", "{form}");
        assert_eq!(within(answer.text()).await.unwrap(), whole);
    }
    assert!(plane.text("format=nft").await.contains("flush set inet filter postern_1_v4\n"));
    assert!(plane.text("format=ipset").await.contains("swap postern_1_v6n postern_1_v6\n"));
    assert!(plane.text("format=nginx").await.contains("{\n    default 0;\n}\n"));
    let caller = plane.world.holder(&plane.key, OFFICE);
    for form in STEADY.into_iter().chain(COUNTING) {
        let answer = caller.get(&format!("/api/v1/groups/2/ips?format={form}")).await;
        assert_eq!(answer.status(), 404, "{form}");
        assert!(!answer.headers().contains_key("postern-entries"));
        problem(answer).await;
    }
}

#[tokio::test]
async fn what_a_form_has_no_use_for_is_refused() {
    let plane = Plane::with_empty_list().await;

    for query in [
        "format=yaml",
        "format=text&name=office",
        "name=office",
        "format=ipset&table=filter",
        "format=nft&table=in%20put",
        "format=nft&name=x%3B%20flush%20ruleset",
        "format=nginx&name=",
        "format=csv&familiy=4",
    ] {
        assert_eq!(plane.get(query, None).await.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_held_poll_of_any_form_ends_when_the_list_changes() {
    for form in STEADY.into_iter().chain(COUNTING) {
        let plane = Plane::with_list().await;
        let path = format!("/api/v1/groups/{}/ips?format={form}", plane.group);
        let tag = plane.tag(&format!("format={form}")).await;
        let mut request = unplugged(&path, &plane.key, OFFICE);
        request.headers_mut().insert("if-none-match", tag.parse().unwrap());
        request.headers_mut().insert("prefer", "wait=30".parse().unwrap());
        let mut answer = std::pin::pin!(plane.world.router.clone().oneshot(request));
        let early = timeout(Duration::from_millis(1), answer.as_mut()).await;
        assert!(early.is_err(), "nothing has changed yet");

        let org = plane.world.engine.state().group(plane.group).unwrap().record.org;
        plane.world.network(org, plane.group, "192.0.2.0/24").await;

        let answer = within(answer).await.unwrap();
        assert_eq!(answer.status(), 200, "{form}");
        assert_eq!(answer.headers()["preference-applied"], "wait=30");
        assert_eq!(answer.headers()["postern-entries"], "4", "{form}");
    }
}
