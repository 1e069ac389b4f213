//! Those who want in: connections and reports from addresses of the other namespace.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use postern_shared::token::Token;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::plane::PLANE_URL;
use super::{PATIENCE, eventually};
use crate::netns::{HOST_V4, HOST_V6, Lab};

/// The port that the gate protects.
pub(crate) const DOOR: u16 = 2222;
/// A port that it does not: what gets through there says that the network is in order.
const CONTROL: u16 = 2223;
/// A connection to the door that is not there this long after a later one to the unprotected port
/// was dropped. Shorter than the second after which a lost packet is sent again.
const GRACE: Duration = Duration::from_millis(50);

/// The clients' side of the network.
pub(crate) struct Clients {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

impl Clients {
    /// Opens the door's and the unprotected port on this host, and moves in on the other.
    pub(crate) fn new(lab: &Lab) -> Clients {
        for port in [DOOR, CONTROL] {
            let listener = TcpListener::bind(("::", port)).unwrap();
            // Ends with the test's process.
            thread::spawn(move || {
                for stream in listener.incoming() {
                    drop(stream)
                }
            });
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = lab.in_peer(move || {
            let (tell, told) = mpsc::channel();
            // A thread that is started over there stays over there.
            thread::spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                tell.send(runtime.handle().clone()).unwrap();
                runtime.block_on(async { drop(stopped.await) });
            });
            told.recv().unwrap()
        });
        Clients { runtime, _stop: stop }
    }

    /// Lets a task run among the clients.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Does something among the clients and waits for what comes of it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (answer, answered) = mpsc::channel();
        self.runtime.spawn(async move { drop(answer.send(task.await)) });
        answered.recv_timeout(PATIENCE).expect("an answer from the other namespace")
    }

    /// Says whether a connection from `source` gets through the door.
    pub(crate) fn is_open(&self, source: &str) -> bool {
        let source: IpAddr = source.parse().unwrap();
        self.run(async move { knock(source).await.expect("the unprotected port is reached") })
    }

    /// Waits until the door is open to `source`; answers how long that took.
    pub(crate) fn opens(&self, source: &str) -> Duration {
        eventually(&format!("the door is open to {source}"), || self.is_open(source))
    }

    /// Waits until the door is closed to `source`; answers how long that took.
    pub(crate) fn closes(&self, source: &str) -> Duration {
        eventually(&format!("the door is closed to {source}"), || !self.is_open(source))
    }

    /// Reports with a bookmark from `source`, and waits so many seconds for confirmation.
    /// Answers the status and the body.
    pub(crate) fn post(&self, bookmark: &Token, source: &str, wait_secs: u32) -> (u16, Value) {
        let source: IpAddr = source.parse().unwrap();
        let url = format!("{PLANE_URL}/b/{}", bookmark.expose());
        self.run(async move {
            let client = reqwest::Client::builder()
                .local_address(source)
                .tls_danger_accept_invalid_certs(true)
                .no_proxy()
                .build()
                .unwrap();
            let request = client.post(url).header("accept", "application/json");
            let request = request.header("prefer", format!("wait={wait_secs}"));
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap())
        })
    }

    /// Reports with a bookmark; answers the content of the answer.
    pub(crate) fn report(&self, bookmark: &Token, source: &str) -> Value {
        let (status, mut body) = self.post(bookmark, source, 0);
        assert_eq!(status, 200, "{body}");
        body["data"].take()
    }
}

/// Knocks at the door with a TCP connection from `source`: whether it gets through; `None` where
/// even the unprotected port does not answer in time.
///
/// A second connection to the unprotected port follows on the same way. The kernel answers both
/// without any program's help, so when that one is there and the first is not, the first was
/// dropped, however busy the machine is.
pub(crate) async fn knock(source: IpAddr) -> Option<bool> {
    let mut door = Box::pin(dial(source, DOOR));
    // Sends the first packet, and waits for nothing.
    let begun = poll_fn(|context| Poll::Ready(door.as_mut().poll(context))).await;
    if let Poll::Ready(done) = begun {
        return done.ok().map(|()| true);
    }
    timeout(PATIENCE, dial(source, CONTROL)).await.ok()?.ok()?;
    Some(timeout(GRACE, door).await.is_ok_and(|done| done.is_ok()))
}

/// Connects, and hangs up without leaving a trace in the kernel's tables.
async fn dial(source: IpAddr, port: u16) -> std::io::Result<()> {
    let host: IpAddr = if source.is_ipv4() { HOST_V4 } else { HOST_V6 }.parse().unwrap();
    let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0))?;
    socket.set_zero_linger()?;
    socket.connect(SocketAddr::new(host, port)).await.map(drop::<TcpStream>)
}
