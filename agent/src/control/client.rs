//! The command line's end of the control socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::protocol::{ANSWER_BYTES_MAX, Answer, Request};

/// Longer than the daemon takes for any answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(150);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens.
    #[error("no agent is running here: nobody listens at {0}")]
    NotRunning(PathBuf),
    /// The socket is not for this user.
    #[error("{0} is open to root and the agent's own user only")]
    Forbidden(PathBuf),
    #[error("could not talk to the agent at {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent's answer is not understood (is it of another version?)")]
    Answer(#[source] serde_json::Error),
    /// The agent's own words.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon. Blocks until it has answered.
pub(crate) fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, AskError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&source.kind()) {
            AskError::NotRunning(path)
        } else if source.kind() == io::ErrorKind::PermissionDenied {
            AskError::Forbidden(path)
        } else {
            AskError::Io { path, source }
        }
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(failed)?;
    let mut question = serde_json::to_vec(request).expect("a question has plain fields");
    question.push(b'\n');
    stream.write_all(&question).map_err(failed)?;
    let mut text = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    match serde_json::from_slice(&text).map_err(AskError::Answer)? {
        Answer::Ok(value) => serde_json::from_value(value).map_err(AskError::Answer),
        Answer::Error(error) => Err(AskError::Refused(error)),
    }
}
