//! Keeps disk space back, so that doors can still be closed when the disk is full.
//!
//! | free bytes | ordinary changes | withdrawals |
//! | --- | --- | --- |
//! | at least [`FREE_BYTES_MIN`] | go through | go through |
//! | less | refused | go through |
//! | less than [`WITHDRAWAL_FREE_BYTES_MIN`] | refused | the reserve file is freed, then they go through |
//!
//! The reserve file is freed as late as possible, because whoever filled the disk would fill the
//! freed space as well. It comes back by itself with the next ordinary change that finds room for it, or the next start.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::StoreError;

/// Bytes that must be free for an ordinary change.
pub const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Bytes below which a withdrawal frees the reserve file.
pub const WITHDRAWAL_FREE_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// Bytes of the reserve file: thousands of withdrawals, each of which writes some pages of 4 KiB
/// and frees as many.
pub const RESERVE_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Tells how much space the disk of a folder has.
pub trait FreeSpace: Send {
    /// The bytes that this process may still use.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// Asks the file system.
#[derive(Debug)]
pub(super) struct FileSystem;

impl FreeSpace for FileSystem {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        free_bytes(folder)
    }
}

/// How many bytes an ordinary process can still write to the file system that `path` lies on.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The reserve of one store.
pub(super) struct Reserve {
    folder: PathBuf,
    path: PathBuf,
    space: Box<dyn FreeSpace>,
    file: ReserveFile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReserveFile {
    Held,
    Freed,
    /// The file system cannot allocate ahead; the space is kept back by counting alone.
    Impossible,
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve")
            .field("path", &self.path)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl Reserve {
    /// Takes over the reserve file at `path`, or makes it where there is room. Frees it when the
    /// disk is so full that the store might not open.
    pub(super) fn adopt(path: PathBuf, space: Box<dyn FreeSpace>) -> io::Result<Reserve> {
        let file = if path.try_exists()? { ReserveFile::Held } else { ReserveFile::Freed };
        let folder = folder_of(&path);
        let mut reserve = Reserve { folder, path, space, file };
        reserve.make_room_for_withdrawal()?;
        reserve.hold()?;
        Ok(reserve)
    }

    /// Makes sure that an ordinary change finds room. Brings the reserve file back if it was freed.
    pub(super) fn admit_change(&mut self) -> Result<(), StoreError> {
        self.check()?;
        self.hold().map_err(StoreError::fatal("keep disk space back"))
    }

    /// Makes room for a change that only takes rights away.
    pub(super) fn admit_withdrawal(&mut self) -> Result<(), StoreError> {
        self.make_room_for_withdrawal().map_err(StoreError::fatal("free the reserved disk space"))
    }

    /// Says whether an ordinary change would find room.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let free_bytes = self.free_bytes().map_err(StoreError::fatal("ask for free disk space"))?;
        let min_bytes = match self.file {
            ReserveFile::Held => FREE_BYTES_MIN,
            ReserveFile::Freed | ReserveFile::Impossible => FREE_BYTES_MIN + RESERVE_FILE_BYTES,
        };
        if free_bytes < min_bytes {
            return Err(StoreError::DiskReserve { free_bytes, min_bytes });
        }
        Ok(())
    }

    fn hold(&mut self) -> io::Result<()> {
        if self.file == ReserveFile::Freed
            && self.free_bytes()? >= FREE_BYTES_MIN + RESERVE_FILE_BYTES
        {
            self.file = allocate(&self.path)?;
        }
        Ok(())
    }

    fn make_room_for_withdrawal(&mut self) -> io::Result<()> {
        if self.file == ReserveFile::Held && self.free_bytes()? < WITHDRAWAL_FREE_BYTES_MIN {
            fs::remove_file(&self.path)?;
            self.file = ReserveFile::Freed;
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.space.free_bytes(&self.folder)
    }
}

/// The folder that holds `path`.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Makes the reserve file; it stays freed when the disk turned out to be too full for it.
fn allocate(path: &Path) -> io::Result<ReserveFile> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let refusal = match fallocate(&file, FallocateFlags::empty(), 0, RESERVE_FILE_BYTES) {
        Ok(()) => return Ok(ReserveFile::Held),
        Err(error) => error,
    };
    fs::remove_file(path)?;
    match refusal {
        Errno::NOSPC | Errno::DQUOT => Ok(ReserveFile::Freed),
        Errno::OPNOTSUPP => Ok(ReserveFile::Impossible),
        error => Err(error.into()),
    }
}
