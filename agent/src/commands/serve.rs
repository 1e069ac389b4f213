//! The unit that runs commands: `postern-agent commands`.
//!
//! It takes a target's name and what is to be done, and nothing else: which program, which file, which
//! set and which ports that means stands in the local configuration, which it reads for each question.
//! Whoever took over the agent gets no further than that, nor beyond the host's policy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postern_shared::error::chain;
use postern_shared::policy::Refusal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{CommandError, Deed};
use crate::config::Config;
use crate::control;

/// Longest question: a whole list for a set.
const QUESTION_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest answer: a whole set.
pub(super) const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// From the connection to the whole question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// For an answer to be taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions at a time; others wait.
const ASKERS_MAX: usize = 32;
/// After an accept that failed, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// A target of the local configuration.
    pub(super) target: String,
    /// What is to be done for it.
    pub(super) deed: Deed,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It was done, and this was printed.
    Done(String),
    /// It was done in part.
    Unfinished,
    /// It was not done, and why.
    Refused(String),
}

/// Who may ask, and what is asked about.
struct Desk {
    config: PathBuf,
    /// The agent's user; root may always ask.
    asker: u32,
}

/// Answers at the socket until a signal ends it. `asker` is the user that the agent runs as.
pub(crate) async fn run(config: PathBuf, socket: &Path, asker: u32) -> io::Result<()> {
    let listener = listen(socket, asker)?;
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!(socket = %socket.display(), asker, "carrying out what the configuration names");
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let desk = Arc::new(Desk { config, asker });
    tokio::select! {
        () = serve(listener, desk) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Makes the socket, for the asker and root alone.
fn listen(path: &Path, asker: u32) -> io::Result<UnixListener> {
    let listener = control::bind(path)?;
    if rustix::process::geteuid().as_raw() != asker {
        std::os::unix::fs::chown(path, Some(asker), None)?;
    }
    Ok(listener)
}

async fn serve(listener: UnixListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = Arc::clone(&desk);
                tokio::spawn(async move {
                    if let Err(error) = attend(stream, &desk).await {
                        tracing::debug!(%error, "an asker went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the socket takes nobody");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let answer = if uid != 0 && uid != desk.asker {
        tracing::warn!(uid, "a stranger was turned away");
        Answer::Refused("only root and the agent's own user may ask".to_owned())
    } else {
        let mut line = String::new();
        let mut reader = BufReader::new((&mut stream).take(QUESTION_BYTES_MAX));
        timeout(QUESTION_TIMEOUT, reader.read_line(&mut line)).await??;
        match serde_json::from_str::<Question>(&line) {
            Ok(question) => desk.answer(&question).await,
            Err(error) => Answer::Refused(format!("the question is not understood: {error}")),
        }
    };
    let text = serde_json::to_vec(&answer)?;
    timeout(ANSWER_TIMEOUT, stream.write_all(&text)).await??;
    stream.shutdown().await
}

impl Desk {
    async fn answer(&self, question: &Question) -> Answer {
        match self.carry_out(question).await {
            Ok(printed) => Answer::Done(printed),
            Err(CommandError::Unfinished) => Answer::Unfinished,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(target_name = %question.target, error, "not done");
                Answer::Refused(error)
            }
        }
    }

    async fn carry_out(&self, question: &Question) -> Result<String, CommandError> {
        let refused = |why: String| CommandError::Refused(why);
        let path = self.config.clone();
        let config = tokio::task::spawn_blocking(move || Config::load(&path)).await;
        let config = config.map_err(|error| refused(error.to_string()))?;
        let config = config.map_err(|error| refused(chain(&error)))?;
        let name = &question.target;
        let target = config.targets.iter().find(|target| target.name == *name);
        let target = target.ok_or_else(|| refused(format!("there is no target `{name}` here")))?;
        let trade = target.kind.as_kind().trade();
        let trade = trade.ok_or_else(|| refused(format!("target `{name}` runs nothing")))?;
        for network in question.deed.opens() {
            if let Some(reason) = config.policy.judge(network) {
                let refusal = Refusal { network, reason };
                return Err(refused(format!("the local policy forbids it: {refusal}")));
            }
        }
        trade.carry_out(&question.deed).await
    }
}
