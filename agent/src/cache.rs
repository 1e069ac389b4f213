//! The last accepted lists on the disk, so that a restart without the control plane opens what
//! was open, for as long as it still may be.
//!
//! One file a group: a line that says when it was written, a line with the list in the plane's
//! time, a line with the SHA-256 of both. A file that does not add up is set aside.

mod elapsed;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postern_shared::error::chain;
use postern_shared::ids::GroupId;
use postern_shared::wire::v1::{AgentGroup, Entry, Snapshot};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

pub(crate) use elapsed::{Moment, Witness};

use crate::clock::Clock;
use crate::disk;
use crate::lists::{Lists, Saved};
use crate::status::Board;
use crate::target::nft::give_back_memory;

const VERSION: u32 = 1;
/// Largest file that is read: about half a million entries.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest list of groups: thousands of them.
const GROUPS_BYTES_MAX: u64 = 1024 * 1024;
const GROUPS_FILE: &str = "groups.json";
const LIST_SUFFIX: &str = ".list";
/// Changes within this time go to the disk together.
const COALESCE: Duration = Duration::from_secs(1);
/// A large list is written rarely: writing takes at most this part of the time.
const WRITING_SHARE: u32 = 20;
/// Everything is written now and then: leases count from when the plane was last heard by then.
const SAVE_ANYWAY: Duration = Duration::from_secs(3_600);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(30);

/// The directory with the files.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    directory: PathBuf,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
enum CacheError {
    #[error("it could not be read")]
    Io(#[from] io::Error),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it is not as this version writes it")]
    Format(#[from] serde_json::Error),
    #[error("it has version {0}, not {VERSION}")]
    Version(u32),
    #[error("it is about another group")]
    ForeignGroup,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    group: GroupId,
    written: Moment,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body {
    List { snapshot: Snapshot, held: Vec<Entry>, unheard: Duration },
    Withdrawn,
}

impl Cache {
    /// Opens the cache of a state directory, and makes it where it is missing.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Cache> {
        let directory = state_dir.join("lists");
        disk::ensure_directory(&directory)?;
        Ok(Cache { directory })
    }

    /// Gives `lists` what an earlier run saved of their groups. What cannot be read is set aside.
    /// Blocks on the disk.
    pub(crate) fn restore(&self, lists: &Lists, witness: &Witness, clock: &impl Clock) {
        for group in lists.groups() {
            let path = self.path(group);
            let (written, saved) = match self.load(group) {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    set_aside(&path, &chain(&error));
                    continue;
                }
            };
            let elapsed = witness.since(&written);
            if elapsed.is_none() {
                tracing::warn!(
                    %group,
                    "nobody knows how old the saved list is: its entries with a deadline are dropped"
                );
            }
            if let Err(rejected) = lists.restore(group, saved, elapsed, clock.now()) {
                set_aside(&path, &rejected.to_string());
            }
        }
    }

    /// Removes what is kept of all groups but these: nobody would look at it again until it is of
    /// another time. Blocks on the disk.
    pub(crate) fn keep_only(&self, groups: &BTreeSet<GroupId>) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let group = name.to_str().and_then(|name| name.strip_suffix(LIST_SUFFIX)?.parse().ok());
            let is_foreign = group.is_some_and(|group: GroupId| !groups.contains(&group));
            if is_foreign && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "an old list stays on the disk");
            }
        }
    }

    /// Reads what is kept of a group. Blocks on the disk.
    fn load(&self, group: GroupId) -> Result<Option<(Moment, Saved)>, CacheError> {
        let Some(content) = disk::read_bounded(&self.path(group), FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        let end = content.len().checked_sub(1).filter(|last| content[*last] == b'\n');
        let end = end.ok_or(CacheError::Checksum)?;
        let sum_at = content[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (lines, sum) = (&content[..sum_at], &content[sum_at..end]);
        if hex(&Sha256::digest(lines)).as_bytes() != sum {
            return Err(CacheError::Checksum);
        }
        let header_end = lines.iter().position(|byte| *byte == b'\n').unwrap_or(lines.len());
        let header: Header = serde_json::from_slice(&lines[..header_end])?;
        if header.version != VERSION {
            return Err(CacheError::Version(header.version));
        }
        let saved = match serde_json::from_slice(&lines[header_end..])? {
            Body::List { snapshot, held, unheard } => {
                if snapshot.group != group || header.group != group {
                    return Err(CacheError::ForeignGroup);
                }
                Saved::List { snapshot, held, unheard }
            }
            Body::Withdrawn => Saved::Withdrawn,
        };
        Ok(Some((header.written, saved)))
    }

    /// Writes what is to be kept of a group. Blocks on the disk.
    fn save(&self, group: GroupId, saved: Saved, written: Moment) -> io::Result<()> {
        let body = match saved {
            Saved::List { snapshot, held, unheard } => Body::List { snapshot, held, unheard },
            Saved::Withdrawn => Body::Withdrawn,
        };
        disk::replace_by(&self.path(group), |file| {
            let mut summed = Summed { file, sum: Sha256::new() };
            serde_json::to_writer(&mut summed, &Header { version: VERSION, group, written })?;
            summed.write_all(b"\n")?;
            serde_json::to_writer(&mut summed, &body)?;
            summed.write_all(b"\n")?;
            let sum = hex(&summed.sum.finalize());
            writeln!(file, "{sum}")
        })
    }

    /// Reads the groups that the plane last told; none where that cannot be known. Blocks on the
    /// disk.
    pub(crate) fn load_groups(&self) -> Vec<AgentGroup> {
        let path = self.directory.join(GROUPS_FILE);
        let read = disk::read_bounded(&path, GROUPS_BYTES_MAX);
        let groups = read.map_err(CacheError::from).and_then(|content| match content {
            Some(content) => Ok(serde_json::from_slice(&content)?),
            None => Ok(Vec::new()),
        });
        groups.unwrap_or_else(|error: CacheError| {
            set_aside(&path, &chain(&error));
            Vec::new()
        })
    }

    /// Writes the groups that the plane told. Blocks on the disk.
    pub(crate) fn save_groups(&self, groups: &[AgentGroup]) -> io::Result<()> {
        let content = serde_json::to_vec_pretty(groups)?;
        disk::replace(&self.directory.join(GROUPS_FILE), &content)
    }

    fn path(&self, group: GroupId) -> PathBuf {
        self.directory.join(format!("{group}{LIST_SUFFIX}"))
    }
}

/// Keeps the files as the lists are, for as long as it is polled. While the disk takes nothing
/// the lists go on from memory, and the board says so.
pub(crate) async fn keep(
    cache: Cache,
    lists: Arc<Lists>,
    witness: Arc<Witness>,
    clock: Arc<impl Clock>,
    board: Arc<Board>,
) {
    let mut anyway_at = Instant::now() + SAVE_ANYWAY;
    loop {
        let anyway = tokio::select! {
            () = lists.unsaved() => {
                tokio::time::sleep(COALESCE).await;
                false
            }
            () = tokio::time::sleep_until(anyway_at) => true,
        };
        let began = Instant::now();
        if anyway {
            anyway_at = began + SAVE_ANYWAY;
        }
        let mut after = None;
        let mut failure = None;
        while let Some((group, saved)) = lists.take_unsaved(after, anyway, clock.now()) {
            after = Some(group);
            let (cache, written) = (cache.clone(), witness.now());
            let save = tokio::task::spawn_blocking(move || cache.save(group, saved, written));
            if let Err(error) = save.await.map_err(io::Error::other).flatten() {
                lists.not_saved(group);
                failure = Some(error);
            }
        }
        // A list was copied and written out: nothing of that is needed for a long while.
        give_back_memory();
        match failure {
            None => {
                board.trouble("cache", None);
                tokio::time::sleep(began.elapsed() * WRITING_SHARE).await;
            }
            Some(error) => {
                let error = format!("lists are kept in memory only: {error}");
                tracing::warn!(error = %error, "the disk takes no list");
                board.trouble("cache", Some(error));
                tokio::time::sleep(RETRY).await;
                lists.ring_unsaved();
            }
        }
    }
}

fn set_aside(path: &Path, why: &str) {
    match disk::set_aside(path) {
        Ok(aside) => tracing::error!(
            path = %path.display(), aside = %aside.display(), why, "a saved file was set aside"
        ),
        Err(error) => tracing::error!(
            path = %path.display(), %error, why, "a saved file is of no use and stays in the way"
        ),
    }
}

/// Adds up what goes to a file.
struct Summed<'a, W> {
    file: &'a mut W,
    sum: Sha256,
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}
