//! The only place that speaks to the crate `redb`.
//!
//! Layout: a table for each [`Table`], from id to `(revision, value)`, and a table `meta` with the
//! schema, the epoch, the last revision and the high-water time.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use postern_shared::failpoint;
use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageBackend, TableDefinition, WriteTransaction,
};

use super::OpenFailure;
use super::migrate::{Step, migrate};
use crate::store::batch::{self, Judged};
use crate::store::{
    BoxError, Item, Key, Operation, Order, ReadError, Reader, Record, Scan, Sink, Snapshot,
    StoreError, Table,
};

pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
const EPOCH: &str = "epoch";
const REVISION: &str = "revision";
const HIGH_WATER: &str = "high_water";

/// Whether each commit also stores which pages are free, to save the walk over all pages after a
/// crash. Off: the file is checked whole at every opening, which walks them anyway, so it would
/// cost at each commit and save nothing.
///
/// Measured with 1,000,000 rows of 200 bytes (538 MB), redb 4.5.0, 7,000 to 9,000 fdatasync/s:
///
/// | rows a commit | off | on |
/// | --- | --- | --- |
/// | 1 | 3,300 to 3,600 commits/s | 1,700 to 1,900 commits/s |
/// | 10 | 1,390 to 1,420 commits/s | 1,020 to 1,030 commits/s |
/// | 100 | 254 to 257 commits/s | 228 to 241 commits/s |
///
/// | opening | unchecked | checked whole |
/// | --- | --- | --- |
/// | after a clean end | 236 ms | 418 ms |
/// | after SIGKILL, off | 391 ms | 421 ms |
/// | after SIGKILL, on | under 1 ms | 406 ms |
///
/// It would also turn on commits in two phases (two syncs). With one phase, damage to the pages of
/// the last commit *and* a crash before the next one look like a commit that was cut off, and that
/// one commit is rolled back; anything older is refused. Followers notice: they know a later
/// revision of the same epoch.
const QUICK_REPAIR: bool = false;

/// What is stored for a key: the revision that wrote it, and the value.
type Row = (u64, &'static [u8]);

/// The table of the file that holds the records of `table`.
pub(super) const fn rows(table: Table) -> TableDefinition<'static, &'static [u8], Row> {
    TableDefinition::new(table.name())
}

/// An open file, or whatever else `redb` can write to.
#[derive(Debug)]
pub(super) struct Medium {
    database: Arc<Database>,
    meta: Meta,
}

/// What the table `meta` says.
#[derive(Debug, Clone, Copy)]
struct Meta {
    epoch: Epoch,
    revision: Revision,
    high_water: Timestamp,
}

impl Medium {
    /// Lays out an empty store on an empty backend.
    pub(super) fn create(
        backend: impl StorageBackend,
        cache_bytes: usize,
        steps: &[Step],
        epoch: Epoch,
    ) -> Result<Medium, OpenFailure> {
        let database = open_database(backend, cache_bytes)?;
        let write = begin_write(&database).map_err(OpenFailure::Damaged)?;
        migrate(&write, steps)?;
        let meta = Meta { epoch, revision: Revision::default(), high_water: Timestamp::EPOCH };
        meta.write(&write).and_then(|()| Ok(write.commit()?)).map_err(OpenFailure::Damaged)?;
        Ok(Medium { database: Arc::new(database), meta })
    }

    /// Checks all of a store, repairs what a crash has left, and migrates it.
    pub(super) fn open(
        backend: impl StorageBackend,
        cache_bytes: usize,
        steps: &[Step],
    ) -> Result<Medium, OpenFailure> {
        // `redb` would lay out a new store there, and everything would seem to be revoked.
        if backend.len()? == 0 {
            return Err(damaged("it is empty"));
        }
        let database = open_database(backend, cache_bytes)?;
        let read = database.begin_read().map_err(damaged)?;
        // Without these the file is not one of ours, and the steps must not run.
        Meta::read(&read).map_err(OpenFailure::Damaged)?;
        drop(read);
        let write = begin_write(&database).map_err(OpenFailure::Damaged)?;
        if migrate(&write, steps)? {
            write.commit().map_err(damaged)?;
        } else {
            write.abort().map_err(damaged)?;
        }
        let read = database.begin_read().map_err(damaged)?;
        let meta = Meta::read(&read).map_err(OpenFailure::Damaged)?;
        Ok(Medium { database: Arc::new(database), meta })
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.meta.epoch
    }

    pub(super) fn revision(&self) -> Revision {
        self.meta.revision
    }

    pub(super) fn high_water(&self) -> Timestamp {
        self.meta.high_water
    }

    pub(super) fn replace_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let meta = Meta { epoch, ..self.meta };
        begin_write(&self.database)
            .and_then(|write| meta.write(&write).and_then(|()| Ok(write.commit()?)))
            .map_err(StoreError::fatal("replace the epoch"))?;
        self.meta = meta;
        Ok(())
    }

    pub(super) fn load(&self, sink: &mut Sink<'_>) -> Result<Revision, StoreError> {
        let fatal = StoreError::fatal::<BoxError>;
        let read = self.database.begin_read().map_err(|error| fatal("load")(error.into()))?;
        let revision = Meta::read(&read).map_err(fatal("load"))?.revision;
        for table in Table::ALL.iter().filter(|table| table.is_resident()) {
            let stored = read.open_table(rows(*table)).map_err(|e| fatal("load")(e.into()))?;
            for row in stored.iter().map_err(|error| fatal("load")(error.into()))? {
                let (id, row) = row.map_err(|error| fatal("load")(error.into()))?;
                let record = record(*table, id.value(), row.value());
                let key = record.key.clone();
                sink(record).map_err(|source| StoreError::Unreadable { key, source })?;
            }
        }
        Ok(revision)
    }

    pub(super) fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, StoreError> {
        if scan.is_empty() {
            return Ok(Vec::new());
        }
        let read = self.database.begin_read().map_err(StoreError::fatal("scan"))?;
        scan_rows(&read, scan).map_err(StoreError::fatal("scan"))
    }

    pub(super) fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(RedbReader(Arc::downgrade(&self.database)))
    }

    /// Decides on each item of a batch, against the last commit.
    pub(super) fn judge(&self, items: &[Item]) -> Result<Judged, StoreError> {
        let read =
            self.database.begin_read().map_err(StoreError::fatal("look up what is stored"))?;
        let mut lookup = Lookup { read, tables: BTreeMap::new() };
        batch::judge(items, |key| {
            lookup.revision_of(key).map_err(StoreError::fatal("look up what is stored"))
        })
    }

    /// Makes the operations durable in one commit, and returns its revision.
    pub(super) fn write(
        &mut self,
        operations: &[Operation],
        now: Timestamp,
    ) -> Result<Revision, StoreError> {
        let meta = Meta {
            revision: Revision(self.meta.revision.0 + 1),
            high_water: self.meta.high_water.max(now),
            ..self.meta
        };
        self.commit(operations, &meta).map_err(StoreError::fatal("commit"))?;
        self.meta = meta;
        Ok(meta.revision)
    }

    fn commit(&self, operations: &[Operation], meta: &Meta) -> Result<(), BoxError> {
        let write = begin_write(&self.database)?;
        for of_one_table in operations.chunk_by(|a, b| a.key().table == b.key().table) {
            let mut stored = write.open_table(rows(of_one_table[0].key().table))?;
            for operation in of_one_table {
                match operation {
                    Operation::Put(key, value) => {
                        stored.insert(key.id.as_slice(), (meta.revision.0, value.as_slice()))?;
                    }
                    Operation::Delete(key) => {
                        stored.remove(key.id.as_slice())?;
                    }
                }
            }
        }
        meta.write(&write)?;
        failpoint::reach("store::before_commit")?;
        write.commit()?;
        failpoint::reach("store::after_commit")?;
        Ok(())
    }
}

/// Reads in transactions of its own, which wait for no commit and hold none up.
struct RedbReader(Weak<Database>);

impl Reader for RedbReader {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, ReadError> {
        let database = self.0.upgrade().ok_or(ReadError::Closed)?;
        let read = database.begin_read().map_err(|error| ReadError::Medium(error.into()))?;
        Ok(Box::new(Instant { read, _database: database }))
    }
}

/// A transaction that reads; the file stays open for as long as it takes.
struct Instant {
    read: ReadTransaction,
    _database: Arc<Database>,
}

impl Snapshot for Instant {
    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, ReadError> {
        if scan.is_empty() {
            return Ok(Vec::new());
        }
        scan_rows(&self.read, scan).map_err(ReadError::Medium)
    }
}

fn scan_rows(read: &ReadTransaction, scan: Scan<'_>) -> Result<Vec<Record>, BoxError> {
    let stored = read.open_table(rows(scan.table))?;
    let found = stored.range::<&[u8]>((scan.from, scan.to))?.map(|row| {
        let (id, row) = row?;
        Ok(record(scan.table, id.value(), row.value()))
    });
    match scan.order {
        Order::Ascending => found.take(scan.records_max()).collect(),
        Order::Descending => found.rev().take(scan.records_max()).collect(),
    }
}

impl Meta {
    fn read(read: &ReadTransaction) -> Result<Meta, BoxError> {
        let meta = read.open_table(META)?;
        let get = |name: &'static str| {
            meta.get(name)?.ok_or_else(|| BoxError::from(format!("`{name}` is missing")))
        };
        let epoch = std::str::from_utf8(get(EPOCH)?.value())?.parse()?;
        let revision = Revision(u64::from_le_bytes(get(REVISION)?.value().try_into()?));
        let high_water = u64::from_le_bytes(get(HIGH_WATER)?.value().try_into()?);
        Ok(Meta { epoch, revision, high_water: Timestamp::from_unix_ms(high_water)? })
    }

    fn write(&self, write: &WriteTransaction) -> Result<(), BoxError> {
        let mut meta = write.open_table(META)?;
        meta.insert(EPOCH, self.epoch.to_string().as_bytes())?;
        meta.insert(REVISION, self.revision.0.to_le_bytes().as_slice())?;
        meta.insert(HIGH_WATER, self.high_water.unix_ms().to_le_bytes().as_slice())?;
        Ok(())
    }
}

/// Finds revisions in one snapshot; opens each table once.
struct Lookup {
    read: ReadTransaction,
    tables: BTreeMap<Table, ReadOnlyTable<&'static [u8], Row>>,
}

impl Lookup {
    fn revision_of(&mut self, key: &Key) -> Result<Option<Revision>, BoxError> {
        if !self.tables.contains_key(&key.table) {
            self.tables.insert(key.table, self.read.open_table(rows(key.table))?);
        }
        let row = self.tables[&key.table].get(key.id.as_slice())?;
        Ok(row.map(|row| Revision(row.value().0)))
    }
}

fn open_database(
    backend: impl StorageBackend,
    cache_bytes: usize,
) -> Result<Database, OpenFailure> {
    // The check is also the repair that is due after a crash, so it cannot tell whether one was.
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(backend)?)
}

fn begin_write(database: &Database) -> Result<WriteTransaction, BoxError> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    write.set_quick_repair(QUICK_REPAIR);
    Ok(write)
}

fn record(table: Table, id: &[u8], (revision, value): (u64, &[u8])) -> Record {
    Record { key: Key::new(table, id), revision: Revision(revision), value: value.to_owned() }
}

fn damaged(error: impl Into<BoxError>) -> OpenFailure {
    OpenFailure::Damaged(error.into())
}
