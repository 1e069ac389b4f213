//! `/account/audit` and `/groups/{id}/history`: what happened, and what was allowed when.

use std::time::Duration;

use postern_controlplane::audit::{AuditKey, Filter, Hex, LANE, NO_ORG, begin_key};
use postern_controlplane::domain::{Actor, Command, Event, MemberKind, Refusal};
use postern_controlplane::store::{Item, MemoryStore, Operation, Purpose, Store as _, encode};
use postern_shared::ids::Epoch;
use postern_shared::scope::Scope;
use postern_shared::time::Expiry;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Caller, OFFICE, World, problem, settings, start_time, within};

const AUDIT: &str = "/api/v1/account/audit";

/// Reads all pages of a list.
async fn pages(caller: &Caller<'_>, query: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = caller.get(&format!("{AUDIT}?{query}{cursor}")).await;
        assert_eq!(answer.status(), 200, "{query}{cursor}");
        let mut body: Value = within(answer.json()).await.unwrap();
        all.append(body["data"].as_array_mut().unwrap());
        match body["meta"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn kinds(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["kind"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_happened_is_told_the_newest_first_with_who_and_from_where() {
    let world = World::start();
    let org = world.org("acme").await;
    let (id, key) = world.key_with(org, &Scope::ALL, &[OFFICE], Expiry::Never).await;
    let caller = world.holder(&key, OFFICE);
    let pair = world.pair(org, 3_600).await;
    world.clock.advance(Duration::from_secs(5));
    world.report(&pair, "203.0.113.7").await;
    caller.json(Method::PATCH, "/api/v1/pairs/1", &json!({ "ttl": 60 })).await;

    let records = pages(&caller, "").await;

    assert_eq!(
        kinds(&records),
        ["pair_edited", "pair_reported", "pair_created", "key_minted", "org_created"]
    );
    assert_eq!(
        records[0],
        json!({
            "id": "0-5-0",
            "at": "2026-01-01T00:00:05Z",
            "actor": { "kind": "key", "id": id.to_string(), "name": "key" },
            "source": OFFICE,
            "kind": "pair_edited",
            "details": {
                "pair": pair.id.to_string(),
                "name": "laptop <b>",
                "ttl": 60,
                "contact_email": null,
                "reports_by_get": false,
            },
        })
    );
    assert_eq!(records[1]["actor"]["kind"], "pair");
    assert_eq!(records[1]["source"], "203.0.113.7");
    let spot = json!({ "address": "203.0.113.7", "at": "2026-01-01T00:00:05Z" });
    assert_eq!(records[1]["details"]["ipv4"], spot);
    assert_eq!(records[4]["actor"], json!({ "kind": "operator" }));
    assert_eq!(records[4]["source"], Value::Null);
}

#[tokio::test]
async fn pages_and_bounds_of_the_audit_join_without_gap() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    for _ in 0..7 {
        world.clock.advance(Duration::from_secs(10));
        world.group(org).await;
        world.pair(org, 60).await;
    }

    let all = pages(&caller, "").await;

    assert_eq!(all.len(), 16);
    for limit in [1, 3, 16, 17] {
        assert_eq!(pages(&caller, &format!("limit={limit}")).await, all, "{limit}");
    }
    let since = pages(&caller, "since=2026-01-01T00:00:30Z").await;
    let until = pages(&caller, "until=2026-01-01T00:00:30Z").await;
    assert_eq!((since.len(), until.len()), (10, 6));
    assert_eq!([since, until].concat(), all);
    let within = "since=2026-01-01T00:00:30Z&until=2026-01-01T00:00:50Z&limit=3";
    assert_eq!(pages(&caller, within).await, all[6..10]);
    let groups = pages(&caller, "kind=group_created&limit=2").await;
    assert_eq!(kinds(&groups), ["group_created"; 7]);
    assert!(pages(&caller, "since=2027-01-01T00:00:00Z").await.is_empty());
    assert!(pages(&caller, "kind=user_removed").await.is_empty());
    for query in
        ["limit=0", "limit=1001", "cursor=AQEB", "since=yesterday", "sinse=2026-01-01T00:00:00Z"]
    {
        assert_eq!(caller.get(&format!("{AUDIT}?{query}")).await.status(), 400, "{query}");
    }
    let misspelt = caller.get("/api/v1/pairs?limt=2").await.json::<Value>().await.unwrap();
    assert_eq!(misspelt["detail"], "there is no parameter `limt` here, only `limit`, `cursor`");
}

#[tokio::test]
async fn an_audit_is_told_by_who_did_it_and_by_group() {
    let world = World::start();
    let (org, other) = (world.org("acme").await, world.org("other").await);
    let (id, key) = world.key_with(org, &Scope::ALL, &[OFFICE], Expiry::Never).await;
    let caller = world.holder(&key, OFFICE);
    let (group, second) = (world.group(org).await, world.group(org).await);
    let theirs = world.group(other).await;
    let pair = world.pair(org, 3_600).await;
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    world.report(&pair, "203.0.113.7").await;
    world.network(org, second, "192.0.2.0/24").await;
    for name in ["one", "two"] {
        caller.json(Method::PATCH, "/api/v1/groups/2", &json!({ "name": name })).await;
    }
    world.order(Command::DeleteGroup { org, group, expected: None }).await;
    let all = pages(&caller, "").await;
    let by = |kind: &str| {
        let is_by = |record: &&Value| record["actor"]["kind"] == kind;
        all.iter().filter(is_by).cloned().collect::<Vec<Value>>()
    };

    for (query, wanted) in [
        ("actor=key".to_owned(), by("key")),
        (format!("actor={id}"), by("key")),
        (format!("actor={}", pair.id), by("pair")),
        ("actor=operator".to_owned(), by("operator")),
        ("actor=user".to_owned(), vec![]),
        (format!("actor={theirs}"), vec![]),
        (format!("group={theirs}"), vec![]),
    ] {
        assert_eq!(pages(&caller, &query).await, wanted, "{query}");
        assert_eq!(pages(&caller, &format!("{query}&limit=1")).await, wanted, "{query}");
    }
    let gone = pages(&caller, &format!("group={group}&limit=2")).await;
    assert_eq!(kinds(&gone), ["group_deleted", "member_added", "group_created"]);
    let named = ["group_edited", "group_edited", "member_added", "group_created"];
    for text in ["2".to_owned(), second.to_string()] {
        let found = pages(&caller, &format!("group={text}")).await;
        assert_eq!(kinds(&found), named, "{text}");
    }
    let both = pages(&caller, "group=2&actor=key&kind=group_edited&limit=1").await;
    assert_eq!(both, by("key"));
    let misspelt = caller.get(&format!("{AUDIT}?kind=pair_report")).await;
    assert_eq!(misspelt.status(), 400);
    let misspelt = problem(misspelt).await;
    assert!(misspelt["detail"].as_str().unwrap().contains(", pair_reported, "), "{misspelt}");
    for query in ["kind=", "actor=", "actor=nobody", "actor=2", "group=", "group=1", "group=web"] {
        assert_eq!(caller.get(&format!("{AUDIT}?{query}")).await.status(), 400, "{query}");
    }
}

#[tokio::test]
async fn a_page_that_found_nothing_yet_says_where_to_go_on() {
    const LOOKED_AT_MAX: usize = 10_000;
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    world.group(org).await;
    let (refusal, since) = (Refusal::ForbiddenOrigin, world.engine.now());
    for _ in 0..LOOKED_AT_MAX {
        world.order(Command::NoteRefusals { org, refusal, count: 1, since }).await;
    }

    let first: Value = within(caller.get(&format!("{AUDIT}?group=1")).await.json()).await.unwrap();

    assert_eq!(first["data"], json!([]));
    assert!(first["meta"]["next_cursor"].is_string(), "{first}");
    assert_eq!(kinds(&pages(&caller, "group=1").await), ["group_created"]);
}

#[tokio::test]
async fn an_audit_is_told_to_its_own_org_and_to_who_may_read_accounts() {
    let world = World::start();
    let (one, other) = (world.org("one").await, world.org("other").await);
    let (mine, theirs) = (world.key(one).await, world.key(other).await);
    for org in [one, other, one] {
        world.group(org).await;
    }
    let (_, narrow) = world.key_with(one, &[Scope::GroupsRead], &[OFFICE], Expiry::Never).await;

    let mine = pages(&world.holder(&mine, OFFICE), "limit=1").await;
    let theirs = pages(&world.holder(&theirs, OFFICE), "limit=1").await;

    assert_eq!((mine.len(), theirs.len()), (5, 3));
    assert!(mine.iter().all(|record| !theirs.contains(record)));
    let refused = world.holder(&narrow, OFFICE).get(AUDIT).await;
    assert_eq!(refused.status(), 403);
    assert_eq!(problem(refused).await["type"], "insufficient_scope");
}

/// What a group allowed at so many seconds after the start.
async fn allowed(caller: &Caller<'_>, group: &str, secs: u64) -> Value {
    let path = format!(
        "/api/v1/groups/{group}/history?at=2026-01-01T00:{:02}:{:02}Z",
        secs / 60,
        secs % 60
    );
    caller.data(&path).await
}

#[tokio::test]
async fn who_was_allowed_when_is_one_question() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    let step = || world.clock.advance(Duration::from_secs(60));
    let group = world.group(org).await;
    let name = group.to_string();
    let pair = world.pair(org, 150).await;
    world.report(&pair, "203.0.113.7").await;
    step();
    world.member(org, group, MemberKind::Pair(pair.id), Expiry::Never).await;
    step();
    world.report(&pair, "203.0.113.8").await;
    world.network(org, group, "198.51.100.0/24").await;
    step();
    let now = caller.data(&format!("/api/v1/groups/{group}/ips")).await;
    let later = allowed(&caller, &name, 180).await;
    step();
    step();
    world.order(Command::DeleteGroup { org, group, expected: None }).await;
    step();

    let at = async |secs| allowed(&caller, &name, secs).await;

    assert_eq!(at(0).await["ips"], json!([]));
    let first = at(60).await;
    assert_eq!(first["ips"], json!(["203.0.113.7"]));
    assert_eq!(first["entries"][0]["expires_at"], "2026-01-01T00:02:30Z");
    assert_eq!(first["entries"][0]["sources"][0]["id"], pair.id.to_string());
    assert_eq!(first["entries"][0]["sources"][0]["name"], "laptop <b>");
    assert_eq!(at(119).await["ips"], json!(["203.0.113.7"]));
    assert_eq!(at(120).await["ips"], json!(["198.51.100.0/24", "203.0.113.8"]));
    for part in ["ips", "entries", "digest"] {
        assert_eq!(later[part], now[part], "{part}: the audit and the memory agree");
    }
    assert_eq!(at(180).await, later, "the past does not change");
    assert_eq!(at(269).await["ips"], json!(["198.51.100.0/24", "203.0.113.8"]));
    assert_eq!(at(270).await["ips"], json!(["198.51.100.0/24"]), "expiry is computed");
    let gone = at(300).await;
    assert_eq!(
        (&gone["existed"], &gone["ips"], &gone["name"]),
        (&json!(false), &json!([]), &json!("web"))
    );
}

#[tokio::test]
async fn the_past_of_another_org_is_as_unknown_as_what_never_was() {
    let world = World::start();
    let (one, other) = (world.org("one").await, world.org("other").await);
    let key = world.key(one).await;
    let group = world.group(other).await;
    let own = world.group(one).await;
    let caller = world.holder(&key, OFFICE);
    let ask = async |group: &str, query: &str| {
        caller.get(&format!("/api/v1/groups/{group}/history{query}")).await
    };
    const NOW: &str = "?at=2026-01-01T00:00:00Z";

    let mut told = Vec::new();
    for group in [&group.to_string(), "6f1c9a52-6a0f-4f0e-9d2b-0d6f0f6f3f10", "2", "web"] {
        let answer = ask(group, NOW).await;
        assert_eq!(answer.status(), 404, "{group}");
        told.push(problem(answer).await);
    }
    assert!(told.iter().all(|problem| *problem == told[0]));
    assert_eq!(ask(&own.to_string(), NOW).await.status(), 200);
    assert_eq!(ask("1", NOW).await.status(), 200, "its number names it as well");
    for query in ["", "?at=yesterday", "?at=2026-01-01T00:00:01Z", "?at=2026-01-01T00:00:00Z&x=1"] {
        assert_eq!(ask("1", query).await.status(), 400, "{query}");
    }
    world.clock.advance(Duration::from_secs(1));
    let young = world.group(one).await;
    let answer = caller.data(&format!("/api/v1/groups/{young}/history{NOW}")).await;
    assert_eq!(answer["existed"], false, "it was not there yet");
}

#[tokio::test]
async fn refusals_are_recorded_as_counts_by_holder_and_kind() {
    let world = World::start();
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let (narrow_id, narrow) =
        world.key_with(org, &[Scope::GroupsRead], &[OFFICE], Expiry::Never).await;
    let (revoked_id, revoked) = world.key_with(org, &Scope::ALL, &[OFFICE], Expiry::Never).await;
    world.order(Command::RevokeKey { org, key: revoked_id }).await;
    let pair = world.pair(org, 60).await;
    let caller = world.holder(&key, OFFICE);
    let before = pages(&caller, "").await.len();
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        assert_eq!(world.holder(&narrow, address).get(AUDIT).await.status(), 403);
    }
    assert_eq!(world.holder(&narrow, OFFICE).get(AUDIT).await.status(), 403);
    assert_eq!(world.holder(&revoked, OFFICE).get(AUDIT).await.status(), 401);
    world.holder(&pair.bookmark, OFFICE).get(AUDIT).await;
    world.at(OFFICE).get("/b/nonsense").await;
    assert_eq!(pages(&caller, "").await.len(), before, "not one by one");
    world.clock.advance(Duration::from_secs(60));

    world.app.record_refusals().await;
    world.app.record_refusals().await;

    let records = pages(&caller, "kind=requests_refused").await;
    let told = records.iter().map(|record| {
        let details = &record["details"];
        assert_eq!(details["since"], "2026-01-01T00:00:00Z");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (id, source) = (text(&record["actor"]["id"]), text(&record["source"]));
        (text(&details["refusal"]), details["count"].as_u64().unwrap(), id, source)
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    let expected = |kind: &str, count, id: String, source: &str| {
        (kind.to_owned(), count, id, source.to_owned())
    };
    assert_eq!(
        told,
        [
            expected("forbidden_origin", 3, narrow_id.to_string(), "192.0.2.3"),
            expected("insufficient_scope", 1, narrow_id.to_string(), OFFICE),
            expected("wrong_secret", 1, revoked_id.to_string(), OFFICE),
        ]
    );
    let of_nobody =
        world.engine.read_audit(|audit| audit.page(NO_ORG, &Filter::default(), None, 10));
    let of_nobody = of_nobody.await.unwrap().entries;
    assert_eq!(of_nobody.len(), 1);
    assert_eq!(of_nobody[0].record.actor, Actor::Unknown);
    let since = of_nobody[0].record.at.saturating_sub(Duration::from_secs(60));
    let refusal = Refusal::WrongSecret;
    assert_eq!(of_nobody[0].record.event, Event::RequestsRefused { refusal, count: 2, since });
}

#[tokio::test]
async fn what_was_pruned_is_not_known_and_that_is_said() {
    let mut store = MemoryStore::new(Epoch::from_random([1; 16]));
    let key = AuditKey::from_seed(&[1; 32]).unwrap();
    let pruned = start_time().saturating_add(Duration::from_secs(60));
    let begin = key.sign_begin(LANE, 1, Hex([0; 32]), pruned);
    let operations = vec![Operation::Put(begin_key(LANE), encode(&begin))];
    let item = Item { preconditions: Vec::new(), operations };
    store.commit(&[item], Purpose::Ordinary, start_time()).unwrap();
    let world = World::on(Box::new(store), settings());
    let org = world.org("acme").await;
    let key = world.key(org).await;
    let caller = world.holder(&key, OFFICE);
    world.clock.advance(Duration::from_secs(120));
    let group = world.group(org).await;
    let ask = async |at: &str| {
        caller.get(&format!("/api/v1/groups/{group}/history?at=2026-01-01T{at}Z")).await
    };

    let early = ask("00:00:59").await;
    assert_eq!(early.status(), 409);
    let told = problem(early).await;
    assert!(told["detail"].as_str().unwrap().contains("until 2026-01-01T00:01:00Z"), "{told}");
    assert_eq!(ask("00:01:59").await.status(), 200);
}
