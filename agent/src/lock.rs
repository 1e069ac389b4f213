//! One agent a state directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Held by the agent that runs; gone with its process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
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
pub(crate) fn acquire(state_dir: &Path) -> Result<Lock, LockError> {
    let path = state_dir.join("lock");
    let failed = |source| LockError::Io { path: path.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(error.into()));
        }
        return Err(LockError::Held { pid: holder(&mut file) });
    }
    // A disk that takes no write must not keep the agent from running; only the pid is lost.
    if let Err(error) = write_pid(&mut file) {
        tracing::warn!(%error, path = %path.display(), "could not write the process id to the lock");
    }
    Ok(Lock { _file: file })
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    const PID_BYTES_MAX: u64 = 20;
    let mut text = String::new();
    let read = file.take(PID_BYTES_MAX).read_to_string(&mut text);
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
