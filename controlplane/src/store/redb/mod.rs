//! The embedded store: one file, no server, one process.

#[cfg(test)]
mod disk;
#[cfg(test)]
mod faults;
mod medium;
mod migrate;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::DatabaseError;
use ::redb::backends::FileBackend;
use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;

use self::medium::Medium;
pub use self::migrate::MigrationError;
use super::batch::{self, Judged};
use super::history::{Commit, History};
use super::reserve::{FileSystem, Reserve, folder_of};
use super::{
    BoxError, Committed, FreeSpace, Item, Limits, Purpose, Reader, Record, Scan, Sink, Store,
    StoreError, Watch, WatchError,
};

/// Bytes of the file that are cached in memory, unless said otherwise. All records but the audit
/// log are in memory already; the cache serves the inner pages of the trees.
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// The mode of the file: it holds hashes of secrets and everybody's addresses.
const FILE_MODE: u32 = 0o600;
/// What the name of the reserve file has after the store's.
const RESERVE: &str = ".reserve";

/// How to open a store.
pub struct Options {
    /// Bytes of the file that are cached in memory.
    pub cache_bytes: usize,
    /// Tells how full the disk is.
    pub free_space: Box<dyn FreeSpace>,
}

impl Default for Options {
    fn default() -> Options {
        Options { cache_bytes: CACHE_BYTES, free_space: Box::new(FileSystem) }
    }
}

/// A store that could not be opened or made.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store `{}`", path.display())]
pub struct OpenError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub reason: OpenFailure,
}

/// Why a store could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum OpenFailure {
    /// There is no file.
    #[error("there is no such file; `postern-controlplane init` makes one")]
    Missing,
    /// A store is to be made where a file is already.
    #[error("the file exists already and is not overwritten")]
    Exists,
    /// Another process has it open.
    #[error("another process uses it, most likely a control plane that runs; stop that one first")]
    InUse,
    /// The content is not what was written.
    #[error("it is damaged and is not served; restore a backup")]
    Damaged(#[source] BoxError),
    /// Written by a later version of this program.
    #[error("it has schema {found}, and this program knows up to {known}; use a newer program")]
    Newer {
        /// The schema of the file.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// A migration failed; the file is as it was.
    #[error("it could not be migrated to schema {to}, and is as it was")]
    Migration {
        /// The schema that was not reached.
        to: u32,
        /// What the migration said.
        #[source]
        source: MigrationError,
    },
    /// The operating system refused something.
    #[error("it could not be read or written; check its owner, its mode and the disk")]
    Io(#[source] io::Error),
}

/// Keeps records in one file of mode 0600.
///
/// Every page of the file is checked when it is opened, so that a damaged one is refused and not
/// served; the check also does the repair that is due after a crash. One process has the file open
/// at a time. Beside it lies `<file>.reserve`, which holds disk space back.
#[derive(Debug)]
pub struct RedbStore {
    medium: Medium,
    reserve: Reserve,
    history: Arc<History>,
    /// A commit failed: what is durable is unknown.
    failed: bool,
}

impl RedbStore {
    /// Makes an empty store at `path`, where there must be no file. The file appears only once it
    /// is whole.
    pub fn create(path: &Path, epoch: Epoch, options: Options) -> Result<RedbStore, OpenError> {
        Self::create_file(path, epoch, options)
            .map_err(|reason| OpenError { path: path.to_owned(), reason })
    }

    /// Opens the store at `path`, after a check of all of it.
    pub fn open(path: &Path, options: Options) -> Result<RedbStore, OpenError> {
        Self::open_file(path, options).map_err(|reason| OpenError { path: path.to_owned(), reason })
    }

    /// Says whether a store that was in use at `path` is gone: what lies beside it outlives it.
    pub fn is_lost(path: &Path) -> bool {
        !path.exists() && beside(path, RESERVE).exists()
    }

    fn create_file(path: &Path, epoch: Epoch, options: Options) -> Result<RedbStore, OpenFailure> {
        if path.try_exists()? {
            return Err(OpenFailure::Exists);
        }
        let reserve = Reserve::adopt(beside(path, RESERVE), options.free_space)?;
        let unfinished = beside(path, &format!(".{}.new", std::process::id()));
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&unfinished)
            .map_err(OpenFailure::from)
            .and_then(|file| Ok(FileBackend::new(file)?))
            .and_then(|file| Medium::create(file, options.cache_bytes, migrate::STEPS, epoch))
            .and_then(|medium| match fs::hard_link(&unfinished, path) {
                Ok(()) => Ok(medium),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Err(OpenFailure::Exists)
                }
                Err(error) => Err(error.into()),
            });
        fs::remove_file(&unfinished)?;
        let medium = made?;
        // Without this a power cut could take the name of the file away.
        File::open(folder_of(path))?.sync_all()?;
        Ok(RedbStore::with(medium, reserve))
    }

    fn open_file(path: &Path, options: Options) -> Result<RedbStore, OpenFailure> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                OpenFailure::Missing
            } else {
                OpenFailure::Io(error)
            }
        })?;
        if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
            tracing::warn!(path = %path.display(), "the store was open to others; closed that");
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        }
        let reserve = Reserve::adopt(beside(path, RESERVE), options.free_space)?;
        let medium = Medium::open(FileBackend::new(file)?, options.cache_bytes, migrate::STEPS)?;
        Ok(RedbStore::with(medium, reserve))
    }

    fn with(medium: Medium, reserve: Reserve) -> RedbStore {
        let history = History::starting_at(medium.revision());
        RedbStore { medium, reserve, history, failed: false }
    }

    fn check_alive(&self) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::fatal("go on")("it has failed before, and must be restarted"));
        }
        Ok(())
    }
}

impl Store for RedbStore {
    fn epoch(&self) -> Epoch {
        self.medium.epoch()
    }

    fn replace_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.check_alive()?;
        self.failed = true;
        self.medium.replace_epoch(epoch)?;
        self.failed = false;
        self.history.end(WatchError::EpochReplaced);
        self.history = History::starting_at(self.medium.revision());
        Ok(())
    }

    fn revision(&self) -> Revision {
        self.medium.revision()
    }

    fn high_water(&self) -> Timestamp {
        self.medium.high_water()
    }

    fn limits(&self) -> Limits {
        Limits::COMMON
    }

    fn load(&self, sink: &mut Sink<'_>) -> Result<Revision, StoreError> {
        self.medium.load(sink)
    }

    fn scan(&self, scan: Scan<'_>) -> Result<Vec<Record>, StoreError> {
        self.medium.scan(scan)
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.medium.reader()
    }

    fn commit(
        &mut self,
        items: &[Item],
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        batch::check(items, &self.limits())?;
        self.check_alive()?;
        let Judged { verdicts, operations } = self.medium.judge(items)?;
        if !operations.is_empty() {
            match purpose {
                Purpose::Ordinary => self.reserve.admit_change()?,
                Purpose::Withdrawal => self.reserve.admit_withdrawal()?,
            }
            // Stays so when a step fails.
            self.failed = true;
            let revision = self.medium.write(&operations, now)?;
            self.failed = false;
            self.history.push(Commit { revision, operations });
        }
        Ok(Committed { revision: self.medium.revision(), verdicts })
    }

    fn watch(&self, after: Revision) -> Result<Watch, WatchError> {
        self.history.watch(after)
    }

    fn check_room(&self) -> Result<(), StoreError> {
        self.reserve.check()
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.history.end(WatchError::Closed);
    }
}

impl From<io::Error> for OpenFailure {
    fn from(error: io::Error) -> OpenFailure {
        OpenFailure::Io(error)
    }
}

impl From<DatabaseError> for OpenFailure {
    fn from(error: DatabaseError) -> OpenFailure {
        use ::redb::StorageError;
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                OpenFailure::InUse
            }
            DatabaseError::Storage(StorageError::Io(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                OpenFailure::Io(error)
            }
            DatabaseError::Storage(_)
            | DatabaseError::RepairAborted
            | DatabaseError::UpgradeRequired(_)
            | DatabaseError::TransactionInProgress
            | _ => OpenFailure::Damaged(error.into()),
        }
    }
}

/// The path with `suffix` behind the name of the file.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
