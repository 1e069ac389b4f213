//! What the audit is worth as evidence: whatever is changed in it is named, and nothing but the
//! documented form is needed to see that it is whole.

use std::collections::BTreeMap;
use std::fs;
use std::future::poll_fn;
use std::ops::Bound;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use futures_util::future::join_all;
use postern_controlplane::audit::{
    AuditKey, AuditView, Broken, ChainLink, Filter, LANE, Line, NO_ORG, Place, SignedBegin,
    Verified, Verifier, What, begin_key, head_key, head_operation, link_key, record_key,
};
use postern_controlplane::chance::SeededChance;
use postern_controlplane::clock::ManualClock;
use postern_controlplane::data_dir::read_audit_key;
use postern_controlplane::domain::{
    Actor, Command, Group, Order as Asked, Org, Refusal, Role, User,
};
use postern_controlplane::engine::Engine;
use postern_controlplane::store::{
    Item, Key, MemoryStore, Operation, Options, Order, Purpose, RedbStore, Scan, Store as _, Table,
    decode, encode,
};
use postern_shared::ids::{Epoch, GroupId, OrgId, UserId};
use postern_shared::time::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::plane::{Plane, store};

/// A plane with two orgs, and links of one and of several records.
struct Scene {
    plane: Plane,
    one: OrgId,
    other: OrgId,
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_900_000_000_000 + secs * 1_000).unwrap()
}

fn open(plane: &Plane) -> RedbStore {
    RedbStore::open(&store(&plane.data()), Options::default()).unwrap()
}

fn key_of(plane: &Plane) -> AuditKey {
    read_audit_key(&plane.data().join("audit-key")).unwrap()
}

fn group(org: OrgId, engine: &Engine) -> Asked {
    let group = Group {
        id: GroupId::from_random(engine.chance().id()),
        org,
        number: 0,
        name: "ssh".parse().unwrap(),
        ttl: None,
        created_at: engine.now(),
    };
    Asked { actor: Actor::Operator, source: None, command: Command::CreateGroup(group) }
}

/// Makes a group in `one`, then one in each org with one commit: what comes while the writer waits
/// for a reader of the state shares the next one.
#[expect(clippy::await_holding_lock, reason = "the writer is to wait")]
async fn share_a_link(engine: &Engine, one: OrgId, other: OrgId) {
    let recorded = || engine.read_audit(move |audit| audit.end_link(Order::Descending));
    let before = recorded().await.unwrap().map(|link| link.number);
    let state = engine.state();
    let mut alone = pin!(engine.submit(group(one, engine)));
    assert!(waits(alone.as_mut()).await);
    while recorded().await.unwrap().map(|link| link.number) == before {
        tokio::task::yield_now().await;
    }
    let mut both = pin!(join_all([one, other].map(|org| engine.submit(group(org, engine)))));
    assert!(waits(both.as_mut()).await);
    drop(state);
    alone.await.unwrap();
    assert!(both.await.iter().all(Result::is_ok));
}

/// Lets a future begin; answers whether it has to wait.
async fn waits(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

impl Scene {
    /// Links 1 to 3 are `init`'s; 4 makes another org; 6, 8 and 10 have a record of each org, and
    /// those between have one.
    fn set() -> Scene {
        let plane = Plane::make();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one, other) = runtime.block_on(async {
            let clock = Arc::new(ManualClock::at(at(0)));
            let chance = Arc::new(SeededChance::new(1));
            let store = Box::new(open(&plane));
            let (engine, writer) =
                Engine::start_signing(store, clock, chance, key_of(&plane)).unwrap();
            let one = engine.state().orgs().next().unwrap().record.id;
            let other = OrgId::from_random(engine.chance().id());
            let org = Org {
                id: other,
                name: "Other".parse().unwrap(),
                created_at: at(0),
                pairs_numbered: 0,
                groups_numbered: 0,
            };
            let admin = User {
                id: UserId::from_random(engine.chance().id()),
                org: other,
                email: "admin@example.org".parse().unwrap(),
                role: Role::Admin,
                created_at: at(0),
            };
            let command = Command::CreateOrg { org, admin };
            engine.submit(Asked { actor: Actor::Operator, source: None, command }).await.unwrap();
            for _ in 0..3 {
                share_a_link(&engine, one, other).await;
            }
            engine.stop().await;
            tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
            (one, other)
        });
        Scene { plane, one, other }
    }

    /// Changes the store behind the plane's back.
    fn tamper(&self, operations: Vec<Operation>) {
        let item = Item { preconditions: Vec::new(), operations };
        open(&self.plane).commit(&[item], Purpose::Ordinary, at(0)).unwrap();
    }

    /// What `audit verify` finds to be wrong; `None` when nothing is.
    fn wrong(&self) -> Option<Value> {
        let mut command = self.plane.program(&["audit", "verify", "--json"]);
        let output = command.output().unwrap();
        match output.status.code() {
            Some(0) => None,
            Some(6) => {
                let told: Value = serde_json::from_slice(&output.stderr).unwrap();
                Some(told["error"]["broken"].clone())
            }
            _ => panic!("{output:?}"),
        }
    }

    fn export(&self, rest: &[&str]) -> String {
        let output = self.plane.run(&[&["audit", "export"], rest].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn place(number: u64, index: u32) -> Place {
    Place { lane: LANE, number, index }
}

fn value(store: &RedbStore, key: &Key) -> Vec<u8> {
    let range = Bound::Included(&key.id[..]);
    let scan = Scan { table: key.table, from: range, to: range, order: Order::Ascending, limit: 1 };
    store.scan(scan).unwrap().remove(0).value
}

fn link(store: &RedbStore, number: u64) -> ChainLink {
    decode(&value(store, &link_key(LANE, number))).unwrap()
}

#[test]
fn every_change_of_the_store_is_named() {
    let scene = Scene::set();
    assert_eq!(scene.wrong(), None);
    let store = open(&scene.plane);
    let of = |org, number, index| record_key(org, place(number, index));
    let whose = |number, index: usize| link(&store, number).records[index].org;
    let key = |number, index: u32| of(whose(number, index as usize), number, index);
    let bytes = |key: &Key| value(&store, key);
    let put = |key: &Key, bytes: Vec<u8>| Operation::Put(key.clone(), bytes);
    let delete = |key: &Key| Operation::Delete(key.clone());
    let (k40, k60, k80, k81) = (key(4, 0), key(6, 0), key(8, 0), key(8, 1));
    let last = link(&store, 10);
    let mut altered = bytes(&k60);
    *altered.last_mut().unwrap() ^= 1;
    let shortened = ChainLink { records: last.records[..1].to_vec(), ..last.clone() };
    let stranger = AuditKey::from_seed(&[9; 32]).unwrap();
    let own = key_of(&scene.plane).public();
    let head = stranger.sign_head(LANE, last.tip(LANE), at(0));
    let early = ChainLink { at: at(1), ..link(&store, 6) };
    let elsewhere = if whose(10, 0) == scene.one { scene.other } else { scene.one };

    let cases: Vec<(&str, Vec<Operation>, &str, Option<&str>)> = vec![
        ("a record is altered", vec![put(&k60, altered)], "record_altered", Some("0-6-0")),
        ("a record is deleted", vec![delete(&k60)], "record_missing", Some("0-6-0")),
        (
            "two records of a link change places",
            vec![put(&k80, bytes(&k81)), put(&k81, bytes(&k80))],
            "record_moved",
            Some("0-8-0"),
        ),
        (
            "two records of two links change places",
            vec![put(&k80, bytes(&k40)), put(&k40, bytes(&k80))],
            "record_moved",
            Some("0-4-0"),
        ),
        (
            "a record is put in",
            vec![put(&of(whose(6, 0), 6, 7), bytes(&k60))],
            "record_extra",
            Some("0-6-7"),
        ),
        (
            "a record is put behind",
            vec![put(&of(whose(6, 0), 13, 0), bytes(&k60))],
            "record_extra",
            Some("0-13-0"),
        ),
        (
            "a record is given to another org",
            vec![delete(&key(10, 0)), put(&of(elsewhere, 10, 0), bytes(&key(10, 0)))],
            "record_missing",
            Some("0-10-0"),
        ),
        ("a link is deleted", vec![delete(&link_key(LANE, 6))], "link_missing", None),
        ("the first link is deleted", vec![delete(&link_key(LANE, 1))], "link_missing", None),
        (
            "the end is cut off",
            vec![delete(&link_key(LANE, 10)), delete(&key(10, 0)), delete(&key(10, 1))],
            "chain_cut",
            None,
        ),
        (
            "a record is taken out with its place in the last link",
            vec![put(&link_key(LANE, 10), encode(&shortened)), delete(&key(10, 1))],
            "head_mismatch",
            None,
        ),
        (
            "a link is dated back",
            vec![put(&link_key(LANE, 6), encode(&early))],
            "link_broken",
            None,
        ),
        ("the signature is deleted", vec![delete(&head_key(LANE, own))], "head_missing", None),
        (
            "somebody else has signed",
            vec![delete(&head_key(LANE, own)), head_operation(&head)],
            "other_key",
            None,
        ),
    ];
    drop(store);
    for (name, operations, what, place) in cases {
        let store = open(&scene.plane);
        let before: Vec<Operation> = operations.iter().map(|done| restored(&store, done)).collect();
        drop(store);

        scene.tamper(operations);

        let wrong = scene.wrong().unwrap_or_else(|| panic!("{name}: nobody noticed"));
        assert_eq!(wrong["what"], what, "{name}: {wrong}");
        assert_eq!(wrong["place"].as_str(), place, "{name}: {wrong}");
        scene.tamper(before);
        assert_eq!(scene.wrong(), None, "{name}: put right again");
    }
}

/// What undoes an operation.
fn restored(store: &RedbStore, operation: &Operation) -> Operation {
    let (Operation::Put(key, _) | Operation::Delete(key)) = operation;
    let id = Bound::Included(&key.id[..]);
    let scan = Scan { table: key.table, from: id, to: id, order: Order::Ascending, limit: 1 };
    match store.scan(scan).unwrap().pop() {
        Some(record) => Operation::Put(record.key, record.value),
        None => Operation::Delete(key.clone()),
    }
}

/// The whole chain is written anew, as who has the store but not the key would.
#[test]
fn a_chain_that_is_written_anew_is_not_what_was_signed() {
    let scene = Scene::set();
    let store = open(&scene.plane);
    let (mut tip, mut operations) = (None, Vec::new());
    for number in 1..=10 {
        let found = link(&store, number);
        let mut records = found.records.clone();
        if number == 6 {
            let gone = records.pop().unwrap();
            operations.push(Operation::Delete(record_key(gone.org, place(6, 1))));
        }
        let anew = ChainLink::after(tip, found.at, records);
        tip = Some(anew.tip(LANE));
        operations.push(Operation::Put(link_key(LANE, number), encode(&anew)));
    }
    drop(store);

    scene.tamper(operations);

    assert_eq!(scene.wrong().unwrap()["what"], "head_mismatch");
    // Nothing is signed over it later: the evidence stays.
    scene.plane.json(&["group", "add", "web", "--org", "Other"]);
    let daemon = scene.plane.start();
    assert_eq!(scene.wrong().unwrap()["what"], "head_mismatch");
    drop(daemon);
}

/// Knows the documented form, SHA-256 and another implementation of Ed25519; nothing of ours.
fn witness(export: &str) -> (u64, BTreeMap<String, u64>) {
    let hex = |value: &Value| -> Vec<u8> {
        let text = value.as_str().unwrap();
        (0..text.len())
            .step_by(2)
            .map(|n| u8::from_str_radix(&text[n..n + 2], 16).unwrap())
            .collect()
    };
    let number = |value: &Value| value.as_u64().unwrap().to_be_bytes();
    let ms = |value: &Value| {
        let at: Timestamp = value.as_str().unwrap().parse().unwrap();
        at.unix_ms().to_be_bytes()
    };
    let (mut heads, mut links, mut hashes, mut counts) =
        (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut previous: Option<Vec<u8>> = None;
    for line in export.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(link) = line.get("link") {
            let of_before = hex(&link["previous"]);
            assert!(previous.is_none_or(|previous| previous == of_before));
            let records = link["records"].as_array().unwrap();
            let mut message = b"postern audit link 1\n\0\0".to_vec();
            message.extend(number(&link["number"]));
            message.extend(ms(&link["at"]));
            message.extend(of_before);
            message.extend(u32::try_from(records.len()).unwrap().to_be_bytes());
            for (index, record) in records.iter().enumerate() {
                message.extend(hex(&record["tag"]));
                message.extend(hex(&record["hash"]));
                hashes.insert(format!("0-{}-{index}", link["number"]), hex(&record["hash"]));
            }
            let hash = Sha256::digest(message).to_vec();
            previous = Some(hash.clone());
            links.insert(link["number"].as_u64().unwrap(), hash);
        } else if let Some(record) = line.get("record") {
            let id = record["id"].as_str().unwrap();
            assert_eq!(Sha256::digest(hex(&record["bytes"])).to_vec(), hashes[id], "{id}");
            *counts.entry(record["org"].as_str().unwrap().to_owned()).or_default() += 1;
        } else if let Some(head) = line.get("head") {
            heads.push(head.clone());
        }
    }
    let mut signed = 0;
    for head in heads {
        let at_number = head["number"].as_u64().unwrap();
        assert_eq!(hex(&head["hash"]), links[&at_number]);
        let mut message = b"postern audit head 1\n\0\0".to_vec();
        message.extend(number(&head["number"]));
        message.extend(ms(&head["at"]));
        message.extend(hex(&head["hash"]));
        let key = VerifyingKey::from_bytes(&hex(&head["key"]).try_into().unwrap()).unwrap();
        let signature = Signature::from_bytes(&hex(&head["signature"]).try_into().unwrap());
        key.verify_strict(&message, &signature).unwrap();
        signed = signed.max(at_number);
    }
    (signed, counts)
}

#[test]
fn an_export_is_verified_by_who_knows_nothing_but_its_form() {
    let scene = Scene::set();
    let (one, other) = (scene.one.to_string(), scene.other.to_string());

    let (signed, whole) = witness(&scene.export(&[]));
    let (_, of_other) = witness(&scene.export(&["--org", "Other"]));

    assert_eq!(signed, 10);
    assert_eq!(whole, BTreeMap::from([(one, 9), (other.clone(), 4)]));
    assert_eq!(of_other, BTreeMap::from([(other, 4)]));
    let foreign = scene.export(&["--org", "Other"]);
    assert!(!foreign.contains(&scene.one.to_string()), "an org's export names no other org");
}

fn verify_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Result<u64, String> {
    let mut verifier = Verifier::new(None, None);
    for line in lines {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        verifier.take(line).map_err(|error| error.to_string())?;
    }
    verifier.finish().map(|verified| verified.records).map_err(|error| error.to_string())
}

#[test]
fn a_line_more_or_less_or_another_digit_is_noticed_in_every_export() {
    let scene = Scene::set();
    for (export, records) in [(scene.export(&[]), 13), (scene.export(&["--org", "Other"]), 4)] {
        let lines: Vec<&str> = export.lines().collect();
        assert_eq!(verify_lines(lines.iter().copied()), Ok(records));
        for n in 0..lines.len() {
            let without = lines.iter().enumerate().filter(|(m, _)| *m != n);
            verify_lines(without.map(|(_, line)| *line)).expect_err(lines[n]);
            let twice = lines[..=n].iter().chain(&lines[n..]);
            if !lines[n].starts_with("{\"head\"") {
                verify_lines(twice.copied()).expect_err(lines[n]);
            }
            if n == 0 {
                continue; // The opening only says what the rest must be.
            }
            // Digits of hashes, bytes, signatures, numbers and times.
            let digits = lines[n].char_indices().filter(|(_, c)| c.is_ascii_digit());
            for (position, digit) in digits {
                let other = if digit == '9' { '8' } else { (digit as u8 + 1) as char };
                let mut changed = lines[n].to_owned();
                changed.replace_range(position..=position, &other.to_string());
                let with = lines[..n].iter().copied().chain([&changed[..]]);
                let with = with.chain(lines[n + 1..].iter().copied());
                verify_lines(with).expect_err(&changed);
            }
        }
    }
}

#[test]
fn a_running_plane_exports_and_verifies_as_a_stopped_one_does() {
    let scene = Scene::set();
    let stopped = scene.plane.json(&["audit", "verify"]);
    let folder = tempfile::tempdir().unwrap();
    let daemon = scene.plane.start();
    let running = scene.plane.json(&["audit", "verify"]);
    assert_eq!(running, stopped);
    for _ in 0..3 {
        scene.plane.json(&["pair", "add", "laptop", "--org", "Other"]);
    }

    let export = scene.export(&["--org", "Other"]);
    let grown = scene.plane.json(&["audit", "verify"]);

    assert_eq!(witness(&export).0, 13, "an export is signed to its end");
    assert_eq!((&grown["last"], &grown["signed"]), (&Value::from(13), &Value::from(13)));
    let file = folder.path().join("export.jsonl");
    fs::write(&file, &export).unwrap();
    let text = file.to_str().unwrap();
    let verified = run(&["audit", "verify", "--json", "--file", text]);
    assert!(verified.status.success(), "{verified:?}");
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&grown["is_key_known"], &verified["is_key_known"]), (&true.into(), &false.into()));
    let says = |more: &[&str]| {
        let output = run(&[&["audit", "verify", "--file", text], more].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let (alone, held) = (says(&[]), says(&["--key", grown["key"].as_str().unwrap()]));
    assert!(
        alone.contains("agrees with itself") && !alone.contains("as it was written"),
        "{alone}"
    );
    assert!(held.contains("is as it was written."), "{held}");
    // A link that somebody has noted down is looked for.
    let hash = stopped["hash"].as_str().unwrap();
    scene.plane.json(&["audit", "verify", "--known", &format!("10:{hash}")]);
    let other = scene.plane.run(&["audit", "verify", "--known", &format!("9:{hash}")]);
    assert_eq!(other.status.code(), Some(6));
    let key = run(&["audit", "verify", "--file", text, "--key", &"00".repeat(32)]);
    assert_eq!(key.status.code(), Some(6));
    fs::write(&file, &export[..export.len() - 10]).unwrap();
    assert_eq!(run(&["audit", "verify", "--file", text]).status.code(), Some(1));
    daemon.kill();
    assert_eq!(scene.wrong(), None, "what a kill has left unsigned is no damage");
}

fn run(arguments: &[&str]) -> std::process::Output {
    crate::plane::program(arguments).output().unwrap()
}

#[test]
fn a_directory_of_an_older_version_gets_its_key_from_the_daemon() {
    let scene = Scene::set();
    let path = scene.plane.data().join("audit-key");
    fs::remove_file(&path).unwrap();
    scene.tamper(vec![Operation::Delete(head_key(LANE, head_of(&scene.plane)))]);

    let daemon = scene.plane.start();
    let verified = scene.plane.json(&["audit", "verify"]);
    drop(daemon);

    assert_eq!(verified["signed"], 10);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(verified["key"].as_str().unwrap(), key_of(&scene.plane).public().to_string());
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The key whose head is stored.
fn head_of(plane: &Plane) -> postern_controlplane::audit::Hex<32> {
    let store = open(plane);
    let settings = Scan {
        table: Table::Settings,
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        order: Order::Ascending,
        limit: 9,
    };
    let found = store.scan(settings).unwrap();
    let id = &found.iter().find(|record| record.key.id.starts_with(b"audit-head/")).unwrap().key.id;
    postern_controlplane::audit::Hex(id[id.len() - 32..].try_into().unwrap())
}

/// Verifies a store as the program does.
fn verify(store: &RedbStore, key: &AuditKey) -> Result<Verified, Broken> {
    let reader = store.reader();
    let snapshot = reader.snapshot().unwrap();
    let view = AuditView::new(snapshot.as_ref());
    let (opening, lines) = view.open(None, None, None, at(0)).unwrap();
    let mut verifier = Verifier::new(Some(key.public()), None);
    lines.into_iter().try_for_each(|line| verifier.take(line))?;
    let mut next = Some(opening.first);
    while let Some(from) = next {
        let part = view.part(&opening, from).unwrap();
        part.lines.into_iter().try_for_each(|line| verifier.take(line))?;
        next = part.next;
    }
    verifier.finish()
}

#[tokio::test]
async fn what_is_pruned_goes_behind_a_signature_and_the_rest_still_verifies() {
    const DAY: Duration = Duration::from_secs(86_400);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let key = || AuditKey::from_seed(&[7; 32]).unwrap();
    let store = RedbStore::create(&path, Epoch::from_random([1; 16]), Options::default()).unwrap();
    let clock = Arc::new(ManualClock::at(at(0)));
    let chance = Arc::new(SeededChance::new(1));
    let (engine, writer) =
        Engine::start_signing(Box::new(store), clock.clone(), chance, key()).unwrap();
    let org = OrgId::from_random(engine.chance().id());
    let admin = User {
        id: UserId::from_random(engine.chance().id()),
        org,
        email: "admin@example.org".parse().unwrap(),
        role: Role::Admin,
        created_at: at(0),
    };
    let org = Org {
        id: org,
        name: "Example".parse().unwrap(),
        created_at: at(0),
        pairs_numbered: 0,
        groups_numbered: 0,
    };
    let id = org.id;
    let command = Command::CreateOrg { org, admin };
    engine.submit(Asked { actor: Actor::Operator, source: None, command }).await.unwrap();
    // 200 links a day apart: more than one commit prunes.
    for _ in 0..199 {
        clock.advance(DAY);
        engine.submit(group(id, &engine)).await.unwrap();
    }

    engine.prune_audit(10 * DAY).await;
    engine.prune_audit(10 * DAY).await;
    engine.submit(group(id, &engine)).await.unwrap();
    let filter = Filter { since: Some(at(196 * 86_400)), ..Filter::default() };
    let newest = engine.read_audit(move |audit| audit.page(id, &filter, None, 100)).await.unwrap();
    engine.stop().await;
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    drop(engine);

    assert_eq!(newest.entries.len(), 5, "times are found behind the new beginning");
    let mut store = RedbStore::open(&path, Options::default()).unwrap();
    let verified = verify(&store, &key()).unwrap();
    assert_eq!((verified.first, verified.last, verified.records), (190, 201, 12));
    assert_eq!(verified.signed, Some(201));
    assert_eq!(verified.pruned, Some(at(188 * 86_400)));
    let audit = |store: &RedbStore| {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let (from, to) = all;
        let order = Order::Ascending;
        store.scan(Scan { table: Table::Audit, from, to, order, limit: 1_000 }).unwrap().len()
    };
    assert_eq!(audit(&store), 12, "the records are gone with their links");
    let begin = value(&store, &begin_key(LANE));
    let forged = SignedBegin { at: at(0), ..decode(&begin).unwrap() };
    let mut change = |operation: Operation| {
        let item = Item { preconditions: Vec::new(), operations: vec![operation] };
        store.commit(&[item], Purpose::Ordinary, at(0)).unwrap();
        verify(&store, &key())
    };
    let gone = change(Operation::Delete(begin_key(LANE))).unwrap_err();
    assert_eq!(gone.what, What::LinkMissing { number: 1 });
    let lied = change(Operation::Put(begin_key(LANE), encode(&forged))).unwrap_err();
    assert_eq!(lied.what, What::BeginForged { number: 190 });
    change(Operation::Put(begin_key(LANE), begin)).unwrap();
}

#[tokio::test]
async fn a_commit_carries_a_signature_when_the_last_one_is_a_second_old() {
    let clock = Arc::new(ManualClock::at(at(0)));
    let chance = Arc::new(SeededChance::new(1));
    let store = Box::new(MemoryStore::new(Epoch::from_random([1; 16])));
    let reader = store.reader();
    let key = AuditKey::from_seed(&[7; 32]).unwrap();
    let (engine, writer) = Engine::start_signing(store, clock.clone(), chance, key).unwrap();
    let signed = || {
        let snapshot = reader.snapshot().unwrap();
        let heads = AuditView::new(snapshot.as_ref()).heads().unwrap();
        heads.first().map(|head| head.number)
    };
    let refusal = || {
        let (refusal, since) = (Refusal::WrongSecret, at(0));
        let command = Command::NoteRefusals { org: NO_ORG, refusal, count: 1, since };
        engine.submit(Asked { actor: Actor::Unknown, source: None, command })
    };

    let mut seen = vec![signed()];
    for wait in [0, 0, 999, 1, 0] {
        clock.advance(Duration::from_millis(wait));
        refusal().await.unwrap();
        seen.push(signed());
    }
    engine.sign_audit().await;
    seen.push(signed());
    refusal().await.unwrap();
    engine.stop().await;
    tokio::task::spawn_blocking(move || writer.join().unwrap()).await.unwrap();
    seen.push(signed());

    assert_eq!(seen, [None, Some(1), Some(1), Some(1), Some(4), Some(4), Some(5), Some(6)]);
}
