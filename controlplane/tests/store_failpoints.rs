//! Commits that break half-way, in both stores.
//!
//! Fail-points belong to the whole process: every test runs in one of its own (`cargo nextest`),
//! and takes the lock of `FailScenario` for those who run them otherwise.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::path::Path;
use std::time::Duration;

use fail::FailScenario;
use postern_controlplane::store::{
    Event, Item, Key, MemoryStore, Operation, Options, Purpose, RedbStore, Store, StoreError, Table,
};
use postern_shared::ids::Epoch;
use postern_shared::time::Timestamp;

const BEFORE: &str = "store::before_commit";
const AFTER: &str = "store::after_commit";

#[test]
fn a_commit_that_breaks_before_it_is_durable_is_gone_after_a_restart() {
    let scenario = FailScenario::setup();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut store = RedbStore::create(&path, epoch(), Options::default()).unwrap();
    put(&mut store, "a").unwrap();

    fail::cfg(BEFORE, "return").unwrap();
    is_fatal(put(&mut store, "b"));
    drop(store);
    scenario.teardown();

    assert_eq!(ids(&path), ["a"]);
}

#[test]
fn a_commit_that_breaks_before_it_is_answered_is_there_after_a_restart() {
    let scenario = FailScenario::setup();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut store = RedbStore::create(&path, epoch(), Options::default()).unwrap();
    put(&mut store, "a").unwrap();

    fail::cfg(AFTER, "return").unwrap();
    is_fatal(put(&mut store, "b"));
    drop(store);
    scenario.teardown();

    assert_eq!(ids(&path), ["a", "b"]);
}

#[test]
fn after_a_broken_commit_a_store_takes_no_other_and_tells_no_watch() {
    let scenario = FailScenario::setup();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let redb = RedbStore::create(&path, epoch(), Options::default()).unwrap();
    let stores: [Box<dyn Store>; 2] = [Box::new(MemoryStore::new(epoch())), Box::new(redb)];

    for mut store in stores {
        let before = store.revision();
        let mut watch = store.watch(before).unwrap();
        fail::cfg(BEFORE, "return").unwrap();
        is_fatal(put(store.as_mut(), "a"));
        fail::remove(BEFORE);

        is_fatal(put(store.as_mut(), "b"));
        assert_eq!(watch.next(Duration::ZERO), Ok(Event::Progress(before)));
    }
    scenario.teardown();
}

fn put(store: &mut dyn Store, id: &str) -> Result<(), StoreError> {
    let put = Operation::Put(Key::new(Table::Pairs, id), vec![1]);
    let item = Item { preconditions: vec![], operations: vec![put] };
    store.commit(&[item], Purpose::Ordinary, Timestamp::EPOCH).map(|_| ())
}

fn is_fatal(outcome: Result<(), StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Fatal { .. })), "{outcome:?}");
}

fn ids(path: &Path) -> Vec<String> {
    let store = RedbStore::open(path, Options::default()).unwrap();
    let mut ids = Vec::new();
    let loaded = store.load(&mut |record| {
        ids.push(String::from_utf8(record.key.id)?);
        Ok(())
    });
    loaded.unwrap();
    ids
}

fn epoch() -> Epoch {
    Epoch::from_random([7; 16])
}
