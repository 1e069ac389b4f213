//! The socket at which the command line asks the daemon.

mod client;
pub(crate) mod protocol;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

pub(crate) use client::{AskError, ask};

use self::protocol::{Answer, REQUEST_BYTES_MAX, Reloaded, Request};
use crate::daemon::{Office, ReloadAsked};
use crate::disk;

/// Askers at a time; others wait.
const ASKERS_MAX: usize = 8;
/// From the connection to the whole question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// From the question to the whole answer; a plan of a large target takes seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// After an accept that failed, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Makes the socket, for this process's user and root alone. The caller holds the lock of the
/// state directory, so a socket that is there already was left by an agent that is gone.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk::ensure_directory(parent)?;
    }
    bind(path)
}

/// The same in a folder that is there; a socket of this path is replaced.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for as long as it is polled.
pub(crate) async fn serve(
    listener: UnixListener,
    office: Arc<Office>,
    reload: mpsc::Sender<ReloadAsked>,
) {
    let places = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => {
                let (office, reload) = (Arc::clone(&office), reload.clone());
                tokio::spawn(async move {
                    if let Err(error) = attend(stream, &office, &reload).await {
                        tracing::debug!(%error, "an asker at the control socket went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket takes nobody");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn attend(
    mut stream: UnixStream,
    office: &Office,
    reload: &mpsc::Sender<ReloadAsked>,
) -> io::Result<()> {
    let answer = match check_peer(&stream) {
        Ok(()) => {
            let mut line = String::new();
            let mut reader = BufReader::new((&mut stream).take(REQUEST_BYTES_MAX));
            timeout(QUESTION_TIMEOUT, reader.read_line(&mut line)).await??;
            match serde_json::from_str::<Request>(&line) {
                Ok(request) => timeout(ANSWER_TIMEOUT, answer(request, office, reload)).await?,
                Err(error) => Answer::Error(format!("the question is not understood: {error}")),
            }
        }
        Err(why) => Answer::Error(why),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    timeout(ANSWER_TIMEOUT, stream.write_all(&text)).await??;
    stream.shutdown().await
}

/// The socket's mode keeps others out; whoever comes past it all the same is asked for.
fn check_peer(stream: &UnixStream) -> Result<(), String> {
    let peer = stream.peer_cred().map_err(|error| format!("who are you? {error}"))?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() == 0 || peer.uid() == own {
        return Ok(());
    }
    tracing::warn!(uid = peer.uid(), "a stranger at the control socket was turned away");
    Err("only root and the agent's own user may ask".to_owned())
}

async fn answer(request: Request, office: &Office, reload: &mpsc::Sender<ReloadAsked>) -> Answer {
    let answer = match request {
        Request::Status => value(office.status()),
        Request::Why { address, port } => value(office.why(address, port)),
        Request::Plan => value(office.plan().await),
        Request::Flush => value(office.flush().await),
        Request::Accept { group } => office.accept(group.as_deref()).and_then(value),
        Request::Reload => {
            let (asked, done) = oneshot::channel();
            match reload.send(asked).await {
                Ok(()) => match done.await {
                    Ok(result) => result.and_then(|targets| value(Reloaded { targets })),
                    Err(_) => Err(STOPPING.to_owned()),
                },
                Err(_) => Err(STOPPING.to_owned()),
            }
        }
    };
    match answer {
        Ok(answer) => Answer::Ok(answer),
        Err(error) => Answer::Error(error),
    }
}

const STOPPING: &str = "the agent is stopping";

fn value(answer: impl serde::Serialize) -> Result<Value, String> {
    serde_json::to_value(answer).map_err(|error| error.to_string())
}
