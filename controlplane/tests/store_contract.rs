//! What every store must do, asked of each backend.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use postern_controlplane::store::{
    BatchError, Committed, Event, Item, Key, MemoryStore, Operation, Options, Order, Precondition,
    Purpose, Record, RedbStore, SCAN_RECORDS_MAX, Scan, Store, StoreError, Table, Watch,
    WatchError,
};
use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::EPOCH;
/// For a watch that has something to say already.
const AT_ONCE: Duration = Duration::ZERO;
/// Ends a test that would wait for ever.
const BOUND: Duration = Duration::from_secs(20);

/// A backend under test.
trait Backend {
    /// Makes an empty store and whatever it lives in.
    fn make(epoch: Epoch) -> Self;
    fn store(&mut self) -> &mut dyn Store;
}

struct Memory(MemoryStore);

impl Backend for Memory {
    fn make(epoch: Epoch) -> Memory {
        Memory(MemoryStore::new(epoch))
    }

    fn store(&mut self) -> &mut dyn Store {
        &mut self.0
    }
}

struct Redb {
    store: RedbStore,
    _folder: TempDir,
}

impl Backend for Redb {
    fn make(epoch: Epoch) -> Redb {
        let folder = tempfile::tempdir().unwrap();
        let path: PathBuf = folder.path().join("store.redb");
        let store = RedbStore::create(&path, epoch, Options::default()).unwrap();
        Redb { store, _folder: folder }
    }

    fn store(&mut self) -> &mut dyn Store {
        &mut self.store
    }
}

/// Runs every function of the contract once for each backend.
macro_rules! contract {
    ($($name:ident)*) => {
        mod memory {
            $(#[test]
            fn $name() {
                super::$name::<super::Memory>();
            })*
        }
        mod redb {
            $(#[test]
            fn $name() {
                super::$name::<super::Redb>();
            })*
        }
    };
}

contract! {
    a_new_store_is_empty
    what_is_committed_is_loaded_with_the_revision_that_wrote_it
    a_load_leaves_out_what_does_not_live_in_memory
    an_unreadable_record_ends_a_load_and_is_named
    each_item_gets_its_own_verdict_and_good_ones_share_one_revision
    absent_holds_only_where_there_is_no_record
    exists_holds_only_where_there_is_a_record
    at_revision_holds_only_for_the_last_write
    verdicts_are_about_the_state_before_the_batch
    an_item_is_carried_out_whole_or_not_at_all
    items_that_conflict_are_refused_as_a_defect
    items_may_read_the_same_record
    a_record_changed_twice_in_one_item_is_refused
    batches_beyond_the_limits_are_refused
    a_batch_at_the_limits_is_taken
    where_nothing_changes_there_is_no_commit
    a_scan_reads_a_part_in_order
    a_scan_has_a_limit
    a_reader_reads_on_another_thread_what_was_committed
    a_watch_sees_whole_commits_once_and_in_order
    a_watch_wakes_when_a_commit_comes
    a_watch_from_too_long_ago_says_load_again
    a_slow_watch_is_told_what_it_missed
    a_watch_from_the_future_is_refused
    a_watch_ends_with_the_store
    a_new_epoch_ends_watches_and_keeps_records
    the_high_water_time_never_goes_back
}

fn a_new_store_is_empty<B: Backend>() {
    let mut backend = B::make(epoch(7));
    let store = backend.store();

    assert_eq!(store.epoch(), epoch(7));
    assert_eq!(store.high_water(), Timestamp::EPOCH);
    assert_eq!(load(store), (store.revision(), BTreeMap::new()));
    store.check_room().unwrap();
}

fn what_is_committed_is_loaded_with_the_revision_that_wrote_it<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();

    let first = good(store, vec![put("a", "1"), put("b", "1")]);
    let second = good(store, vec![put("b", "2"), delete("a"), put("c", "2")]);

    assert!(first < second);
    assert_eq!(store.revision(), second);
    let expected = [("b", second, "2"), ("c", second, "2")];
    assert_eq!(load(store), (second, records(&expected)));
    let third = good(store, vec![put("c", "3")]);
    assert_eq!(load(store), (third, records(&[("b", second, "2"), ("c", third, "3")])));
}

fn a_load_leaves_out_what_does_not_live_in_memory<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let puts = Table::ALL.iter().map(|table| Operation::Put(Key::new(*table, *b"id"), vec![1]));
    good(store, puts.collect());

    let (_, loaded) = load(store);

    let tables: Vec<Table> = loaded.keys().map(|key| key.table).collect();
    let mut expected = Table::ALL.to_vec();
    expected.retain(|table| ![Table::Audit, Table::Chain].contains(table));
    assert_eq!(tables, expected);
}

fn an_unreadable_record_ends_a_load_and_is_named<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    good(store, vec![put("a", "1"), put("b", "1"), put("c", "1")]);

    let mut seen = 0;
    let error = store
        .load(&mut |record| {
            seen += 1;
            if record.key == key("b") { Err("not today".into()) } else { Ok(()) }
        })
        .unwrap_err();

    assert!(matches!(error, StoreError::Unreadable { key: found, .. } if found == key("b")));
    assert_eq!(seen, 2);
}

fn each_item_gets_its_own_verdict_and_good_ones_share_one_revision<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    good(store, vec![put("taken", "old")]);

    let items = [
        item(vec![absent("a")], vec![put("a", "1")]),
        item(vec![absent("taken")], vec![put("taken", "new"), put("other", "new")]),
        item(vec![], vec![put("b", "1")]),
    ];
    let Committed { revision, verdicts } = commit(store, &items).unwrap();

    let [first, second, third] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!((first, third), (&Ok(()), &Ok(())));
    assert_eq!(second.as_ref().unwrap_err().0, absent("taken"));
    let (loaded_at, loaded) = load(store);
    assert_eq!(loaded_at, revision);
    assert_eq!(loaded[&key("a")], (revision, b"1".to_vec()));
    assert_eq!(loaded[&key("b")], (revision, b"1".to_vec()));
    assert_eq!(loaded[&key("taken")].1, b"old");
    assert_eq!(loaded.len(), 3);
}

fn absent_holds_only_where_there_is_no_record<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();

    assert!(holds(store, absent("a")));
    good(store, vec![put("a", "1")]);
    assert!(!holds(store, absent("a")));
    good(store, vec![delete("a")]);
    assert!(holds(store, absent("a")));
}

fn exists_holds_only_where_there_is_a_record<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();

    assert!(!holds(store, exists("a")));
    good(store, vec![put("a", "1")]);
    assert!(holds(store, exists("a")));
    good(store, vec![delete("a")]);
    assert!(!holds(store, exists("a")));
}

fn at_revision_holds_only_for_the_last_write<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let at = |revision| Precondition::AtRevision(key("a"), revision);

    let empty = store.revision();
    assert!(!holds(store, at(empty)));
    let first = good(store, vec![put("a", "1")]);
    good(store, vec![put("b", "1")]);
    assert!(holds(store, at(first)));
    let second = good(store, vec![put("a", "1")]);
    assert!(!holds(store, at(first)));
    assert!(holds(store, at(second)));
    good(store, vec![delete("a")]);
    assert!(!holds(store, at(second)));
}

fn verdicts_are_about_the_state_before_the_batch<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();

    let made = commit(store, &[item(vec![absent("a")], vec![put("a", "1")])]).unwrap();
    let replaced = commit(store, &[item(vec![exists("a")], vec![delete("a")])]).unwrap();

    assert_eq!((made.verdicts, replaced.verdicts), (vec![Ok(())], vec![Ok(())]));
    assert!(made.revision < replaced.revision);
}

fn an_item_is_carried_out_whole_or_not_at_all<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let before = good(store, vec![put("a", "1")]);

    let preconditions = vec![exists("a"), exists("missing"), absent("b")];
    let items = [item(preconditions, vec![put("a", "2"), put("b", "2"), delete("a2")])];
    let committed = commit(store, &items).unwrap();

    assert_eq!(committed.verdicts[0].as_ref().unwrap_err().0, exists("missing"));
    assert_eq!(committed.revision, before);
    assert_eq!(load(store), (before, records(&[("a", before, "1")])));
}

fn items_that_conflict_are_refused_as_a_defect<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let writes = item(vec![], vec![put("a", "1"), put("z", "1")]);
    let reads = item(vec![absent("a")], vec![put("b", "1")]);
    let deletes = item(vec![], vec![delete("a")]);
    let other = item(vec![], vec![put("c", "1")]);

    for (items, places) in [
        (vec![writes.clone(), other.clone(), writes.clone()], (0, 2)),
        (vec![writes.clone(), reads.clone()], (0, 1)),
        (vec![reads, writes.clone()], (0, 1)),
        (vec![other, writes, deletes], (1, 2)),
    ] {
        let error = commit(store, &items).unwrap_err();

        let (first, second) = places;
        let expected = BatchError::Conflicting { first, second, key: key("a") };
        assert!(matches!(error, StoreError::Batch(error) if error == expected), "{items:?}");
    }
    assert_eq!(load(store).1, BTreeMap::new());
}

fn items_may_read_the_same_record<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    good(store, vec![put("org", "1")]);

    let items = [
        item(vec![exists("org")], vec![put("a", "1")]),
        item(vec![exists("org")], vec![put("b", "1")]),
    ];

    assert_eq!(commit(store, &items).unwrap().verdicts, [Ok(()), Ok(())]);
}

fn a_record_changed_twice_in_one_item_is_refused<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();

    let items = [item(vec![], vec![]), item(vec![], vec![put("a", "1"), delete("a")])];
    let error = commit(store, &items).unwrap_err();

    let expected = BatchError::ChangedTwice { item: 1, key: key("a") };
    assert!(matches!(error, StoreError::Batch(error) if error == expected));
}

fn batches_beyond_the_limits_are_refused<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let limits = store.limits();
    let numbered = |n: usize| key(&format!("{n}"));
    let long_id = Key::new(Table::Orgs, vec![1; limits.key_bytes_max + 1]);
    let large = vec![0; limits.value_bytes_max];
    let many = limits.bytes_max / limits.value_bytes_max + 1;

    let too_many = limits.operations_max + 1;
    let operations = (0..too_many).map(|n| Operation::Put(numbered(n), vec![])).collect();
    let preconditions = (0..too_many).map(|n| Precondition::Absent(numbered(n))).collect();
    let puts = (0..many).map(|n| Operation::Put(numbered(n), large.clone())).collect();
    let longest = vec![0; limits.value_bytes_max + 1];
    for batch in [
        item(vec![], operations),
        item(preconditions, vec![put("a", "1")]),
        item(vec![], puts),
        item(vec![], vec![Operation::Put(long_id.clone(), vec![])]),
        item(vec![], vec![Operation::Delete(long_id)]),
        item(vec![], vec![Operation::Put(key("a"), longest)]),
    ] {
        let error = commit(store, &[batch]).unwrap_err();

        assert!(matches!(
            error,
            StoreError::Batch(
                BatchError::TooMany { .. }
                    | BatchError::TooLarge { .. }
                    | BatchError::RecordTooLarge { .. }
            )
        ));
    }
    assert_eq!(load(store).1, BTreeMap::new());
}

fn a_batch_at_the_limits_is_taken<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let limits = store.limits();
    let long_id = |n: usize| {
        let mut id = vec![0; limits.key_bytes_max];
        id[..8].copy_from_slice(&n.to_be_bytes());
        Key::new(Table::Groups, id)
    };
    let value = vec![7; limits.bytes_max / limits.operations_max - limits.key_bytes_max];

    let items: Vec<Item> = (0..limits.operations_max)
        .map(|n| {
            let put = Operation::Put(long_id(n), value.clone());
            item(vec![Precondition::Absent(long_id(n))], vec![put])
        })
        .collect();
    let committed = commit(store, &items).unwrap();

    assert!(committed.verdicts.iter().all(Result::is_ok));
    let (revision, loaded) = load(store);
    assert_eq!(loaded.len(), limits.operations_max);
    assert!(loaded.values().all(|found| *found == (revision, value.clone())));
    let largest = vec![1; limits.value_bytes_max];
    good(store, vec![Operation::Put(key("large"), largest.clone())]);
    assert_eq!(load(store).1[&key("large")].1, largest);
}

fn where_nothing_changes_there_is_no_commit<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let before = good(store, vec![put("a", "1")]);
    let mut watch = store.watch(before).unwrap();

    for items in [
        vec![],
        vec![item(vec![exists("a")], vec![])],
        vec![item(vec![absent("a")], vec![put("a", "2")])],
        vec![item(vec![], vec![delete("missing")])],
    ] {
        assert_eq!(commit(store, &items).unwrap().revision, before, "{items:?}");
    }

    assert_eq!(store.revision(), before);
    assert_eq!(watch.next(AT_ONCE), Ok(Event::Progress(before)));
}

fn a_scan_reads_a_part_in_order<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let audit = |id: &str| Operation::Put(Key::new(Table::Audit, id), id.as_bytes().to_vec());
    let neighbours = [Table::Unique, Table::Chain].map(|table| Key::new(table, "b"));
    let mut operations: Vec<Operation> = ["a", "b", "b1", "c", "d"].map(audit).to_vec();
    operations.extend(neighbours.map(|key| Operation::Put(key, vec![])));
    let revision = good(store, operations);
    let scan = |from, to, order, limit| {
        let scan = Scan { table: Table::Audit, from, to, order, limit };
        let found = store.scan(scan).unwrap();
        assert!(found.iter().all(|record| record.revision == revision));
        assert!(found.iter().all(|record| record.key.id == record.value));
        let ids = found.into_iter().map(|record| String::from_utf8(record.key.id).unwrap());
        ids.collect::<Vec<_>>().join(" ")
    };
    let (all, including, before) = (Bound::Unbounded, Bound::Included, Bound::Excluded);

    assert_eq!(scan(all, all, Order::Ascending, 9), "a b b1 c d");
    assert_eq!(scan(all, all, Order::Descending, 9), "d c b1 b a");
    assert_eq!(scan(including(&b"b"[..]), all, Order::Ascending, 2), "b b1");
    assert_eq!(scan(before(&b"b"[..]), including(b"c"), Order::Ascending, 9), "b1 c");
    assert_eq!(scan(all, before(&b"d"[..]), Order::Descending, 2), "c b1");
    assert_eq!(scan(including(&b"b"[..]), including(b"b"), Order::Ascending, 9), "b");
    assert_eq!(scan(before(&b"b"[..]), before(b"b"), Order::Ascending, 9), "");
    assert_eq!(scan(including(&b"d"[..]), including(b"a"), Order::Descending, 9), "");
    assert_eq!(scan(all, all, Order::Ascending, 0), "");
}

fn a_scan_has_a_limit<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    for part in 0..2_u32 {
        let ids = (0..600_u32).map(|n| (part * 600 + n).to_be_bytes());
        let puts = ids.map(|id| Operation::Put(Key::new(Table::Audit, id), vec![]));
        good(store, puts.collect());
    }

    let (from, to) = (Bound::Unbounded, Bound::Unbounded);
    let order = Order::Ascending;
    let scan = Scan { table: Table::Audit, from, to, order, limit: usize::MAX };

    assert_eq!(store.scan(scan).unwrap().len(), SCAN_RECORDS_MAX);
}

fn a_reader_reads_on_another_thread_what_was_committed<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let reader = backend.store().reader();
    good(backend.store(), vec![put("a", "1"), put("b", "2")]);
    let read = || {
        let reader = Arc::clone(&reader);
        let read = move || {
            let snapshot = reader.snapshot().unwrap();
            let (from, to) = (Bound::Unbounded, Bound::Unbounded);
            let order = Order::Descending;
            let found = snapshot.scan(Scan { table: key("a").table, from, to, order, limit: 9 });
            found.unwrap().into_iter().map(|record| record.key).collect::<Vec<Key>>()
        };
        std::thread::spawn(read).join().unwrap()
    };

    let before = read();
    good(backend.store(), vec![delete("b")]);

    assert_eq!(before, [key("b"), key("a")]);
    assert_eq!(read(), [key("a")]);
}

fn a_watch_sees_whole_commits_once_and_in_order<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let start = good(store, vec![put("before", "1")]);
    let mut watch = store.watch(start).unwrap();

    let items = [
        item(vec![], vec![put("b", "1"), put("a", "1"), delete("missing")]),
        item(vec![exists("missing too")], vec![put("refused", "1")]),
        item(vec![], vec![delete("before")]),
    ];
    let first = commit(store, &items).unwrap().revision;
    let second = good(store, vec![put("a", "2")]);

    let (revision, operations) = next_commit(&mut watch);
    assert_eq!(revision, first);
    assert_eq!(operations, [put("a", "1"), put("b", "1"), delete("before")]);
    assert_eq!(next_commit(&mut watch), (second, vec![put("a", "2")]));
    assert_eq!(watch.next(AT_ONCE), Ok(Event::Progress(second)));
    let mut later = store.watch(first).unwrap();
    assert_eq!(next_commit(&mut later).0, second);
}

fn a_watch_wakes_when_a_commit_comes<B: Backend>() {
    const COMMITS: usize = 100;
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let mut watch = watch_from_now(store);
    let (seen, revisions) = mpsc::channel();

    let waiting = std::thread::spawn(move || {
        for _ in 0..COMMITS {
            let Event::Commit(commit) = watch.next(BOUND).unwrap() else { break };
            seen.send(commit.revision).unwrap();
        }
    });
    for _ in 0..COMMITS {
        let revision = good(store, vec![put("a", "1")]);
        // Sooner than by the end of its patience.
        assert_eq!(revisions.recv_timeout(BOUND / 2), Ok(revision));
    }

    waiting.join().unwrap();
}

fn a_watch_from_too_long_ago_says_load_again<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let start = store.revision();
    fill_history(store);

    let error = store.watch(start).unwrap_err();

    let WatchError::Compacted { oldest } = error else { panic!("{error}") };
    assert!(start < oldest && oldest < store.revision());
    let mut watch = store.watch(oldest).unwrap();
    assert!(next_commit(&mut watch).0 > oldest);
}

fn a_slow_watch_is_told_what_it_missed<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let mut watch = watch_from_now(store);

    fill_history(store);

    assert!(matches!(watch.next(AT_ONCE), Err(WatchError::Compacted { .. })));
}

fn a_watch_from_the_future_is_refused<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let newest = good(store, vec![put("a", "1")]);

    let error = store.watch(Revision(newest.0 + 1)).unwrap_err();

    assert_eq!(error, WatchError::Ahead { newest });
}

fn a_watch_ends_with_the_store<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let mut watch = watch_from_now(store);
    let last = good(store, vec![put("a", "1")]);

    drop(backend);

    assert_eq!(next_commit(&mut watch).0, last);
    assert_eq!(watch.next(BOUND), Err(WatchError::Closed));
}

fn a_new_epoch_ends_watches_and_keeps_records<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let before = good(store, vec![put("a", "1")]);
    let mut watch = store.watch(before).unwrap();

    store.replace_epoch(epoch(2)).unwrap();

    assert_eq!(store.epoch(), epoch(2));
    assert_eq!(watch.next(BOUND), Err(WatchError::EpochReplaced));
    let after = good(store, vec![put("b", "1")]);
    assert!(before < after);
    assert_eq!(load(store), (after, records(&[("a", before, "1"), ("b", after, "1")])));
}

fn the_high_water_time_never_goes_back<B: Backend>() {
    let mut backend = B::make(epoch(1));
    let store = backend.store();
    let at = |ms| Timestamp::from_unix_ms(ms).unwrap();
    let items = [item(vec![], vec![put("a", "1")])];

    store.commit(&items, Purpose::Ordinary, at(2_000)).unwrap();
    store.commit(&items, Purpose::Ordinary, at(1_000)).unwrap();

    assert_eq!(store.high_water(), at(2_000));
}

fn epoch(n: u8) -> Epoch {
    Epoch::from_random([n; 16])
}

fn key(id: &str) -> Key {
    Key::new(Table::Pairs, id)
}

fn put(id: &str, value: &str) -> Operation {
    Operation::Put(key(id), value.as_bytes().to_vec())
}

fn delete(id: &str) -> Operation {
    Operation::Delete(key(id))
}

fn absent(id: &str) -> Precondition {
    Precondition::Absent(key(id))
}

fn exists(id: &str) -> Precondition {
    Precondition::Exists(key(id))
}

fn item(preconditions: Vec<Precondition>, operations: Vec<Operation>) -> Item {
    Item { preconditions, operations }
}

fn commit(store: &mut dyn Store, items: &[Item]) -> Result<Committed, StoreError> {
    store.commit(items, Purpose::Ordinary, NOW)
}

/// Commits one item without preconditions.
fn good(store: &mut dyn Store, operations: Vec<Operation>) -> Revision {
    let committed = commit(store, &[item(vec![], operations)]).unwrap();
    assert_eq!(committed.verdicts, [Ok(())]);
    committed.revision
}

fn holds(store: &mut dyn Store, precondition: Precondition) -> bool {
    commit(store, &[item(vec![precondition], vec![])]).unwrap().verdicts[0].is_ok()
}

/// Commits more bytes than any history keeps.
fn fill_history(store: &mut dyn Store) {
    let value = vec![0; store.limits().value_bytes_max];
    for n in 0..80 {
        good(store, vec![Operation::Put(key(&format!("{n}")), value.clone())]);
    }
}

fn watch_from_now(store: &dyn Store) -> Watch {
    store.watch(store.revision()).unwrap()
}

fn next_commit(watch: &mut Watch) -> (Revision, Vec<Operation>) {
    match watch.next(AT_ONCE).unwrap() {
        Event::Commit(commit) => (commit.revision, commit.operations.clone()),
        Event::Progress(revision) => panic!("nothing after {revision}"),
    }
}

type Records = BTreeMap<Key, (Revision, Vec<u8>)>;

fn load(store: &dyn Store) -> (Revision, Records) {
    let mut found = Records::new();
    let revision = store
        .load(&mut |Record { key, revision, value }| {
            let before = found.insert(key, (revision, value));
            assert!(before.is_none(), "a record comes once");
            Ok(())
        })
        .unwrap();
    (revision, found)
}

fn records(expected: &[(&str, Revision, &str)]) -> Records {
    let record = |(id, revision, value): &(&str, Revision, &str)| {
        (key(id), (*revision, value.as_bytes().to_vec()))
    };
    expected.iter().map(record).collect()
}
