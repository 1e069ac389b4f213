//! The console's pages of the audit. The witnesses are the API, and our own verifier over what was
//! downloaded.

use std::time::Duration;

use postern_controlplane::audit::{Line, Verifier};
use postern_controlplane::domain::{Command, MemberKind, Role};
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::json;

use crate::browser::{Browser, join};
use crate::world::{OFFICE, World, generous};

const AUDIT: &str = "/console/audit";

/// What stands in the cells of a column of the only table.
fn column(text: &str, label: &str) -> Vec<String> {
    let mark = format!("data-label=\"{label}\">");
    let cells = text.split(&mark).skip(1);
    cells.map(|rest| rest.split("</td>").next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_happened_is_told_in_words_the_newest_first() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, "203.0.113.7").await;
    world.network(org, group, "192.0.2.0/24").await;
    browser.fill_in("/console/groups", "/console/groups", &[("name", "<i>db</i>")]).await;
    let key = world.key(org).await;
    for _ in 0..3 {
        assert_eq!(world.holder(&key, "192.0.2.9").get("/api/v1/groups").await.status(), 403);
    }
    world.app.record_refusals().await;

    let page = browser.get(AUDIT).await;

    let told = column(&page.text, "What");
    let wanted = [
        "was refused 3 times since 2026-01-01T00:00:00Z: the secret does not work from there",
        "minted the key key: account.read, account.write, pairs.read, pairs.write, groups.read, \
         groups.write, from 198.51.100.7",
        "made group 2, &#60;i&#62;db&#60;/i&#62;",
        "added 192.0.2.0/24 (office) to group 1 (web)",
        "pair 1 (laptop &#60;b&#62;) is now at 203.0.113.7",
        "added the pair laptop &#60;b&#62; to group 1 (web)",
        "made pair 1, laptop &#60;b&#62;",
        "made group 1, web",
        "set password and authenticator of zoe@example.org, by a link",
        "invited zoe@example.org as admin",
        "began acme, with admin@example.org as its admin",
    ];
    assert_eq!(told, wanted, "{}", page.text);
    let from = column(&page.text, "From");
    assert_eq!(from[..5], ["192.0.2.9", "", OFFICE, "", "203.0.113.7"]);
    for who in
        ["key key", "zoe@example.org", "pair 1 (laptop &#60;b&#62;)", "the operator, on the host"]
    {
        assert!(page.text.contains(&format!("<th scope=\"row\">{who}</th>")), "{who}");
    }
}

#[tokio::test]
async fn pages_and_filters_join_without_gap_and_name_what_is_wrong() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    for _ in 0..130 {
        world.clock.advance(Duration::from_secs(10));
        world.group(org).await;
    }

    let first = browser.get(&format!("{AUDIT}?kind=group_created&since=&until=")).await.text;
    let next = first.split_once("rel=\"next\" href=\"").unwrap().1.split('"').next().unwrap();
    let second = browser.get(&next.replace("&#38;", "&")).await.text;

    let told = [column(&first, "What"), column(&second, "What")].concat();
    let wanted: Vec<String> = (1..=130).rev().map(|n| format!("made group {n}, web")).collect();
    assert_eq!(told, wanted);
    assert!(!second.contains("rel=\"next\""), "{second}");
    let some = format!("{AUDIT}?since=2026-01-01T00:01&until=2026-01-01T00:02:00Z");
    assert_eq!(column(&browser.get(&some).await.text, "What").len(), 6);
    for (query, told) in [
        ("since=yesterday", "the first time is `yesterday`; write it in UTC"),
        ("until=%3Cb%3E", "the last time is `&#60;b&#62;`"),
        ("after=here", "such as 0-17-0"),
        ("actor=%3Cb%3E", "nobody here is `&#60;b&#62;`; write the mail address of a person"),
        ("actor=admin%40elsewhere.example", "nobody here is `admin@elsewhere.example`"),
        ("group=999", "write the number of a group, or the id of one that is gone"),
    ] {
        let page = browser.get(&format!("{AUDIT}?{query}")).await;
        assert_eq!(page.status, 422, "{query}");
        assert!(page.text.contains(told), "{told}: {}", page.text);
    }
    world.network(org, world.group(org).await, "192.0.2.0/24").await;
    let next = async |browser: &mut Browser<'_>, query: &str| {
        let page = browser.get(&format!("{AUDIT}?{query}")).await.text;
        page.split_once("rel=\"next\" href=\"")
            .map(|(_, rest)| rest.split('"').next().unwrap().to_owned())
    };
    let shown = column(&browser.get(&format!("{AUDIT}?group=131")).await.text, "What");
    assert_eq!(shown, ["added 192.0.2.0/24 (office) to group 131 (web)", "made group 131, web"]);
    for query in ["actor=zoe%40example.org", "actor=user"] {
        let page = browser.get(&format!("{AUDIT}?{query}")).await.text;
        let told = column(&page, "What");
        assert_eq!(
            told,
            ["set password and authenticator of zoe@example.org, by a link"],
            "{page}"
        );
    }
    let older = next(&mut browser, "actor=operator").await.unwrap().replace("&#38;", "&");
    assert!(older.contains("actor=operator"), "{older}");
    let older = column(&browser.get(&older).await.text, "What");
    assert_eq!(older.last().unwrap(), "began acme, with admin@example.org as its admin");
    assert!(!older.iter().any(|what| what.starts_with("set password")), "{older:?}");
    let none = browser.get(&format!("{AUDIT}?kind=nothing")).await.text;
    assert!(none.contains("There is no such record."), "{none}");
}

#[tokio::test]
async fn what_is_downloaded_verifies_and_is_the_orgs_alone() {
    let world = World::with(generous());
    let (org, other) = (world.org("acme").await, world.org("secret corp").await);
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    for _ in 0..300 {
        world.group(org).await;
        world.group(other).await;
    }
    world.engine.sign_audit().await;

    let download = browser.get(&format!("{AUDIT}/export")).await;

    assert_eq!(download.status, 200);
    let name = "attachment; filename=\"postern-audit-2026-01-01.jsonl\"";
    assert_eq!(download.header("content-disposition"), name);
    assert_eq!(download.header("cache-control"), "no-store");
    assert!(!download.text.contains("secret corp"));
    let mut verifier = Verifier::new(world.engine.audit_key(), None);
    for line in download.text.lines() {
        verifier.take(serde_json::from_str::<Line>(line).unwrap()).unwrap();
    }
    let verified = verifier.finish().unwrap();
    assert_eq!((verified.org, verified.records), (Some(org), 303));
    let page = browser.get(&format!("{AUDIT}/verify")).await.text;
    assert!(page.contains("The audit is as it was written."), "{page}");
    assert!(page.contains("<dd>303</dd>"), "{page}");
    let signed = format!("up to link {}", verified.signed.unwrap());
    assert!(page.contains(&signed), "{page}");
    assert!(browser.get(AUDIT).await.text.contains(&signed));
}

#[tokio::test]
async fn who_was_let_in_then_is_what_the_api_says() {
    let world = World::with(generous());
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let mut browser = Browser::new(&world);
    join(&mut browser, org, "zoe@example.org", Role::Admin).await;
    let group = world.group(org).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.clock.advance(Duration::from_secs(60));
    world.report(&pair, "203.0.113.7").await;
    world.clock.advance(Duration::from_secs(60));
    world.network(org, group, "192.0.2.0/24").await;
    world.clock.advance(Duration::from_secs(60));
    world.order(Command::DeleteGroup { org, group, expected: None }).await;
    world.clock.advance(Duration::from_secs(60));
    let mut ask = async |group: &str, at: &str| {
        browser.get(&format!("{AUDIT}/allowed?group={group}&at={at}")).await
    };

    for (at, networks, through) in [
        ("2026-01-01T00:00:30Z", vec![], vec![]),
        ("2026-01-01T00:01", vec!["203.0.113.7"], vec!["laptop &#60;b&#62;"]),
        (
            "2026-01-01T00:02:30",
            vec!["192.0.2.0/24", "203.0.113.7"],
            vec!["office", "laptop &#60;b&#62;"],
        ),
    ] {
        let page = ask(&group.to_string(), at).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let rows = page.text.split("<th scope=\"row\" class=\"mono\">").skip(1);
        let shown: Vec<&str> = rows.map(|rest| rest.split('<').next().unwrap()).collect();
        assert_eq!(shown, networks, "{at}");
        assert_eq!(column(&page.text, "Through"), through, "{at}");
    }
    let at = "2026-01-01T00:02:30Z";
    let path = format!("/api/v1/groups/{group}/history?at={at}");
    let witness = world.holder(&key, OFFICE).data(&path).await;
    assert_eq!(witness["ips"], json!(["192.0.2.0/24", "203.0.113.7"]));
    let gone = ask(&group.to_string(), "2026-01-01T00:03:30").await;
    assert!(gone.text.contains("there was no group <strong>web</strong>"), "{}", gone.text);
    for (group, at, told) in [
        (&*group.to_string(), "2027-01-01", "the time lies in the future"),
        (&*group.to_string(), "", "write the time, in UTC"),
        (&*group.to_string(), "noon", "the time is `noon`"),
        ("1", at, "write the number of a group"),
        ("", at, "write the number of a group"),
    ] {
        let page = ask(group, at).await;
        assert_eq!(page.status, 422, "{group} {at}");
        assert!(page.text.contains(told), "{told}: {}", page.text);
    }
}

#[tokio::test]
async fn only_admins_read_the_audit_and_only_their_own() {
    let world = World::with(generous());
    let (org, other) = (world.org("acme").await, world.org("other").await);
    let group = world.group(org).await;
    let mut member = Browser::new(&world);
    join(&mut member, org, "max@example.org", Role::Member).await;
    let mut stranger = Browser::new(&world);
    join(&mut stranger, other, "eve@example.org", Role::Admin).await;

    let allowed = format!("{AUDIT}/allowed?group={group}&at=2026-01-01");
    for path in
        [AUDIT.to_owned(), format!("{AUDIT}/verify"), format!("{AUDIT}/export"), allowed.clone()]
    {
        let refused = member.get(&path).await;
        assert_eq!(refused.status, 403, "{path}");
        assert!(!refused.text.contains("max@example.org as"), "{path}");
        let proof = stranger.get("/console").await.field("proof").unwrap().to_owned();
        assert_eq!(stranger.post(&path, &[("proof", &*proof)]).await.status, 405, "{path}");
    }
    assert!(!member.get("/console").await.text.contains("href=\"/console/audit\""));
    assert!(stranger.get("/console").await.text.contains("href=\"/console/audit\""));
    assert!(!stranger.get(AUDIT).await.text.contains("made group"));
    assert_eq!(stranger.get(&allowed).await.status, 404);
    assert!(!stranger.get(&format!("{AUDIT}/export")).await.text.contains("made group"));
    let put = stranger.send(stranger.request(Method::DELETE, AUDIT)).await;
    assert_eq!(put.status, 405);
}
