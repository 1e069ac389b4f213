//! Where a file is: looking at it, putting another in its place, noticing that somebody did.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::disk::{self, Rights};

/// Longest file that is read: a mark and a line for each of the most entries of a list.
const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// A user or a group of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// By its number.
    Id(u32),
    /// By its name, which is looked up when the file is written.
    Name(String),
}

/// A file as it was seen; another one is never the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// Not a file that could be replaced, and what it is instead.
    Strange(&'static str),
    File {
        text: String,
    },
}

/// Tells when something in a folder changes; nothing where the kernel has no watch left.
pub(super) struct Watch {
    _watcher: Option<RecommendedWatcher>,
    noticed: Arc<Notify>,
}

/// Looks at what is there. Blocks on the disk.
pub(super) fn look(path: &Path) -> io::Result<(Found, Option<Seen>)> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Found::Nothing, None)),
        other => other?,
    };
    let kind = metadata.file_type();
    if kind.is_symlink() {
        return Ok((Found::Strange("a symbolic link; name what it points to"), None));
    }
    if !kind.is_file() {
        return Ok((Found::Strange("no regular file"), None));
    }
    match disk::read_bounded(path, FILE_BYTES_MAX)? {
        Some(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok((Found::File { text }, Some(Seen::of(&metadata))))
        }
        None => Ok((Found::Nothing, None)),
    }
}

/// Sees whether it is the same file. Blocks on the disk.
pub(super) fn see(path: &Path) -> Option<Seen> {
    fs::symlink_metadata(path).ok().as_ref().map(Seen::of)
}

/// Puts a file there, whole or not at all. Blocks on the disk.
pub(super) fn put(
    path: &Path,
    text: &str,
    mode: u32,
    user: Option<&Who>,
    group: Option<&Who>,
) -> io::Result<()> {
    let user = user.map(Who::user).transpose()?;
    let group = group.map(|who| who.id("/etc/group")).transpose()?;
    disk::replace_with(path, text.as_bytes(), Rights { mode, user, group })
}

impl Seen {
    fn of(metadata: &fs::Metadata) -> Seen {
        Seen {
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl From<&str> for Who {
    fn from(text: &str) -> Who {
        text.parse().map_or_else(|_| Who::Name(text.to_owned()), Who::Id)
    }
}

impl Who {
    /// Finds the number of a user.
    pub(crate) fn user(&self) -> io::Result<u32> {
        self.id("/etc/passwd")
    }

    /// Finds the number in a list such as `/etc/passwd`, whose third field it is.
    fn id(&self, list: &str) -> io::Result<u32> {
        let name = match self {
            Who::Id(id) => return Ok(*id),
            Who::Name(name) => name,
        };
        let found = fs::read_to_string(list)?.lines().find_map(|line| {
            let mut fields = line.split(':');
            let is_it = fields.next() == Some(name);
            is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
        });
        found.ok_or_else(|| io::Error::other(format!("there is no `{name}` in {list}")))
    }
}

impl Watch {
    /// Watches the folder of a file: a watch on the file ends when it is replaced.
    pub(super) fn on(path: &Path) -> Watch {
        let noticed = Arc::new(Notify::new());
        let (told, watched) = (Arc::clone(&noticed), path.to_owned());
        let on_event = move |event: notify::Result<notify::Event>| {
            let is_ours = |event: &notify::Event| {
                let is_read = matches!(event.kind, EventKind::Access(_));
                !is_read && event.paths.iter().any(|path| path.file_name() == watched.file_name())
            };
            if event.as_ref().map_or(true, is_ours) {
                told.notify_one();
            }
        };
        let folder = path.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher.inspect_err(|error| {
            tracing::debug!(%error, "changes of a file are found by looking at it only");
        });
        Watch { _watcher: watcher.ok(), noticed }
    }

    /// Resolves when something has changed since it last did.
    pub(super) async fn noticed(&self) {
        self.noticed.notified().await;
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name() {
        assert_eq!(Who::Name("root".to_owned()).id("/etc/passwd").unwrap(), 0);
        assert_eq!(Who::Id(7).id("/no/such").unwrap(), 7);
        let error = Who::Name("no such".to_owned()).id("/etc/group").unwrap_err();
        assert!(error.to_string().contains("`no such`"), "{error}");
    }
}
