//! What becomes of a store whose disk fails.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;

use super::OpenFailure;
use super::disk::{Disk, Seeded};
use super::medium::Medium;
use super::migrate::{STEPS, Step};
use crate::store::{Key, Operation, Order, Scan, Table};

/// Little, so that pages are read from the disk and not from memory.
const CACHE_BYTES: usize = 64 * 1024;
const POWER_CUTS: u64 = 400;
const FLIPS: usize = 400;
/// The part of the file that says which commit is the last; without a checksum.
const FLAG_BYTES: usize = 24;
/// The part of the file that says where everything is.
const HEADER_BYTES: usize = 320;
const PAGE_BYTES: usize = 4096;

/// Everything that a store holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    epoch: Epoch,
    revision: Revision,
    high_water: Timestamp,
    pub(super) records: BTreeMap<Key, (Revision, Vec<u8>)>,
}

#[test]
fn a_power_cut_loses_nothing_acknowledged_and_tears_nothing() {
    let mut unacknowledged = 0;
    for seed in 0..POWER_CUTS {
        let mut random = Seeded::new(seed);
        let (disk, mut acknowledged) = new_store();
        let mut medium = open(&disk).unwrap();
        disk.cut_after(random.below(400));
        let mut attempted = acknowledged.clone();
        while commit(&mut medium, &mut attempted, &mut random) {
            acknowledged = attempted.clone();
        }

        let mut disk = disk.after_power_cut(&mut random);
        if random.below(3) == 0 {
            // And again, while the store repairs itself.
            disk.cut_after(random.below(20));
            drop(open(&disk));
            disk = disk.after_power_cut(&mut random);
        }

        let found = content(&open(&disk).unwrap());
        assert!(found == acknowledged || found == attempted, "seed {seed}: {found:?}");
        unacknowledged += usize::from(found == attempted && found != acknowledged);
    }
    // Both outcomes of a commit in flight were seen.
    assert!(unacknowledged > 0, "no commit was durable before it was acknowledged");
}

#[test]
fn a_disk_that_does_not_sync_is_caught() {
    let caught = (0..20).any(|seed| {
        let mut random = Seeded::new(seed);
        let (disk, mut acknowledged) = new_store();
        let mut medium = open(&disk).unwrap();
        disk.lie();
        for _ in 0..20 {
            assert!(commit(&mut medium, &mut acknowledged, &mut random));
        }

        let found = open(&disk.after_power_cut(&mut random));

        found.map_or(true, |medium| content(&medium) != acknowledged)
    });

    assert!(caught, "the power cuts of the other tests prove nothing");
}

#[test]
fn a_changed_byte_is_refused_or_without_effect() {
    let (bytes, written) = closed_store();
    let used: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place] != 0).collect();
    let mut random = Seeded::new(1);
    let flags = (0..FLAG_BYTES).flat_map(|place| [place; 8]);
    let anywhere = (0..FLIPS).map(|_| used[random.below(used.len())]);
    let places: Vec<usize> = flags.chain(FLAG_BYTES..HEADER_BYTES).chain(anywhere).collect();

    let mut refused = 0;
    for (n, place) in places.into_iter().enumerate() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (n % 8);

        refused += usize::from(is_refused(damaged, &written, place));
    }
    assert!(refused > FLIPS / 4, "only {refused} were refused");
}

#[test]
fn a_lost_or_foreign_page_is_refused_or_without_effect() {
    let (bytes, written) = closed_store();
    let pages = bytes.len() / PAGE_BYTES;

    let mut refused = 0;
    for page in 0..pages {
        let place = page * PAGE_BYTES;
        let mut lost = bytes.clone();
        lost[place..place + PAGE_BYTES].fill(0);
        refused += usize::from(is_refused(lost, &written, place));
        let mut foreign = bytes.clone();
        let next = (page + 1) % pages * PAGE_BYTES;
        foreign.copy_within(next..next + PAGE_BYTES, place);
        refused += usize::from(is_refused(foreign, &written, place));
    }
    assert!(refused > 10, "only {refused} were refused");
}

#[test]
fn a_file_cut_short_is_refused() {
    let (bytes, written) = closed_store();
    let mut random = Seeded::new(2);

    for _ in 0..100 {
        let length = random.below(bytes.len());
        assert!(is_refused(bytes[..length].to_vec(), &written, length), "cut to {length}");
    }
}

#[test]
fn damage_after_a_crash_costs_at_most_the_last_commit() {
    let (disk, mut written) = new_store();
    let mut medium = open(&disk).unwrap();
    let mut random = Seeded::new(3);
    for _ in 0..30 {
        assert!(commit(&mut medium, &mut written, &mut random));
    }
    let before = written.clone();
    assert!(commit(&mut medium, &mut written, &mut random));
    let bytes = disk.content();
    drop(medium);
    let used: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place] != 0).collect();

    let (mut refused, mut rolled_back) = (0, 0);
    for n in 0..FLIPS {
        let place = used[random.below(used.len())];
        let mut damaged = bytes.clone();
        damaged[place] ^= 1 << (n % 8);

        match open(&Disk::with(damaged)) {
            Ok(medium) => {
                let found = content(&medium);
                assert!(found == written || found == before, "byte {place}");
                rolled_back += usize::from(found == before);
            }
            Err(_) => refused += 1,
        }
    }
    // The known gap is real, and the file is not merely never looked at.
    assert!(rolled_back > 0 && refused > 0, "{rolled_back} rolled back, {refused} refused");
}

/// Opens a damaged file; panics unless it is refused or as it was written.
fn is_refused(damaged: Vec<u8>, written: &Content, place: usize) -> bool {
    // Release builds end the process at a panic, so a panic is no refusal.
    let opened = catch_unwind(AssertUnwindSafe(|| open(&Disk::with(damaged))));
    match opened.unwrap_or_else(|_| panic!("byte {place}: panicked")) {
        Ok(medium) => {
            assert_eq!(&content(&medium), written, "byte {place}: served other content");
            false
        }
        Err(OpenFailure::Damaged(_)) => true,
        Err(other) => panic!("byte {place}: {other}"),
    }
}

fn new_store() -> (Disk, Content) {
    let disk = Disk::with(Vec::new());
    let epoch = Epoch::from_random([4; 16]);
    let medium = Medium::create(disk.clone(), CACHE_BYTES, STEPS, epoch).unwrap();
    let content = content(&medium);
    (disk, content)
}

/// The bytes of a store that was used for a while and closed.
pub(super) fn closed_store() -> (Vec<u8>, Content) {
    let (disk, mut written) = new_store();
    let mut medium = open(&disk).unwrap();
    let mut random = Seeded::new(0);
    for _ in 0..60 {
        assert!(commit(&mut medium, &mut written, &mut random));
    }
    drop(medium);
    (disk.content(), written)
}

fn open(disk: &Disk) -> Result<Medium, OpenFailure> {
    open_with(disk, STEPS)
}

pub(super) fn open_with(disk: &Disk, steps: &[Step]) -> Result<Medium, OpenFailure> {
    Medium::open(disk.clone(), CACHE_BYTES, steps)
}

/// Commits a few random changes, or a new epoch; `content` is what they lead to. Says whether the
/// store acknowledged them.
fn commit(medium: &mut Medium, content: &mut Content, random: &mut Seeded) -> bool {
    if random.below(20) == 0 {
        content.epoch = Epoch::from_random([random.below(256) as u8; 16]);
        return medium.replace_epoch(content.epoch).is_ok();
    }
    let now = Timestamp::from_unix_ms(random.below(1_000_000) as u64).unwrap();
    let operations = operations(random);
    content.revision = Revision(content.revision.0 + 1);
    content.high_water = content.high_water.max(now);
    for operation in &operations {
        match operation {
            Operation::Put(key, value) => {
                content.records.insert(key.clone(), (content.revision, value.clone()));
            }
            Operation::Delete(key) => {
                content.records.remove(key);
            }
        }
    }
    medium.write(&operations, now).is_ok()
}

/// Up to 20 changes of different records, in the order of the keys.
fn operations(random: &mut Seeded) -> Vec<Operation> {
    let keys: BTreeMap<Key, usize> = (0..1 + random.below(20))
        .map(|_| {
            let table = Table::ALL[random.below(Table::ALL.len())];
            (Key::new(table, [random.below(12) as u8; 16]), random.below(4))
        })
        .collect();
    let operation = |(key, kind)| match kind {
        0 => Operation::Delete(key),
        _ => Operation::Put(key, vec![random.below(256) as u8; random.below(400)]),
    };
    keys.into_iter().map(operation).collect()
}

pub(super) fn content(medium: &Medium) -> Content {
    let mut records = BTreeMap::new();
    for table in Table::ALL {
        let (from, to) = (Bound::Unbounded, Bound::Unbounded);
        let scan = Scan { table: *table, from, to, order: Order::Ascending, limit: usize::MAX };
        let found = medium.scan(scan).unwrap().into_iter();
        records.extend(found.map(|record| (record.key, (record.revision, record.value))));
    }
    Content {
        epoch: medium.epoch(),
        revision: medium.revision(),
        high_water: medium.high_water(),
        records,
    }
}
