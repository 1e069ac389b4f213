//! The durable form of all records, and the feed of their changes.
//!
//! A [`Store`] takes batches of conditional changes and makes each batch durable as one commit with
//! one revision. Two backends exist: [`MemoryStore`] for tests and rehearsals, and [`RedbStore`],
//! one file. Both obey `tests/store_contract.rs`, and so must any later one.
//!
//! Nothing outside this module and the engine may assume that this process is the only writer, that
//! revisions are dense, that a batch larger than [`Limits`] is possible, or that old commits can be
//! watched for ever.

mod batch;
mod codec;
mod history;
mod memory;
mod record;
mod redb;
mod reserve;

use std::error::Error;
use std::sync::Arc;

use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;

pub use self::batch::BatchError;
pub use self::codec::{CodecError, Versioned, decode, encode};
pub use self::history::{Commit, Event, Watch, WatchError};
pub use self::memory::MemoryStore;
pub use self::record::{Item, Key, Operation, Order, Precondition, Record, Scan, Table};
pub use self::redb::{CACHE_BYTES, MigrationError, OpenError, OpenFailure, Options, RedbStore};
pub use self::reserve::{
    FREE_BYTES_MIN, FreeSpace, RESERVE_FILE_BYTES, WITHDRAWAL_FREE_BYTES_MIN, free_bytes,
};

/// Any error, where the caller can only report it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Takes the records of a [`Store::load`], one by one; an error ends the load.
pub type Sink<'a> = dyn FnMut(Record) -> Result<(), BoxError> + 'a;

/// Holds the records of all orgs.
///
/// Calls block, for as long as a disk takes; they belong on a thread that may.
pub trait Store: Send {
    /// The life of the store that its revisions belong to.
    fn epoch(&self) -> Epoch;

    /// Starts a new life: revisions go on, but mean nothing to whoever knew the old epoch. Ends
    /// every watch with [`WatchError::EpochReplaced`].
    fn replace_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError>;

    /// The revision of the last commit.
    fn revision(&self) -> Revision;

    /// The latest time that was given to a commit. The plane's clock never starts before it.
    fn high_water(&self) -> Timestamp;

    /// What one commit can hold.
    fn limits(&self) -> Limits;

    /// Hands every record of the tables that live in memory ([`Table::is_resident`]) to `sink`, as
    /// of one instant, and returns the revision of that instant. The order is any.
    fn load(&self, sink: &mut Sink<'_>) -> Result<Revision, StoreError>;

    /// Reads a part of one table, at most [`SCAN_RECORDS_MAX`] records of it.
    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, StoreError>;

    /// A way to read beside whoever commits, from other threads.
    fn reader(&self) -> Arc<dyn Reader>;

    /// Makes the items whose preconditions hold durable, in one commit, and says which those are.
    ///
    /// Every item is judged against the state before the batch and is carried out whole or not at
    /// all. Items that hold share one revision; when nothing changes there is no commit, and the
    /// revision is the old one. `now` moves the high-water time of a commit, never backwards.
    ///
    /// After [`StoreError::Fatal`] it is unknown whether the batch is durable, and every further
    /// commit fails: only a restart reads what is true. After any other error nothing has changed.
    fn commit(
        &mut self,
        items: &[Item],
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Committed, StoreError>;

    /// Follows the commits after `after`: each one whole, once and in order.
    fn watch(&self, after: Revision) -> Result<Watch, WatchError>;

    /// Says whether an ordinary change would be accepted now, as far as disk space goes; the error
    /// is [`StoreError::DiskReserve`] when not.
    fn check_room(&self) -> Result<(), StoreError>;
}

/// Reads what is committed, on any thread, while the owner of the store goes on committing.
///
/// It holds nothing open: when the store is closed, there is nothing to read any more.
pub trait Reader: Send + Sync {
    /// One instant of the store. What is read from it does not change under later commits; held
    /// for long, it keeps the space of what they replace.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, ReadError>;
}

/// One instant of a store. Calls block, for as long as a disk takes.
pub trait Snapshot {
    /// Reads a part of one table, at most [`SCAN_RECORDS_MAX`] records of it.
    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, ReadError>;
}

/// Why nothing could be read. It says nothing of what is durable.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// The medium failed.
    #[error("the store cannot be read")]
    Medium(#[source] BoxError),
}

/// Most records that one scan returns.
pub const SCAN_RECORDS_MAX: usize = 1_000;

/// What one commit can hold; a backend may set its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most operations of a batch, and most preconditions.
    pub operations_max: usize,
    /// Most bytes of keys and values of a batch.
    pub bytes_max: usize,
    /// Most bytes of the id of a key.
    pub key_bytes_max: usize,
    /// Most bytes of a value.
    pub value_bytes_max: usize,
}

impl Limits {
    /// What every backend can hold. etcd reaches it with `--max-txn-ops=1000`; its limit of a
    /// request is 1.5 MiB.
    pub const COMMON: Limits = Limits {
        operations_max: 1_000,
        bytes_max: 1024 * 1024,
        key_bytes_max: 512,
        value_bytes_max: 256 * 1024,
    };
}

/// Why a batch is committed; decides what happens when the disk is nearly full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Refused with [`StoreError::DiskReserve`] while the reserve is touched.
    Ordinary,
    /// Only takes rights away: goes through on the reserve, so that doors can always be closed.
    Withdrawal,
}

/// The outcome of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The revision of everything that was carried out.
    pub revision: Revision,
    /// One verdict for each item of the batch, in its order.
    pub verdicts: Vec<Result<(), Conflict>>,
}

/// Why an item was not carried out: the first of its preconditions that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not hold")]
pub struct Conflict(pub Precondition);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The caller made a batch that no store takes. A defect of the program; nothing has changed.
    #[error("the batch breaks a rule of the store")]
    Batch(#[from] BatchError),
    /// The disk is nearly full; nothing has changed, and withdrawals still go through.
    #[error("{free_bytes} bytes of disk are free, changes need {min_bytes}; free some space")]
    DiskReserve {
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes that must be free for an ordinary change.
        min_bytes: u64,
    },
    /// A record was refused by whoever loads it: most likely written by another version.
    #[error("the record {key} cannot be read")]
    Unreadable {
        /// The key of the record.
        key: Key,
        /// What the sink said.
        #[source]
        source: BoxError,
    },
    /// The medium failed. The process must end: what is durable is known only after a restart.
    #[error("the store failed to {step}")]
    Fatal {
        /// What it was doing.
        step: &'static str,
        /// What the medium said.
        #[source]
        source: BoxError,
    },
}

impl StoreError {
    /// Makes the conversion of an error of the medium while it did `step`.
    fn fatal<E: Into<BoxError>>(step: &'static str) -> impl FnOnce(E) -> StoreError {
        move |source| StoreError::Fatal { step, source: source.into() }
    }
}
