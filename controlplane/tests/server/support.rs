//! A server with short limits and a client that can misbehave.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use futures_util::stream;
use postern_controlplane::chance::SeededChance;
use postern_controlplane::clock::SteadyClock;
use postern_controlplane::http::{self, Answer, ApiError, Border, border};
use postern_controlplane::server::{
    Certificates, ClientAddress, Drain, Limits, Listener, Peer, Server, TrustedProxies,
};
use postern_shared::time::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything here may take; whoever waits this long has found a fault.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How late a limit may be noticed on a machine that has much else to do.
pub(crate) const LATE: Duration = Duration::from_secs(5);

/// Limits that a test can wait for.
pub(crate) const SHORT: Limits = Limits {
    handshake: Duration::from_millis(300),
    first_byte: Duration::from_millis(300),
    head: Duration::from_millis(500),
    body: Duration::from_millis(400),
    idle: Duration::from_millis(600),
    write: Duration::from_millis(700),
    drain: Duration::from_millis(600),
    head_bytes: 8 * 1024,
    body_bytes: 4 * 1024,
    streams: 8,
    resets: 4,
    ..Limits::PUBLIC
};

/// Bytes that fit into no socket buffer.
pub(crate) const BIG_BYTES: usize = 64 * 1024 * 1024;

/// A server that runs, and the hooks into its routes.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) served: JoinHandle<()>,
    /// Lets one request to `/held` go on.
    pub(crate) release: Arc<Semaphore>,
    /// Hears when a request to `/held` or `/stream` has begun.
    pub(crate) begun: mpsc::Receiver<()>,
    /// Hears when the answer to `/big` is given up or done.
    pub(crate) dropped: mpsc::Receiver<()>,
}

#[derive(Clone)]
struct Hooks {
    release: Arc<Semaphore>,
    begun: mpsc::Sender<()>,
    dropped: mpsc::Sender<()>,
}

/// Says so when it is dropped.
struct Tell(mpsc::Sender<()>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.try_send(()).unwrap_or_default();
    }
}

pub(crate) async fn start(limits: Limits) -> Running {
    start_on(limits, TrustedProxies::NONE, None).await
}

pub(crate) async fn start_on(
    limits: Limits,
    proxies: TrustedProxies,
    certificates: Option<Arc<Certificates>>,
) -> Running {
    let listener = Listener::tcp((Ipv4Addr::LOCALHOST, 0).into(), certificates).unwrap();
    let address = listener.local_address().unwrap();
    start_with(limits, proxies, listener, address).await
}

pub(crate) async fn start_with(
    limits: Limits,
    proxies: TrustedProxies,
    listener: Listener,
    address: SocketAddr,
) -> Running {
    let release = Arc::new(Semaphore::new(0));
    let (begun_in, begun) = mpsc::channel(64);
    let (dropped_in, dropped) = mpsc::channel(1_024);
    let hooks = Hooks { release: Arc::clone(&release), begun: begun_in, dropped: dropped_in };
    let clock = Arc::new(SteadyClock::start(Timestamp::EPOCH));
    let border = Border::new(proxies.clone(), clock, &SeededChance::new(1));
    let server = Server::new(border::finish(router(hooks), border), limits, proxies);
    let (stop, stopped) = watch::channel(false);
    let served = tokio::spawn(async move { server.serve(listener, stopped).await });
    Running { address, stop, served, release, begun, dropped }
}

fn router(hooks: Hooks) -> Router {
    Router::new()
        .route("/hello", get(async || Answer::ok(&"hello")))
        .route("/me", get(me))
        .route("/unchanged", get(async || StatusCode::NOT_MODIFIED))
        .route("/empty", get(async || StatusCode::NO_CONTENT))
        .route("/peer", get(async |Extension(peer): Extension<Peer>| format!("{peer:?}")))
        .route("/echo", post(echo))
        .route("/big", get(big))
        .route("/held", get(held))
        .route("/stream", get(stream_until_told))
        .layer(Extension(hooks))
}

async fn me(ClientAddress(address): ClientAddress) -> Json<IpAddr> {
    Json(address)
}

async fn echo(request: Request) -> Result<Bytes, ApiError> {
    http::body::read(request.into_body(), usize::MAX).await
}

async fn big(Extension(hooks): Extension<Hooks>) -> Body {
    const CHUNK: Bytes = Bytes::from_static(&[b'x'; 64 * 1024]);
    let tell = Tell(hooks.dropped);
    let chunks = stream::unfold((0, tell), async |(sent, tell)| {
        (sent < BIG_BYTES).then(|| (Ok::<_, ApiError>(CHUNK), (sent + CHUNK.len(), tell)))
    });
    Body::from_stream(chunks)
}

async fn held(Extension(hooks): Extension<Hooks>) -> StatusCode {
    hooks.begun.send(()).await.unwrap();
    hooks.release.acquire().await.unwrap().forget();
    StatusCode::OK
}

async fn stream_until_told(
    Extension(hooks): Extension<Hooks>,
    Extension(drain): Extension<Drain>,
) -> Body {
    hooks.begun.send(()).await.unwrap();
    let parts = stream::unfold((drain, 0), async |(mut drain, step)| match step {
        0 => Some((Ok::<_, ApiError>("begin;"), (drain, 1))),
        1 => {
            drain.requested().await;
            Some((Ok("told to go;"), (drain, 2)))
        }
        _ => None,
    });
    Body::from_stream(parts)
}

impl Running {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Connects as another host would.
    pub(crate) async fn connect_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::from(source), 0).into()).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// An ordinary client asks for the usual and gets it, soon.
    pub(crate) async fn serves_others(&self) {
        let answer = timeout(PATIENCE, self.ask("GET /hello HTTP/1.1\r\nconnection: close")).await;
        let answer = answer.expect("others are served");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    /// Sends a request without a body and reads until the server closes.
    pub(crate) async fn ask(&self, head: &str) -> String {
        let mut socket = self.connect().await;
        let request = format!("{head}\r\nhost: plane\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        rest(&mut socket).await
    }
}

/// Reads until the server closes, which has to be soon. A reset counts as closing.
pub(crate) async fn rest(socket: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, socket.read_to_end(&mut bytes)).await;
    drop(read.expect("the server closes the connection"));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `marker` has come.
pub(crate) async fn until(socket: &mut (impl AsyncRead + Unpin), marker: &str) -> String {
    let mut text = String::new();
    let reading = async {
        while !text.contains(marker) {
            let mut byte = [0];
            if socket.read(&mut byte).await.unwrap() == 0 {
                panic!("the server closed after {text:?}");
            }
            text.push(char::from(byte[0]));
        }
    };
    timeout(PATIENCE, reading).await.expect("the server answers");
    text
}

/// The time that `work` takes.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let start = Instant::now();
    let done = work.await;
    (start.elapsed(), done)
}
