//! The embedded store on a real file system that is full, or read-only.
//!
//! Each test mounts a small one, in a mount namespace of its own. That takes the rights that the
//! profile `netns` gives its tests: run `make test`.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use postern_controlplane::store::{
    FREE_BYTES_MIN, Item, Key, OpenFailure, Operation, Options, Purpose, RedbStore, Store,
    StoreError, Table, WITHDRAWAL_FREE_BYTES_MIN,
};
use postern_shared::ids::Epoch;
use postern_shared::time::Timestamp;

/// Names the folder of the small disk to the test once it runs on it.
const DISK: &str = "POSTERN_TEST_DISK";
/// The size of the small disk: the store, its reserve, and what must stay free beside it.
const DISK_SIZE: &str = "200m";

#[test]
fn on_a_full_disk_doors_can_still_be_closed() {
    let name = "on_a_full_disk_doors_can_still_be_closed";
    on_a_small_disk(name, |disk| {
        let path = disk.join("store.redb");
        let reserve = disk.join("store.redb.reserve");
        let mut store = RedbStore::create(&path, epoch(), Options::default()).unwrap();
        change(&mut store, 0, Purpose::Ordinary).unwrap();

        fill(disk, FREE_BYTES_MIN - 1);
        refused(change(&mut store, 1, Purpose::Ordinary));
        change(&mut store, 2, Purpose::Withdrawal).unwrap();
        assert!(reserve.exists());

        fill(disk, 0);
        refused(change(&mut store, 3, Purpose::Ordinary));
        for id in 4..504 {
            change(&mut store, id, Purpose::Withdrawal).unwrap();
        }
        assert!(!reserve.exists());

        drop(store);
        let mut store = RedbStore::open(&path, Options::default()).unwrap();
        change(&mut store, 504, Purpose::Withdrawal).unwrap();
        refused(change(&mut store, 505, Purpose::Ordinary));
        let mut ids = 0;
        let loaded = store.load(&mut |_| {
            ids += 1;
            Ok(())
        });
        loaded.unwrap();
        assert_eq!(ids, 503);

        fs::remove_file(ballast(disk)).unwrap();
        change(&mut store, 506, Purpose::Ordinary).unwrap();
        assert!(reserve.exists());
    });
}

#[test]
fn a_start_on_a_full_disk_finds_room_in_the_reserve() {
    let name = "a_start_on_a_full_disk_finds_room_in_the_reserve";
    on_a_small_disk(name, |disk| {
        let path = disk.join("store.redb");
        drop(RedbStore::create(&path, epoch(), Options::default()).unwrap());
        fill(disk, 0);

        let mut store = RedbStore::open(&path, Options::default()).unwrap();

        assert!(!disk.join("store.redb.reserve").exists());
        change(&mut store, 1, Purpose::Withdrawal).unwrap();
    });
}

#[test]
fn a_disk_that_fails_without_a_warning_is_fatal() {
    let name = "a_disk_that_fails_without_a_warning_is_fatal";
    on_a_small_disk(name, |disk| {
        let path = disk.join("store.redb");
        let mut store = RedbStore::create(&path, epoch(), Options::default()).unwrap();
        fill(disk, 0);
        change(&mut store, 0, Purpose::Withdrawal).unwrap();
        // Whoever filled the disk fills what the reserve has freed as well.
        fill(disk, 0);

        let outcome = (0..10_000).find_map(|id| change(&mut store, id, Purpose::Withdrawal).err());

        assert!(matches!(outcome, Some(StoreError::Fatal { .. })), "{outcome:?}");
        fs::remove_file(ballast(disk)).unwrap();
        let outcome = change(&mut store, 0, Purpose::Withdrawal);
        assert!(matches!(outcome, Err(StoreError::Fatal { .. })), "{outcome:?}");
    });
}

#[test]
fn a_read_only_file_is_refused_and_named() {
    let name = "a_read_only_file_is_refused_and_named";
    on_a_small_disk(name, |disk| {
        let path = disk.join("store.redb");
        drop(RedbStore::create(&path, epoch(), Options::default()).unwrap());
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(disk));

        let error = RedbStore::open(&path, Options::default()).unwrap_err();

        let OpenFailure::Io(source) = &error.reason else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(error.to_string(), format!("cannot open the store `{}`", path.display()));
    });
}

/// Runs the body of the test `name` on a small disk: by starting this program again, in a mount
/// namespace of its own, for this one test.
fn on_a_small_disk(name: &str, body: fn(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        return body(Path::new(&disk));
    }
    let folder = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && exec "$3" --exact "$4" --nocapture"#;
    let program = std::env::current_exe().unwrap();
    run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", DISK_SIZE])
        .arg(folder.path())
        .arg(program)
        .arg(name)
        .env(DISK, folder.path()));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let text = [String::from_utf8_lossy(out), String::from_utf8_lossy(err)].concat();
    assert!(output.status.success(), "{command:?} failed; run `make test`:\n{text}");
}

/// Writes until no more than `free_bytes` are free.
fn fill(disk: &Path, free_bytes: u64) {
    const PIECE: usize = 4096;
    let mut file: File = OpenOptions::new().create(true).append(true).open(ballast(disk)).unwrap();
    loop {
        let found = rustix::fs::statvfs(disk).unwrap();
        if found.f_bavail * found.f_frsize <= free_bytes {
            return;
        }
        match file.write_all(&[1; PIECE]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

fn ballast(disk: &Path) -> PathBuf {
    disk.join("ballast")
}

fn change(store: &mut RedbStore, id: u32, purpose: Purpose) -> Result<(), StoreError> {
    let put = Operation::Put(Key::new(Table::Pairs, id.to_be_bytes()), vec![7; 200]);
    let item = Item { preconditions: vec![], operations: vec![put] };
    store.commit(&[item], purpose, Timestamp::EPOCH).map(|_| ())
}

fn refused(outcome: Result<(), StoreError>) {
    let Err(StoreError::DiskReserve { free_bytes, min_bytes }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(free_bytes < min_bytes);
    assert!(WITHDRAWAL_FREE_BYTES_MIN < min_bytes);
}

fn epoch() -> Epoch {
    Epoch::from_random([7; 16])
}
