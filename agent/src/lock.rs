//! One agent a state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Held by the agent that runs; gone with its process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _directory: File,
}

/// Why this process may not be the agent of the state directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    #[error("another agent is running with this state directory: process {pid}")]
    Held { pid: String },
    #[error("could not lock {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Takes the lock of `state_dir` without waiting, and writes this process's id into it.
///
/// What is locked is the directory itself, since a disk that takes no write must not keep the
/// agent from running; only the process id is lost then.
pub(crate) fn acquire(state_dir: &Path) -> Result<Lock, LockError> {
    let failed = |source| LockError::Io { path: state_dir.to_owned(), source };
    let directory = File::open(state_dir).map_err(failed)?;
    let path = state_dir.join("lock");
    if let Err(error) = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(error.into()));
        }
        return Err(LockError::Held { pid: holder(&path) });
    }
    if let Err(error) = write_pid(&path) {
        tracing::warn!(%error, path = %path.display(), "could not write the process id to the lock");
    }
    Ok(Lock { _directory: directory })
}

fn write_pid(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(path: &Path) -> String {
    const PID_BYTES_MAX: u64 = 20;
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PID_BYTES_MAX).read_to_string(&mut text));
    match read.ok().and_then(|_| text.trim().parse::<u32>().ok()) {
        Some(pid) => pid.to_string(),
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_told_the_first_ones_process() {
        let directory = tempfile::tempdir().unwrap();
        let first = acquire(directory.path()).unwrap();

        let error = acquire(directory.path()).unwrap_err();

        assert!(matches!(error, LockError::Held { pid } if pid == std::process::id().to_string()));
        drop(first);
        acquire(directory.path()).unwrap();
    }
}
