//! The console's pages of keys. The witnesses are the API, which a key opens or does not, the
//! audit, and the engine's state.

use postern_controlplane::domain::{Command, Origin, Role};
use postern_shared::ids::OrgId;
use postern_shared::token::Token;
use reqwest::Method;
use tower::ServiceExt as _;

use crate::browser::{Browser, Page, Person, join, next_step};
use crate::world::{OFFICE, Said, World, generous, within};

const KEYS: &str = "/console/keys";
const ELSEWHERE: &str = "192.0.2.200";

/// The text of an element that a page shows once.
fn shown(page: &Page, id: &str) -> Option<String> {
    let rest = page.text.split_once(&format!("id=\"{id}\">"))?.1;
    Some(rest.split('<').next().unwrap().to_owned())
}

fn secret(page: &Page) -> Token {
    assert_eq!(page.status, 200, "{}", page.text);
    shown(page, "secret").unwrap().parse().unwrap()
}

/// Fills the form in, with a fresh code.
async fn mint(
    browser: &mut Browser<'_>,
    world: &World,
    who: &Person,
    more: &[(&str, &str)],
) -> Page {
    next_step(world);
    let code = who.code(world, 0);
    let fields: Vec<(&str, &str)> = [more, &[("code", &*code)]].concat();
    browser.fill_in(KEYS, KEYS, &fields).await
}

const READS_GROUPS: [(&str, &str); 4] = [
    ("name", "feed <b>"),
    ("scope-groups.read", "yes"),
    ("lock", "networks"),
    ("origins", "198.51.100.0/24\r\n2001:db8::/48\r\n"),
];

async fn status(world: &World, key: &Token, address: &str, path: &str) -> u16 {
    world.holder(key, address).get(&format!("/api/v1/{path}")).await.status().as_u16()
}

fn keys(world: &World, org: OrgId) -> usize {
    world.engine.state().org(org).unwrap().keys.len()
}

/// The page of the only key.
fn page_of_key(world: &World, org: OrgId) -> String {
    let state = world.engine.state();
    format!("{KEYS}/{}", state.org(org).unwrap().keys.iter().next().unwrap())
}

#[tokio::test]
async fn a_minted_key_opens_what_was_ticked_from_where_it_was_said() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    let page = mint(&mut browser, &world, &zoe, &READS_GROUPS).await;

    let key = secret(&page);
    assert_eq!(page.header("cache-control"), "no-store");
    assert!(page.text.contains("feed &#60;b&#62;"), "{}", page.text);
    let curl = shown(&page, "curl").unwrap();
    assert!(curl.contains(key.expose()) && curl.contains("https://plane.example/api/v1/whoami"));
    for (address, path, wanted) in [
        (OFFICE, "groups", 200),
        ("2001:db8::7", "groups", 200),
        (OFFICE, "pairs", 403),
        (OFFICE, "account/keys", 403),
        (ELSEWHERE, "groups", 403),
    ] {
        assert_eq!(status(&world, &key, address, path).await, wanted, "{address} {path}");
    }
    let made = world.holder(&key, OFFICE);
    let made = made.json(Method::POST, "/api/v1/groups", &serde_json::json!({"name": "x"})).await;
    assert_eq!(made.status(), 403, "it only reads");
    let list = browser.get(KEYS).await.text;
    for part in ["feed &#60;b&#62;", "groups.read", "198.51.100.0/24<br>2001:db8::/48", ">live<"] {
        assert!(list.contains(part), "{part}: {list}");
    }
    assert!(!list.contains("pok_"), "{list}");
    let page = browser.get(&page_of_key(&world, org)).await;
    assert!(page.text.contains("by zoe@example.org from 198.51.100.7"), "{}", page.text);
    assert!(page.text.contains("never by itself") && !page.text.contains("pok_"));
}

#[tokio::test]
async fn the_list_says_who_minted_each_key_to_admins_and_to_nobody_else() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    world.key(org).await;
    mint(&mut browser, &world, &zoe, &READS_GROUPS).await;
    let by = |page: &Page| {
        let cells = page.text.split("data-label=\"Minted by\">").skip(1);
        cells.map(|rest| rest.split("</td>").next().unwrap().to_owned()).collect::<Vec<_>>()
    };

    // In the order of the keys' names.
    let shown = by(&browser.get(KEYS).await);

    let operator = "the operator, on the control plane&#39;s host";
    assert_eq!(shown, ["zoe@example.org", operator]);
    let mut member = Browser::new(&world);
    join(&mut member, org, "max@example.org", Role::Member).await;
    let seen = member.get(KEYS).await;
    assert!(by(&seen).is_empty() && !seen.text.contains("Minted by"), "{}", seen.text);
}

#[tokio::test]
async fn a_key_ends_when_it_was_said_to() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let fields = [&READS_GROUPS[..], &[("ttl", "1h")]].concat();

    let key = secret(&mint(&mut browser, &world, &zoe, &fields).await);

    assert_eq!(status(&world, &key, OFFICE, "groups").await, 200);
    world.clock.advance(std::time::Duration::from_secs(3_600));
    assert_eq!(status(&world, &key, OFFICE, "groups").await, 401);
    assert!(browser.get(KEYS).await.text.contains(">expired<"));
}

#[tokio::test]
async fn a_key_can_be_locked_to_a_pair_or_to_a_bookmark_of_its_own() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let pair = world.pair(org, 3_600).await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let locked = |lock| [("name", "rover"), ("scope-pairs.write", "yes"), ("lock", lock)];

    let fields = [&locked("pair")[..], &[("pair", "1")]].concat();
    let to_pair = mint(&mut browser, &world, &zoe, &fields).await;
    assert_eq!(shown(&to_pair, "bookmark"), None);
    let to_new = mint(&mut browser, &world, &zoe, &locked("new")).await;
    let bookmark = shown(&to_new, "bookmark").unwrap();
    let bookmark = bookmark.strip_prefix("https://plane.example/b/").unwrap().to_owned();

    for (key, bookmark) in
        [(secret(&to_pair), pair.bookmark.expose().to_owned()), (secret(&to_new), bookmark)]
    {
        assert_eq!(status(&world, &key, ELSEWHERE, "pairs").await, 403, "it has not reported yet");
        world.report_by(&bookmark, ELSEWHERE).await;
        assert_eq!(status(&world, &key, ELSEWHERE, "pairs").await, 200);
        assert_eq!(status(&world, &key, OFFICE, "pairs").await, 403);
        world.report_by(&bookmark, OFFICE).await;
        assert_eq!(status(&world, &key, OFFICE, "pairs").await, 200, "it follows");
        assert_eq!(status(&world, &key, ELSEWHERE, "pairs").await, 403);
    }
    for (written, told) in [
        ("laptop <b>", None),
        ("rover", None),
        ("99", Some("write the number of a pair")),
        ("", Some("write the number of a pair")),
    ] {
        let fields = [&locked("pair")[..], &[("pair", written)]].concat();
        let page = mint(&mut browser, &world, &zoe, &fields).await;
        assert_eq!(page.status == 200, told.is_none(), "{written}: {}", page.text);
        assert!(told.is_none_or(|told| page.text.contains(told)), "{}", page.text);
    }
    let deleted = Command::DeletePair { org, pair: pair.id, expected: None };
    world.order(deleted).await;
    let page = browser.get(KEYS).await;
    assert_eq!(page.text.matches("works nowhere: its pair is gone").count(), 2, "{}", page.text);
    world.pair(org, 60).await;
    world.pair(org, 60).await;
    let fields = [&locked("pair")[..], &[("pair", "laptop <b>")]].concat();
    let page = mint(&mut browser, &world, &zoe, &fields).await;
    assert!(page.text.contains("several pairs have this name"), "{}", page.text);
}

#[tokio::test]
async fn the_code_that_minted_is_worth_nothing_more() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    next_step(&world);
    let code = zoe.code(&world, 0);
    let fields = [&READS_GROUPS[..], &[("code", &*code)]].concat();

    let first = browser.fill_in(KEYS, KEYS, &fields).await;
    let second = browser.fill_in(KEYS, KEYS, &fields).await;

    assert_eq!((first.status, second.status), (200, 422));
    assert!(second.text.contains("take the next one"), "{}", second.text);
    assert!(!second.text.contains(&code) && !second.text.contains("pok_"), "{}", second.text);
    assert!(second.text.contains("value=\"feed &#60;b&#62;\""), "what was typed stays");
    assert_eq!(keys(&world, org), 1);
    let mut other = Browser::new(&world);
    assert_eq!(other.sign_in(&zoe, &code).await.status, 403, "nor does it sign in");
    next_step(&world);
    assert_eq!(other.sign_in(&zoe, &zoe.code(&world, 0)).await.status, 303);
    let used = zoe.code(&world, 0);
    let fields = [&READS_GROUPS[..], &[("code", &*used)]].concat();
    assert_eq!(browser.fill_in(KEYS, KEYS, &fields).await.status, 422, "nor the other way round");
    assert_eq!(keys(&world, org), 1);
}

#[tokio::test]
async fn of_a_crowd_with_one_code_one_mints() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    next_step(&world);
    let proof = browser.get(KEYS).await.field("proof").unwrap().to_owned();
    let code = zoe.code(&world, 0);
    let fields = [&READS_GROUPS[..], &[("code", &*code), ("proof", &*proof)]].concat();

    // As many as may be tried at once; a larger crowd is only told to wait. Each is of another page.
    let crowd = ["a", "b", "c", "d"].map(|once| {
        let form = browser.unplugged(KEYS, &[&fields[..], &[("once", once)]].concat());
        tokio::spawn(world.router.clone().oneshot(form))
    });
    let mut statuses = Vec::new();
    for one in crowd {
        statuses.push(within(one).await.unwrap().unwrap().status().as_u16());
    }

    statuses.sort_unstable();
    assert_eq!(statuses, [200, 422, 422, 422]);
    assert_eq!(keys(&world, org), 1);
}

#[tokio::test]
async fn wrong_codes_have_to_wait_and_nothing_else_costs_a_try() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    next_step(&world);
    let with = |code: &'static str| [&READS_GROUPS[..], &[("code", code)]].concat();

    for _ in 0..8 {
        let unnamed = [("name", ""), ("code", "000000")];
        assert_eq!(browser.fill_in(KEYS, KEYS, &unnamed).await.status, 422);
    }
    for wrong in ["000000", "12345", "x", "AAAAA-BBBBB-CCCCC-DDDDD", "123456789"] {
        assert_eq!(browser.fill_in(KEYS, KEYS, &with(wrong)).await.status, 422, "{wrong}");
    }
    let code = zoe.code(&world, 0);
    let right = [&READS_GROUPS[..], &[("code", &*code)]].concat();
    let refused = browser.fill_in(KEYS, KEYS, &right).await;
    assert_eq!(refused.status, 422, "five were tried");
    assert!(refused.text.contains("wait a while"), "{}", refused.text);
    world.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(mint(&mut browser, &world, &zoe, &READS_GROUPS).await.status, 200);
    let recovery = [&READS_GROUPS[..], &[("code", &*zoe.recovery[0])]].concat();
    let refused = browser.fill_in(KEYS, KEYS, &recovery).await;
    assert!(refused.text.contains("no recovery code"), "{}", refused.text);
    assert_eq!(keys(&world, org), 1);
    let left = world.engine.state().account(zoe.id).unwrap().recovery.len();
    assert_eq!(left, zoe.recovery.len(), "and it was not used up");
}

/// A form that is right but for its network.
fn network(network: &str) -> Vec<(&'static str, &str)> {
    vec![("name", "x"), ("scope-pairs.read", "yes"), ("origins", network)]
}

#[tokio::test]
async fn what_is_wrong_is_said_with_what_to_write_instead() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;

    for (fields, told) in [
        (network("198.51.100.7/24"), "the network is 198.51.100.0/24"),
        (network("office"), "write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/48"),
        (network(" "), "name at least one network"),
        (vec![("name", "x"), ("origins", "::1")], "tick at least one thing"),
        (vec![("name", ""), ("scope-pairs.read", "yes"), ("origins", "::1")], "must not be empty"),
        ([network("::1"), vec![("ttl", "soon")]].concat(), "write a span of time"),
    ] {
        let page = mint(&mut browser, &world, &zoe, &fields).await;
        assert_eq!(page.status, 422, "{fields:?}");
        assert!(page.text.contains(told), "{told}: {}", page.text);
    }
    let many: Vec<String> = (0..65).map(|last| format!("192.0.2.{last}")).collect();
    let many = many.join("\n");
    let page = mint(&mut browser, &world, &zoe, &network(&many)).await;
    assert!(page.text.contains("origins of a key is 64"), "{}", page.text);
    assert_eq!(keys(&world, org), 0);
}

#[tokio::test]
async fn a_narrowed_key_loses_rights_and_places_at_once_and_gains_none() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let group = world.group(org).await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let fields = [
        ("name", "all"),
        ("scope-groups.write", "yes"),
        ("scope-pairs.read", "yes"),
        ("origins", "198.51.100.0/24\n192.0.2.0/24"),
    ];
    let key = secret(&mint(&mut browser, &world, &zoe, &fields).await);
    let path = page_of_key(&world, org);
    let mut stream = world.holder(&key, ELSEWHERE).stream(&[group.to_string()]).await;
    stream.event().await;

    for (fields, told) in [
        (vec![("scope-account.read", "yes"), ("origins", OFFICE)], "would gain account.read"),
        (vec![("scope-groups.read", "yes"), ("origins", "198.51.0.0/16")], "198.51.0.0/16"),
        (vec![("scope-groups.read", "yes"), ("origins", "")], "leave the key a scope"),
        (vec![("origins", OFFICE)], "tick at least one thing"),
        (vec![("scope-groups.read", "yes"), ("origins", "198.51.100.7/25")], "198.51.100.0/25"),
    ] {
        let page = browser.fill_in(&path, &path, &fields).await;
        assert_eq!(page.status, 422, "{fields:?}");
        assert!(page.text.contains(told), "{told}: {}", page.text);
    }
    assert_eq!(status(&world, &key, ELSEWHERE, "pairs").await, 200, "nothing has changed");
    let fields = [("scope-groups.read", "yes"), ("origins", "198.51.100.0/25")];
    let done = browser.fill_in(&path, &path, &fields).await;

    assert_eq!((done.status, done.header("location")), (303, &*path));
    assert_eq!(within(stream.next()).await, Said::End, "what it held open is cut off");
    for (address, path, wanted) in [
        (OFFICE, "groups", 200),
        (OFFICE, "pairs", 403),
        (ELSEWHERE, "groups", 403),
        ("198.51.100.200", "groups", 403),
    ] {
        assert_eq!(status(&world, &key, address, path).await, wanted, "{address} {path}");
    }
    let reader = world.key(org).await;
    let records =
        world.holder(&reader, OFFICE).data("/api/v1/account/audit?kind=key_narrowed").await;
    assert_eq!(records[0]["actor"]["name"], "zoe@example.org");
    assert_eq!(records[0]["details"]["scopes"], serde_json::json!(["groups.read"]));
}

#[tokio::test]
async fn a_lock_is_taken_off_only_where_another_place_is_left() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let fields = [("name", "rover"), ("scope-pairs.write", "yes"), ("lock", "new")];
    mint(&mut browser, &world, &zoe, &fields).await;
    let path = page_of_key(&world, org);

    let none = browser.fill_in(&path, &path, &[("scope-pairs.read", "yes")]).await;
    assert!(none.text.contains("leave the key a scope and an origin"), "{}", none.text);
    let fields = [("scope-pairs.read", "yes"), ("pair-1", "yes")];
    assert_eq!(browser.fill_in(&path, &path, &fields).await.status, 303);

    let state = world.engine.state();
    let id = state.org(org).unwrap().keys.iter().next().unwrap();
    let key = state.key(*id).unwrap();
    assert!(matches!(key.origins[..], [Origin::Pair(_)]), "{:?}", key.origins);
    assert_eq!(key.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(), ["pairs.read"]);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_and_is_asked_about_before() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let key = secret(&mint(&mut browser, &world, &zoe, &READS_GROUPS).await);
    let path = page_of_key(&world, org);
    let revoke = format!("{path}/revoke");

    let asked = browser.get(&revoke).await;
    assert!(asked.text.contains("Revoke feed &#60;b&#62;?"), "{}", asked.text);
    assert_eq!(status(&world, &key, OFFICE, "groups").await, 200, "looking changes nothing");
    let done = browser.fill_in(&revoke, &revoke, &[]).await;

    assert_eq!((done.status, done.header("location")), (303, KEYS));
    assert_eq!(status(&world, &key, OFFICE, "groups").await, 401);
    let list = browser.get(KEYS).await.text;
    assert!(!list.contains("feed") && list.contains("Revoked keys (1)"), "{list}");
    assert!(browser.get(&format!("{KEYS}?revoked=yes")).await.text.contains(">revoked<"));
    let page = browser.get(&path).await.text;
    assert!(page.contains(">revoked<") && !page.contains("id=\"narrow\""), "{page}");
    assert_eq!(browser.get(&revoke).await.status, 303, "there is nothing to ask any more");
    let fields = [("scope-groups.read", "yes"), ("origins", OFFICE)];
    let late = browser.fill_in(&path, &path, &fields).await;
    assert!(late.text.contains("the key is revoked"), "{}", late.text);
}

#[tokio::test]
async fn members_see_that_keys_are_there_and_others_see_nothing() {
    let world = World::with(generous());
    let (org, other) = (world.org("acme").await, world.org("other").await);
    let mut admin = Browser::new(&world);
    let zoe = join(&mut admin, org, "zoe@example.org", Role::Admin).await;
    let key = secret(&mint(&mut admin, &world, &zoe, &READS_GROUPS).await);
    let path = page_of_key(&world, org);
    let mut member = Browser::new(&world);
    let max = join(&mut member, org, "max@example.org", Role::Member).await;
    let mut stranger = Browser::new(&world);
    let eve = join(&mut stranger, other, "eve@example.org", Role::Admin).await;

    let list = member.get(KEYS).await;
    assert!(
        list.text.contains("feed &#60;b&#62;") && list.text.contains(">live<"),
        "{}",
        list.text
    );
    let id = path.rsplit('/').next().unwrap();
    for hidden in ["groups.read", "198.51.100.0/24", "2001:db8", id, "action=\"/console/keys\""] {
        assert!(!list.text.contains(hidden), "{hidden}: {}", list.text);
    }
    for page in [path.clone(), format!("{path}/revoke")] {
        assert_eq!(member.get(&page).await.status, 403, "{page}");
        assert_eq!(stranger.get(&page).await.status, 404, "{page}");
    }
    next_step(&world);
    for (browser, who, wanted) in [(&mut member, &max, 403), (&mut stranger, &eve, 404)] {
        let proof = browser.get(KEYS).await.field("proof").unwrap().to_owned();
        let code = who.code(&world, 0);
        let narrow = [("scope-groups.read", "yes"), ("origins", OFFICE), ("proof", &*proof)];
        assert_eq!(browser.post(&path, &narrow).await.status, wanted);
        let revoke = format!("{path}/revoke");
        assert_eq!(browser.post(&revoke, &[("proof", &*proof)]).await.status, wanted);
        if wanted == 403 {
            let fields = [&READS_GROUPS[..], &[("proof", &*proof), ("code", &*code)]].concat();
            assert_eq!(browser.post(KEYS, &fields).await.status, 403, "an own code is not enough");
        }
    }
    assert!(!stranger.get(KEYS).await.text.contains("feed"));
    assert_eq!(status(&world, &key, "2001:db8::7", "groups").await, 200, "it is as it was");
    assert_eq!(keys(&world, org), 1);
}
