//! Forms of the console that tell secrets once, sent again as a browser does that loads the answer
//! again. The witnesses are the API, and the secrets, which work or do not.

use postern_controlplane::domain::Role;
use postern_shared::ids::OrgId;
use postern_shared::token::Token;
use reqwest::Method;
use tower::ServiceExt as _;

use crate::browser::{Browser, Page, join};
use crate::console_groups::admin;
use crate::world::{OFFICE, World, generous, within};

const PAIRS: &str = "/console/pairs";
const GROUPS: &str = "/console/groups";
const KEYS: &str = "/console/keys";
const HOSTS: &str = "/console/agents";
const PEOPLE: &str = "/console/people";

/// What a form holds once it is filled in.
async fn filled<'a>(
    browser: &mut Browser<'_>,
    page: &str,
    fields: &[(&'a str, &'a str)],
) -> Vec<(&'a str, String)> {
    let shown = browser.get(page).await;
    let hidden = ["proof", "once"].map(|name| (name, shown.field(name).unwrap().to_owned()));
    let written = fields.iter().map(|(name, value)| (*name, (*value).to_owned()));
    written.chain(hidden).collect()
}

async fn post(browser: &mut Browser<'_>, path: &str, fields: &[(&str, String)]) -> Page {
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, text)| (*name, &**text)).collect();
    browser.post(path, &fields).await
}

/// The secrets in a page.
fn secrets(page: &Page) -> Vec<String> {
    let kinds = ["pok_", "pob_", "pos_", "poe_", "/welcome/"];
    let found = kinds.iter().flat_map(|kind| page.text.match_indices(kind));
    let is_secret = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let ends = found.map(|(at, kind)| {
        let rest = &page.text[at + kind.len()..];
        format!("{kind}{}", rest.split(|c| !is_secret(c)).next().unwrap())
    });
    ends.collect()
}

/// How many records the org's audit has, less those of this reader and of tries.
async fn made(world: &World, org: OrgId, kind: &str) -> usize {
    let key = world.key(org).await;
    let path = format!("/api/v1/account/audit?actor=user&kind={kind}");
    world.holder(&key, OFFICE).data(&path).await.as_array().unwrap().len()
}

#[tokio::test]
async fn an_answer_that_is_loaded_again_makes_nothing_and_shows_nothing() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    let zoe = join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    world.group(org).await;
    world.pair(org, 3_600).await;
    crate::browser::next_step(&world);
    let code = zoe.code(&world, 0);
    let pair = [("name", "laptop"), ("email", ""), ("ttl", "")];
    let key = [("name", "ci"), ("scope-groups.read", "yes"), ("lock", "new"), ("code", &*code)];
    let host = [("name", "db-1"), ("group-1", "yes")];
    let person = [("email", "max@example.org"), ("role", "member")];

    for (page, path, kind, fields) in [
        (PAIRS, PAIRS, "pair_created", &pair[..]),
        ("/console/pairs/1", "/console/pairs/1/bookmark", "bookmark_rotated", &[]),
        ("/console/pairs/1", "/console/pairs/1/server-key", "server_key_rotated", &[]),
        (KEYS, KEYS, "key_minted", &key[..]),
        (HOSTS, HOSTS, "agent_invited", &host[..]),
        (PEOPLE, PEOPLE, "user_invited", &person[..]),
    ] {
        let fields = filled(&mut browser, page, fields).await;
        let before = made(&world, org, kind).await;
        let first = post(&mut browser, path, &fields).await;
        assert_eq!((first.status, secrets(&first).is_empty()), (200, false), "{}", first.text);

        for _ in 0..2 {
            let again = post(&mut browser, path, &fields).await;

            assert_eq!(again.status, 409, "{path}: {}", again.text);
            assert!(secrets(&again).is_empty(), "{path}: {}", again.text);
            let link = again.text.split_once("<a class=\"button\" href=\"").unwrap().1;
            let place = link.split('"').next().unwrap().to_owned();
            assert_eq!(browser.get(&place).await.status, 200, "{place}");
        }
        assert_eq!(made(&world, org, kind).await, before + 1, "{path}");
        let anew = filled(&mut browser, page, &[("name", "")]).await;
        assert_ne!(anew.last(), fields.last(), "each page draws another name");
    }
}

#[tokio::test]
async fn what_was_shown_once_still_works_after_the_answer_was_loaded_again() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    world.pair(org, 3_600).await;
    let fields = filled(&mut browser, "/console/pairs/1", &[]).await;
    let path = "/console/pairs/1/bookmark";
    let bookmark: Token = {
        let shown = post(&mut browser, path, &fields).await;
        secrets(&shown).first().unwrap().parse().unwrap()
    };

    assert_eq!(post(&mut browser, path, &fields).await.status, 409);

    let report = world.at(OFFICE).send(Method::POST, &format!("/b/{}", bookmark.expose())).await;
    assert_eq!(report.status(), 200);
}

#[tokio::test]
async fn a_form_with_other_contents_or_without_its_name_makes_nothing() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let mut fields = filled(&mut browser, PAIRS, &[("name", ""), ("email", ""), ("ttl", "")]).await;
    let refused = post(&mut browser, PAIRS, &fields).await;
    assert_eq!(refused.status, 422, "nothing was made");
    fields[0].1 = "one".to_owned();
    assert_eq!(post(&mut browser, PAIRS, &fields).await.status, 200, "so it may come again");

    fields[0].1 = "two".to_owned();
    let other = post(&mut browser, PAIRS, &fields).await;

    assert_eq!(other.status, 409);
    assert!(other.text.contains("filled in in another way"), "{}", other.text);
    fields.pop();
    assert_eq!(post(&mut browser, PAIRS, &fields).await.status, 400, "no name");
    assert_eq!(made(&world, org, "pair_created").await, 1);
    let mut elsewhere = Browser::new(&world);
    join(&mut elsewhere, org, "max@example.org", Role::Admin).await;
    let theirs = filled(&mut elsewhere, PAIRS, &[("name", "three"), ("ttl", "")]).await;
    let stolen: Vec<_> =
        [&theirs[..3], &[("once", filled(&mut browser, PAIRS, &[]).await.pop().unwrap().1)]]
            .concat();
    assert_eq!(post(&mut elsewhere, PAIRS, &stolen).await.status, 200, "names are a login's own");
}

#[tokio::test]
async fn of_a_crowd_that_sends_one_form_one_makes_something() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let fields = filled(&mut browser, PAIRS, &[("name", "laptop"), ("ttl", "")]).await;
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, text)| (*name, &**text)).collect();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (router, request) = (world.router.clone(), browser.unplugged(PAIRS, &fields));
        crowd.spawn(async move { within(router.oneshot(request)).await.unwrap().status() });
    }

    let mut statuses: Vec<u16> =
        crowd.join_all().await.into_iter().map(|status| status.as_u16()).collect();

    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1]), (200, 409), "{statuses:?}");
    assert_eq!(made(&world, org, "pair_created").await, 1);
}

#[tokio::test]
async fn a_group_is_made_once_however_often_its_form_is_sent() {
    let world = World::with(generous());
    let (org, mut browser) = admin(&world).await;
    let fields = filled(&mut browser, GROUPS, &[("name", "web"), ("ttl", "")]).await;

    let sent = [
        post(&mut browser, GROUPS, &fields).await.status,
        post(&mut browser, GROUPS, &fields).await.status,
    ];

    assert_eq!((sent, made(&world, org, "group_created").await), ([303, 409], 1));
}
