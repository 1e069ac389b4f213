//! The file of the embedded store: who may open it, what is refused, how it meets a full disk.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, Permissions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use postern_controlplane::store::{
    FREE_BYTES_MIN, FreeSpace, Item, Key, OpenError, OpenFailure, Operation, Options, Order,
    Purpose, RESERVE_FILE_BYTES, ReadError, RedbStore, Scan, Snapshot, Store, StoreError, Table,
    WITHDRAWAL_FREE_BYTES_MIN,
};
use postern_shared::ids::Epoch;
use postern_shared::time::Timestamp;
use tempfile::TempDir;

/// Names the store that a second process of this test is to open.
const SECOND_PROCESS: &str = "POSTERN_TEST_SECOND_PROCESS";

#[test]
fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let now = Timestamp::from_unix_ms(1_234).unwrap();
    let mut store = create(&path);
    let first = change(&mut store, "a", Purpose::Ordinary, now).unwrap();
    let second = change(&mut store, "b", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
    drop(store);

    let mut store = open(&path);

    assert_eq!((store.epoch(), store.revision(), store.high_water()), (epoch(), second, now));
    let mut found = BTreeMap::new();
    let loaded = store.load(&mut |record| {
        found.insert(record.key.id, (record.revision, record.value));
        Ok(())
    });
    assert_eq!(loaded.unwrap(), second);
    let expected = [("a", first), ("b", second)];
    let expected = expected.map(|(id, revision)| (id.into(), (revision, id.into())));
    assert_eq!(found, BTreeMap::from(expected));
    assert!(second < change(&mut store, "c", Purpose::Ordinary, now).unwrap());
}

#[test]
fn a_snapshot_stays_as_it_is_under_commits_and_readers_end_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let mut store = create(&path);
    change(&mut store, "a", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
    let reader = store.reader();
    let snapshot = reader.snapshot().unwrap();
    let count = |snapshot: &dyn Snapshot| {
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        let order = Order::Ascending;
        snapshot.scan(Scan { table: Table::Pairs, from, to, order, limit: 9 }).unwrap().len()
    };

    change(&mut store, "b", Purpose::Ordinary, Timestamp::EPOCH).unwrap();

    assert_eq!(count(snapshot.as_ref()), 1);
    assert_eq!(count(reader.snapshot().unwrap().as_ref()), 2);
    drop((snapshot, store));
    assert!(matches!(reader.snapshot().map(drop), Err(ReadError::Closed)));
    drop(open(&path));
}

#[test]
fn a_new_epoch_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let other = Epoch::from_random([8; 16]);
    let mut store = create(&path);
    store.replace_epoch(other).unwrap();
    drop(store);

    assert_eq!(open(&path).epoch(), other);
}

#[test]
fn a_watch_from_before_a_restart_says_load_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let mut store = create(&path);
    let first = change(&mut store, "a", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
    let second = change(&mut store, "b", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
    drop(store);

    let store = open(&path);

    store.watch(first).unwrap_err();
    store.watch(second).unwrap();
}

#[test]
fn only_the_owner_may_read_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let mut store = create(&path);
    change(&mut store, "a", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
    drop(store);

    for file in fs::read_dir(&folder).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(open(&path));
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_store_is_never_made_over_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    drop(create(&path));
    let before = fs::read(&path).unwrap();

    let error = RedbStore::create(&path, epoch(), Options::default()).unwrap_err();

    assert!(matches!(error.reason, OpenFailure::Exists));
    assert_eq!(fs::read(&path).unwrap(), before);
    let files: BTreeSet<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files, BTreeSet::from([reserve_of(&path), path]));
}

#[test]
fn of_two_that_make_a_store_the_slower_one_is_refused() {
    /// Makes the file after it was seen to be missing.
    struct Faster(PathBuf);
    impl FreeSpace for Faster {
        fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
            fs::write(&self.0, "faster")?;
            Ok(0)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let free_space = Box::new(Faster(path.clone()));

    let options = Options { free_space, ..Options::default() };
    let error = RedbStore::create(&path, epoch(), options).unwrap_err();

    assert!(matches!(error.reason, OpenFailure::Exists), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), b"faster");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_missing_file_is_not_taken_for_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);

    let error = RedbStore::open(&path, Options::default()).unwrap_err();

    assert!(matches!(error.reason, OpenFailure::Missing));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn files_that_are_no_store_are_refused_and_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);

    for content in ["", "key: value\n", &"x".repeat(1_000_000)] {
        fs::write(&path, content).unwrap();

        let error = RedbStore::open(&path, Options::default()).unwrap_err();

        assert!(matches!(error.reason, OpenFailure::Damaged(_)), "{error:?}");
        assert!(chain(&error).contains("restore a backup"));
        assert_eq!(fs::read(&path).unwrap(), content.as_bytes());
    }
}

#[test]
fn a_database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &str>::new("songs");
    write.open_table(table).unwrap().insert("a", "b").unwrap();
    write.commit().unwrap();
    drop(database);

    let error = RedbStore::open(&path, Options::default()).unwrap_err();

    assert!(matches!(error.reason, OpenFailure::Damaged(_)), "{error:?}");
}

#[test]
fn a_second_process_is_told_which_file_is_in_use() {
    if let Some(path) = std::env::var_os(SECOND_PROCESS) {
        let error = RedbStore::open(Path::new(&path), Options::default()).unwrap_err();
        assert!(matches!(error.reason, OpenFailure::InUse), "{error:?}");
        println!("{}", chain(&error));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let store = create(&path);

    let second = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_second_process_is_told_which_file_is_in_use", "--nocapture"])
        .env(SECOND_PROCESS, &path)
        .output()
        .unwrap();

    let text = String::from_utf8(second.stdout).unwrap();
    assert!(second.status.success(), "{text}");
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert!(text.contains("another process uses it"), "{text}");
    drop(store);
    drop(open(&path));
}

#[test]
fn below_the_reserve_only_withdrawals_go_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let (mut store, free) = create_on(&path, u64::MAX);
    assert_eq!(fs::metadata(reserve_of(&path)).unwrap().len(), RESERVE_FILE_BYTES);

    free.store(FREE_BYTES_MIN - 1, Ordering::Relaxed);

    let refused = store.revision();
    let error = change(&mut store, "b", Purpose::Ordinary, Timestamp::EPOCH).unwrap_err();
    assert!(matches!(error, StoreError::DiskReserve { free_bytes, min_bytes }
        if free_bytes == FREE_BYTES_MIN - 1 && min_bytes == FREE_BYTES_MIN));
    assert!(matches!(store.check_room(), Err(StoreError::DiskReserve { .. })));
    assert_eq!(store.revision(), refused);
    change(&mut store, "a", Purpose::Withdrawal, Timestamp::EPOCH).unwrap();
    assert!(reserve_of(&path).exists(), "freed too early: others would fill that space as well");
    free.store(FREE_BYTES_MIN, Ordering::Relaxed);
    change(&mut store, "b", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
}

#[test]
fn the_reserve_is_freed_for_a_withdrawal_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let (mut store, free) = create_on(&path, u64::MAX);

    free.store(WITHDRAWAL_FREE_BYTES_MIN - 1, Ordering::Relaxed);
    change(&mut store, "a", Purpose::Withdrawal, Timestamp::EPOCH).unwrap();
    assert!(!reserve_of(&path).exists());
    change(&mut store, "a", Purpose::Withdrawal, Timestamp::EPOCH).unwrap();

    // With room for changes, but not for the reserve as well.
    free.store(FREE_BYTES_MIN + RESERVE_FILE_BYTES - 1, Ordering::Relaxed);
    change(&mut store, "a", Purpose::Ordinary, Timestamp::EPOCH).unwrap_err();
    assert!(!reserve_of(&path).exists());
    free.store(FREE_BYTES_MIN + RESERVE_FILE_BYTES, Ordering::Relaxed);
    change(&mut store, "a", Purpose::Ordinary, Timestamp::EPOCH).unwrap();
    assert!(reserve_of(&path).exists());
}

#[test]
fn a_start_on_a_full_disk_frees_the_reserve() {
    let folder = tempfile::tempdir().unwrap();
    let path = path_in(&folder);
    let (store, free) = create_on(&path, u64::MAX);
    drop(store);

    free.store(0, Ordering::Relaxed);
    let mut store = RedbStore::open(&path, on(&free)).unwrap();

    assert!(!reserve_of(&path).exists());
    change(&mut store, "a", Purpose::Withdrawal, Timestamp::EPOCH).unwrap();
    change(&mut store, "b", Purpose::Ordinary, Timestamp::EPOCH).unwrap_err();
}

/// A disk with as much space as the test says.
struct Said(Arc<AtomicU64>);

impl FreeSpace for Said {
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Relaxed))
    }
}

fn create_on(path: &Path, free_bytes: u64) -> (RedbStore, Arc<AtomicU64>) {
    let free = Arc::new(AtomicU64::new(free_bytes));
    (RedbStore::create(path, epoch(), on(&free)).unwrap(), free)
}

fn on(free: &Arc<AtomicU64>) -> Options {
    Options { free_space: Box::new(Said(Arc::clone(free))), ..Options::default() }
}

fn create(path: &Path) -> RedbStore {
    RedbStore::create(path, epoch(), Options::default()).unwrap()
}

fn open(path: &Path) -> RedbStore {
    RedbStore::open(path, Options::default()).unwrap()
}

fn change(
    store: &mut RedbStore,
    id: &str,
    purpose: Purpose,
    now: Timestamp,
) -> Result<postern_shared::position::Revision, StoreError> {
    let put = Operation::Put(Key::new(Table::Pairs, id), id.as_bytes().to_vec());
    let item = Item { preconditions: vec![], operations: vec![put] };
    Ok(store.commit(&[item], purpose, now)?.revision)
}

fn path_in(folder: &TempDir) -> PathBuf {
    folder.path().join("store.redb")
}

fn reserve_of(path: &Path) -> PathBuf {
    path.with_file_name("store.redb.reserve")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn epoch() -> Epoch {
    Epoch::from_random([7; 16])
}

/// The error as a log shows it.
fn chain(error: &OpenError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
