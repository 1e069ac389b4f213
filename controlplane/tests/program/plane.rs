//! A control plane of the test's own, run as processes of the real program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::Request as HttpRequest;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use postern_controlplane::operator::{
    Answer, MemberAsked, MemberEnd, Operation, Reply, Request, route,
};
use postern_shared::network::Network;
use postern_shared::time::Expiry;
use postern_shared::wire::v1::Envelope;
use rustix::process::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::UnixStream;

/// The limits are the tests' own: what is tested here are not the budgets of callers.
const CONFIG: &str = "\
data_dir: data
public_url: http://127.0.0.1:1
listen:
  - address: 127.0.0.1:0
trusted_proxies:
  networks: [127.0.0.0/8]
  header: X-Forwarded-For
limits:
  reads_per_minute: 1000000
  writes_per_minute: 1000000
  moves_per_hour: 1000000
log:
  format: json
";

/// A control plane that `init` has made.
pub(crate) struct Plane {
    folder: TempDir,
}

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where it tells its figures.
    pub(crate) metrics: Option<SocketAddr>,
    log: Option<JoinHandle<String>>,
}

/// A connection to the control socket.
pub(crate) struct Socket(SendRequest<Body>);

impl Plane {
    pub(crate) fn make() -> Plane {
        Plane::with(CONFIG)
    }

    /// Makes one of another configuration, whose data directory is `data`.
    pub(crate) fn with(config: &str) -> Plane {
        let plane = Plane { folder: tempfile::tempdir().unwrap() };
        std::fs::write(plane.config(), config).unwrap();
        let made = plane.run(&["init", "--org", "Example", "--admin", "admin@example.org"]);
        assert!(made.status.success(), "{made:?}");
        plane
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("controlplane.yaml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The program with `arguments`, and this plane's configuration.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        command.arg("--config").arg(self.config());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.program(arguments).output().unwrap()
    }

    /// Runs a command that must work, and reads the JSON that it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.program(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts the daemon without waiting for it.
    pub(crate) fn spawn(&self) -> Child {
        self.program(&["serve"]).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts the daemon and returns when it says that it is ready.
    pub(crate) fn start(&self) -> Daemon {
        Daemon::ready(self.spawn())
    }

    pub(crate) async fn connect(&self) -> Socket {
        let stream = UnixStream::connect(self.data().join("control.sock")).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Socket(sender)
    }
}

pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-controlplane"));
    command.args(arguments).env_remove("NOTIFY_SOCKET").env_remove("CREDENTIALS_DIRECTORY");
    command
}

impl Daemon {
    /// Reads the log until it says "ready"; what follows is read on, so that the pipe never fills.
    pub(crate) fn ready(mut child: Child) -> Daemon {
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (mut log, mut addresses) = (String::new(), Vec::new());
        loop {
            let begin = log.len();
            let read = lines.read_line(&mut log).unwrap();
            assert_ne!(read, 0, "the daemon ended before it was ready: {log}");
            let line: Value = serde_json::from_str(&log[begin..])
                .unwrap_or_else(|error| panic!("{error}: {}", &log[begin..]));
            match line["message"].as_str() {
                Some("listening") => {
                    addresses.push(line["address"].as_str().unwrap().parse().unwrap());
                }
                Some("ready") => break,
                Some(_) | None => {}
            }
        }
        let log = thread::spawn(move || {
            lines.read_to_string(&mut log).unwrap();
            log
        });
        // The listener of the figures is opened last.
        let (address, metrics) = (addresses[0], addresses.get(1).copied());
        Daemon { child, address, metrics, log: Some(log) }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Kills the daemon, as a power cut would; returns when it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; answers the exit code and the log.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Socket {
    /// Asks for an operation; an error means that the daemon is gone.
    pub(crate) async fn ask(&mut self, operation: Operation) -> Result<Answer, hyper::Error> {
        let request = serde_json::to_vec(&Request { org: None, operation }).unwrap();
        let request = HttpRequest::post(route::PATH)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Body::from(request))
            .unwrap();
        self.0.ready().await?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        assert!(status.is_success(), "{status}: {body:?}");
        let envelope: Envelope<Reply> = serde_json::from_slice(&body).unwrap();
        Ok(envelope.data.answer)
    }
}

impl Socket {
    /// Adds a fixed network to a group.
    pub(crate) async fn add_network(&mut self, group: &str, network: Network) {
        let operation = Operation::AddMember {
            group: group.parse().unwrap(),
            member: MemberAsked::Network { network, note: network.to_string().parse().unwrap() },
            expires: MemberEnd::At(Expiry::Never),
        };
        self.ask(operation).await.unwrap();
    }
}

/// The store's file of a data directory.
pub(crate) fn store(data: &Path) -> PathBuf {
    data.join("postern.redb")
}
