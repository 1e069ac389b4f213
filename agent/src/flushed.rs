//! Which targets the operator has emptied: they stay so, whatever restarts, until a reload.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::disk;

const FILE_NAME: &str = "flushed.json";
/// Room for the names of thousands of targets.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The names of the targets, in memory and on the disk.
#[derive(Debug)]
pub(crate) struct FlushedTargets {
    path: PathBuf,
    names: Mutex<BTreeSet<String>>,
}

impl FlushedTargets {
    /// Reads them from a state directory. Blocks on the disk.
    pub(crate) fn load(state_dir: &Path) -> FlushedTargets {
        let path = state_dir.join(FILE_NAME);
        let read = disk::read_bounded(&path, FILE_BYTES_MAX).and_then(|content| match content {
            Some(content) => Ok(serde_json::from_slice(&content)?),
            None => Ok(BTreeSet::new()),
        });
        let names = read.unwrap_or_else(|error| {
            tracing::error!(%error, "which targets were flushed cannot be read: none counts as such");
            BTreeSet::new()
        });
        FlushedTargets { path, names: Mutex::new(names) }
    }

    pub(crate) fn contains(&self, target: &str) -> bool {
        self.lock().contains(target)
    }

    /// Notes that a target was emptied. Blocks on the disk.
    pub(crate) fn insert(&self, target: &str) {
        let mut names = self.lock();
        if names.insert(target.to_owned()) {
            self.write(&names);
        }
    }

    /// Lets all of them be filled again. Blocks on the disk.
    pub(crate) fn clear(&self) {
        let mut names = self.lock();
        if !names.is_empty() {
            names.clear();
            self.write(&names);
        }
    }

    fn write(&self, names: &BTreeSet<String>) {
        let content = serde_json::to_vec(names).expect("names are plain text");
        if let Err(error) = disk::replace(&self.path, &content) {
            tracing::error!(%error, "which targets are flushed is kept in memory only");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().expect("no code panics while it holds the lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_emptied_is_remembered_until_it_may_be_filled() {
        let directory = tempfile::tempdir().unwrap();
        FlushedTargets::load(directory.path()).insert("door");

        let later = FlushedTargets::load(directory.path());
        assert!(later.contains("door") && !later.contains("gate"));

        later.clear();
        assert!(!FlushedTargets::load(directory.path()).contains("door"));
    }
}
