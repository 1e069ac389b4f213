//! A store that forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use postern_shared::failpoint;
use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;

use super::batch::{self, Judged};
use super::history::{Commit, History};
use super::{
    Committed, Item, Key, Limits, Operation, Order, Purpose, ReadError, Reader, Record, Scan, Sink,
    Snapshot, Store, StoreError, Table, Watch, WatchError,
};

/// The records of one table by their ids.
type Rows = BTreeMap<Vec<u8>, (Revision, Vec<u8>)>;
type Tables = BTreeMap<Table, Rows>;

/// Keeps records in memory only.
#[derive(Debug)]
pub struct MemoryStore {
    epoch: Epoch,
    revision: Revision,
    high_water: Timestamp,
    tables: Arc<RwLock<Tables>>,
    history: Arc<History>,
    failed: bool,
}

impl MemoryStore {
    /// Distance of two revisions. More than one, as with a store that has other writers: code that
    /// counts on dense revisions fails its tests.
    const REVISION_STEP: u64 = 3;

    /// Makes an empty store.
    pub fn new(epoch: Epoch) -> MemoryStore {
        let revision = Revision::default();
        MemoryStore {
            epoch,
            revision,
            high_water: Timestamp::EPOCH,
            tables: Arc::new(RwLock::new(
                Table::ALL.iter().map(|table| (*table, Rows::new())).collect(),
            )),
            history: History::starting_at(revision),
            failed: false,
        }
    }

    fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.tables().get(&key.table)?.get(&key.id).map(|(revision, _)| *revision)
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&mut self, operations: Vec<Operation>, now: Timestamp) {
        self.revision = Revision(self.revision.0 + Self::REVISION_STEP);
        self.high_water = self.high_water.max(now);
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        for operation in &operations {
            let Key { table, id } = operation.key();
            let rows = tables.entry(*table).or_default();
            match operation {
                Operation::Put(_, value) => {
                    rows.insert(id.clone(), (self.revision, value.clone()));
                }
                Operation::Delete(_) => {
                    rows.remove(id);
                }
            }
        }
        drop(tables);
        self.history.push(Commit { revision: self.revision, operations });
    }
}

/// Reads the tables of a store that somebody else may own by now; they are kept until the last
/// reader is gone. A snapshot holds commits up: this store is for tests and rehearsals.
struct MemoryReader(Arc<RwLock<Tables>>);

impl Reader for MemoryReader {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, ReadError> {
        Ok(Box::new(Instant(self.0.read().unwrap_or_else(PoisonError::into_inner))))
    }
}

struct Instant<'a>(RwLockReadGuard<'a, Tables>);

impl Snapshot for Instant<'_> {
    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, ReadError> {
        Ok(scan_tables(&self.0, scan))
    }
}

fn scan_tables(tables: &Tables, scan: Scan<'_>) -> Vec<Record> {
    let rows = tables.get(&scan.table).filter(|_| !scan.is_empty());
    let found = rows.into_iter().flat_map(|rows| rows.range::<[u8], _>((scan.from, scan.to)));
    let found = found.map(|row| record(scan.table, row));
    match scan.order {
        Order::Ascending => found.take(scan.records_max()).collect(),
        Order::Descending => found.rev().take(scan.records_max()).collect(),
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn replace_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.epoch = epoch;
        self.history.end(WatchError::EpochReplaced);
        self.history = History::starting_at(self.revision);
        Ok(())
    }

    fn revision(&self) -> Revision {
        self.revision
    }

    fn high_water(&self) -> Timestamp {
        self.high_water
    }

    fn limits(&self) -> Limits {
        Limits::COMMON
    }

    fn load(&self, sink: &mut Sink<'_>) -> Result<Revision, StoreError> {
        for (table, rows) in self.tables().iter().filter(|(table, _)| table.is_resident()) {
            for row in rows {
                let record = record(*table, row);
                let key = record.key.clone();
                sink(record).map_err(|source| StoreError::Unreadable { key, source })?;
            }
        }
        Ok(self.revision)
    }

    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, StoreError> {
        Ok(scan_tables(&self.tables(), scan))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(MemoryReader(Arc::clone(&self.tables)))
    }

    fn commit(
        &mut self,
        items: &[Item],
        _purpose: Purpose,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        batch::check(items, &self.limits())?;
        if self.failed {
            return Err(StoreError::fatal("go on")("it has failed before, and must be restarted"));
        }
        let Judged { verdicts, operations } = batch::judge(items, |key| Ok(self.revision_of(key)))?;
        if !operations.is_empty() {
            // Stays so when a step fails.
            self.failed = true;
            failpoint::reach("store::before_commit").map_err(StoreError::fatal("commit"))?;
            self.write(operations, now);
            failpoint::reach("store::after_commit").map_err(StoreError::fatal("commit"))?;
            self.failed = false;
        }
        Ok(Committed { revision: self.revision, verdicts })
    }

    fn watch(&self, after: Revision) -> Result<Watch, WatchError> {
        self.history.watch(after)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.history.end(WatchError::Closed);
    }
}

fn record(table: Table, (id, (revision, value)): (&Vec<u8>, &(Revision, Vec<u8>))) -> Record {
    Record { key: Key::new(table, id.clone()), revision: *revision, value: value.clone() }
}
