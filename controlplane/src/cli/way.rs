//! The way to the operations: over the daemon's socket where it runs, else with the store itself.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Request as HttpRequest, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use postern_shared::wire::v1::{Envelope, Problem};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::chance::OsChance;
use crate::clock::SteadyClock;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, plane, read_audit_key};
use crate::engine::{Engine, StartError};
use crate::http::ApiError;
use crate::operator::{Operation, OperatorError, Plane, Reply, Request, carry_out, route};
use crate::store::{OpenError, OpenFailure, Options, RedbStore, Store as _};

/// Longest answer of the daemon, in bytes: a page of agents with all their receipts.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest wait for one answer of the daemon. Whatever takes long, an export of the audit, is asked
/// for in parts, each of which takes far less.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// What is told where mail is asked for and the daemon does not run.
const NOT_RUNNING: &str =
    "the daemon does not run, and it is what sends mail: start it, or hand the link on";

/// Where operations are carried out.
pub(super) enum Way {
    /// By the daemon, over its socket.
    Daemon(Mutex<SendRequest<Body>>),
    /// Here, while the daemon does not run.
    Here { engine: Engine, writer: JoinHandle<()>, plane: Plane },
}

/// Why an operation has no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It was refused; nothing has changed.
    #[error("{}", told(.0))]
    Refused(Box<Problem>),
    /// Neither the daemon nor the store can be reached.
    #[error(transparent)]
    Unreachable(#[from] UnreachableError),
    /// The daemon was lost on the way: the operation may or may not have been carried out.
    #[error("the daemon at {} did not answer; look whether it was done", socket.display())]
    Lost {
        /// Its socket.
        socket: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon took the request and says nothing: it may yet be carried out.
    #[error(
        "the daemon at {} has not answered within {} seconds: it hangs, or its disk does; see its \
         log, and look whether it was done", socket.display(), ANSWER_WAIT_MAX.as_secs()
    )]
    Late {
        /// Its socket.
        socket: PathBuf,
    },
}

/// Why neither the daemon nor the store can be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnreachableError {
    /// The socket is somebody else's.
    #[error("cannot connect to {}; be root or the user that the daemon runs as", socket.display())]
    Socket {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A daemon runs, but not at this socket.
    #[error(
        "a control plane uses {}, but does not listen on {}: it is starting, or runs with \
         another configuration; give that one with --config", store.display(), socket.display()
    )]
    Elsewhere {
        /// The store.
        store: PathBuf,
        /// The socket.
        socket: PathBuf,
    },
    /// The store cannot be opened.
    #[error("the daemon does not run, and its store cannot be used")]
    Store(#[from] OpenError),
    /// Files of another user would be left behind.
    #[error(
        "the daemon does not run, and {} belongs to the user with id {owner}; do it as that user",
        store.display()
    )]
    Owner {
        /// The store.
        store: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// There is no control plane, or its certificate cannot be read.
    #[error("the daemon does not run, and there is no way to its store")]
    DataDir(#[from] DataDirError),
    /// The store cannot be read.
    #[error("the daemon does not run, and its store cannot be read")]
    Start(#[from] StartError),
}

impl Way {
    /// Finds the way: first the daemon, then the store.
    pub(super) async fn find(config: &Config) -> Result<Way, UnreachableError> {
        let failed =
            |source| UnreachableError::Socket { socket: config.control_socket.clone(), source };
        match UnixStream::connect(&config.control_socket).await {
            Ok(stream) => {
                let (sender, connection) = handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| failed(io::Error::other(error)))?;
                // Its end is seen by whoever waits for an answer.
                tokio::spawn(async move { drop(connection.await) });
                Ok(Way::Daemon(Mutex::new(sender)))
            }
            Err(error) if is_nobody_there(&error) => open(config),
            Err(error) => Err(failed(error)),
        }
    }

    /// Has a request carried out.
    pub(super) async fn ask(&self, config: &Config, request: &Request) -> Result<Reply, AskError> {
        match self {
            Way::Daemon(sender) => {
                let socket = || config.control_socket.clone();
                let lost = |source| AskError::Lost { socket: socket(), source };
                let mut sender = sender.lock().await;
                let answered = timeout(ANSWER_WAIT_MAX, post(&mut sender, request)).await;
                let answered = answered.map_err(|_| AskError::Late { socket: socket() })?;
                let (status, body) = answered.map_err(lost)?;
                if status == StatusCode::OK {
                    let envelope: Envelope<Reply> =
                        serde_json::from_slice(&body).map_err(|error| lost(error.into()))?;
                    return Ok(envelope.data);
                }
                let problem = serde_json::from_slice(&body).map_err(|error| lost(error.into()))?;
                Err(AskError::Refused(problem))
            }
            Way::Here { engine, plane, .. } => {
                if let Operation::InviteUser { mail: true, .. } = request.operation {
                    let problem = ApiError::from(OperatorError::NoMail(NOT_RUNNING));
                    return Err(AskError::Refused(Box::new(problem.to_problem("none"))));
                }
                let answered = carry_out(engine, plane, request.clone()).await;
                let problem = |error| ApiError::from(error).to_problem("none");
                answered.map_err(|error| AskError::Refused(Box::new(problem(error))))
            }
        }
    }

    /// Closes the store, when it was opened here, after everything is durable.
    pub(super) async fn close(self) {
        match self {
            Way::Daemon(_) => {}
            Way::Here { engine, writer, .. } => {
                engine.stop().await;
                // A panic of the writer was printed; what was answered is durable in any case.
                drop(tokio::task::spawn_blocking(move || writer.join()).await);
            }
        }
    }
}

fn is_nobody_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn open(config: &Config) -> Result<Way, UnreachableError> {
    let data = DataDir::of(config);
    data.require()?;
    let store = &data.store();
    check_owner(store)?;
    let opened =
        RedbStore::open(store, Options::default()).map_err(|error| match error.reason {
            OpenFailure::InUse => UnreachableError::Elsewhere {
                store: store.clone(),
                socket: config.control_socket.clone(),
            },
            OpenFailure::Missing
            | OpenFailure::Exists
            | OpenFailure::Damaged(_)
            | OpenFailure::Newer { .. }
            | OpenFailure::Migration { .. }
            | OpenFailure::Io(_) => UnreachableError::Store(error),
        })?;
    let clock = Arc::new(SteadyClock::start(opened.high_water()));
    // The key may be with the service manager alone: then what is done here is signed by the
    // daemon, when it starts.
    let key = data.audit_key(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref());
    let (store, chance) = (Box::new(opened), Arc::new(OsChance));
    let (engine, writer) = if key.exists() {
        Engine::start_signing(store, clock, chance, read_audit_key(&key)?)?
    } else {
        Engine::start(store, clock, chance)?
    };
    Ok(Way::Here { engine, writer, plane: plane(config)? })
}

/// Refuses to write as root into another user's directory: files of root would be left behind
/// that the daemon cannot open.
fn check_owner(store: &Path) -> Result<(), UnreachableError> {
    let own = rustix::process::geteuid().as_raw();
    match std::fs::metadata(store) {
        Ok(metadata) if metadata.uid() != own => {
            Err(UnreachableError::Owner { store: store.to_owned(), owner: metadata.uid() })
        }
        // What else may be wrong shows when it is opened.
        Ok(_) | Err(_) => Ok(()),
    }
}

async fn post(
    sender: &mut SendRequest<Body>,
    request: &Request,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let body = serde_json::to_vec(request)?;
    sender.ready().await?;
    let request = HttpRequest::post(route::PATH)
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
    Ok((status, body.to_bytes()))
}

/// What a problem says: of fields their own words, else the detail.
fn told(problem: &Problem) -> String {
    if problem.errors.is_empty() {
        return problem.detail.clone().unwrap_or_else(|| problem.title.clone());
    }
    let errors: Vec<&str> = problem.errors.iter().map(|error| error.detail.as_str()).collect();
    errors.join("; ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::operator::Operation;

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_hangs_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "data_dir: .\npublic_url: http://127.0.0.1:1\nlisten: [{address: 127.0.0.1:0}]\n";
        let config = Config::parse(text, folder.path()).unwrap();
        // The kernel takes the connection and the request; nobody reads them.
        let _hung = UnixListener::bind(&config.control_socket).unwrap();
        let way = Way::find(&config).await.unwrap();
        let operation = Operation::ListPairs { after: None };

        let failed = way.ask(&config, &Request { org: None, operation }).await.unwrap_err();

        assert!(matches!(failed, AskError::Late { .. }), "{failed}");
        assert!(failed.to_string().contains("has not answered within 60 seconds"), "{failed}");
    }
}
