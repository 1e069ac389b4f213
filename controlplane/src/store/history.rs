//! The recent commits of a store in this process, for whoever watches them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_shared::position::Revision;

use super::Operation;

/// Most commits that are kept for watchers.
const HISTORY_COMMITS_MAX: usize = 4_096;
/// Most bytes of keys and values that are kept for watchers.
const HISTORY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its revision.
    pub revision: Revision,
    /// The changes, in the order of their keys.
    pub operations: Vec<Operation>,
}

/// What a watch sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next commit.
    Commit(Arc<Commit>),
    /// Nothing new: everything up to this revision has been seen.
    Progress(Revision),
}

/// Why a watch cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The commits that come next are no longer kept: load again, then watch from there.
    #[error("commits up to revision {oldest} are no longer kept: load again")]
    Compacted {
        /// The oldest revision after which a watch can start.
        oldest: Revision,
    },
    /// The revision lies in the future of this store, which was restored or is another one.
    #[error("the store is at revision {newest}, before the one asked for: load again")]
    Ahead {
        /// The revision of the store.
        newest: Revision,
    },
    /// The store has a new epoch: load again.
    #[error("the epoch of the store was replaced: load again")]
    EpochReplaced,
    /// The store was closed; there will be no more commits.
    #[error("the store is closed")]
    Closed,
}

/// Follows the commits of a store. Holds up nobody: one that reads too slowly is told
/// [`WatchError::Compacted`].
#[derive(Debug)]
pub struct Watch {
    history: Arc<History>,
    after: Revision,
}

impl Watch {
    /// Waits for the next commit, at most for `patience`.
    pub fn next(&mut self, patience: Duration) -> Result<Event, WatchError> {
        let commit = self.history.next(self.after, patience)?;
        match commit {
            Some(commit) => {
                self.after = commit.revision;
                Ok(Event::Commit(commit))
            }
            None => Ok(Event::Progress(self.after)),
        }
    }
}

/// The recent commits; the store adds to them, watches read them.
#[derive(Debug)]
pub(super) struct History {
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Debug)]
struct Kept {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    /// The revision before the first commit that is kept.
    oldest: Revision,
    newest: Revision,
    end: Option<WatchError>,
}

impl History {
    /// Starts with nothing before `revision`.
    pub(super) fn starting_at(revision: Revision) -> Arc<History> {
        let kept = Kept {
            commits: VecDeque::new(),
            bytes: 0,
            oldest: revision,
            newest: revision,
            end: None,
        };
        Arc::new(History { kept: Mutex::new(kept), changed: Condvar::new() })
    }

    pub(super) fn push(&self, commit: Commit) {
        let mut kept = self.lock();
        kept.newest = commit.revision;
        kept.bytes += bytes(&commit);
        kept.commits.push_back(Arc::new(commit));
        while kept.commits.len() > HISTORY_COMMITS_MAX || kept.bytes > HISTORY_BYTES_MAX {
            let Some(dropped) = kept.commits.pop_front() else { break };
            kept.bytes -= bytes(&dropped);
            kept.oldest = dropped.revision;
        }
        drop(kept);
        self.changed.notify_all();
    }

    /// Ends every watch once it has seen what is kept.
    pub(super) fn end(&self, reason: WatchError) {
        self.lock().end = Some(reason);
        self.changed.notify_all();
    }

    pub(super) fn watch(self: &Arc<History>, after: Revision) -> Result<Watch, WatchError> {
        let kept = self.lock();
        if after > kept.newest {
            return Err(WatchError::Ahead { newest: kept.newest });
        }
        kept.check(after)?;
        Ok(Watch { history: Arc::clone(self), after })
    }

    fn next(&self, after: Revision, patience: Duration) -> Result<Option<Arc<Commit>>, WatchError> {
        let nothing_new = |kept: &mut Kept| kept.newest == after && kept.end.is_none();
        let (kept, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, nothing_new)
            .unwrap_or_else(PoisonError::into_inner);
        kept.check(after)?;
        let next = kept.commits.partition_point(|commit| commit.revision <= after);
        match (kept.commits.get(next), &kept.end) {
            (Some(commit), _) => Ok(Some(Arc::clone(commit))),
            (None, Some(end)) => Err(end.clone()),
            (None, None) => Ok(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No code that holds the lock can panic half-way through a change.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn check(&self, after: Revision) -> Result<(), WatchError> {
        if after < self.oldest {
            return Err(WatchError::Compacted { oldest: self.oldest });
        }
        Ok(())
    }
}

fn bytes(commit: &Commit) -> usize {
    commit.operations.iter().map(Operation::bytes).sum()
}
