//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Request, Response, StatusCode, Version};
use futures_util::TryFutureExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tower::Service as _;

use crate::server::activity::{Activity, SharedActivity, Verdict};
use crate::server::body::{FinishedBody, LimitedBody, NotedBody, Running};
use crate::server::client_address::TrustedProxies;
use crate::server::io::Noted;
use crate::server::limits::Limits;
use crate::server::listener::Accepted;

/// The other end of a request's socket; an extension of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A TCP peer. Behind proxies this is the last of them: the caller's address is
    /// [`ClientAddress`](crate::server::ClientAddress).
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// Whether the connection is encrypted.
        is_tls: bool,
    },
    /// A process on this machine, over the Unix socket.
    Unix {
        /// Its user, as the kernel says.
        uid: u32,
        /// Its number, where the kernel says.
        pid: Option<i32>,
    },
}

/// Tells a long answer when its connection has to end; an extension of each request.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Waits until the answer should end: the server stops, or the connection has its age.
    pub async fn requested(&mut self) {
        // A sender that is gone has taken its connection with it.
        drop(self.0.wait_for(|requested| *requested).await);
    }
}

/// The builder of connections, by what the client was heard to speak.
pub(crate) struct Builder {
    either: auto::Builder<TokioExecutor>,
    http1: auto::Builder<TokioExecutor>,
    http2: auto::Builder<TokioExecutor>,
}

impl Builder {
    pub(crate) fn new(limits: &Limits) -> Builder {
        let mut either = auto::Builder::new(TokioExecutor::new());
        // A head has to fit into the buffer.
        either.http1().max_buf_size(limits.head_bytes).max_headers(limits.fields);
        either
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_pending_accept_reset_streams(limits.resets)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .keep_alive_interval(limits.ping)
            .keep_alive_timeout(limits.pong);
        let http1 = either.clone().http1_only();
        let http2 = either.clone().http2_only();
        Builder { either, http1, http2 }
    }

    fn for_alpn(&self, protocol: Option<&[u8]>) -> &auto::Builder<TokioExecutor> {
        match protocol {
            Some(b"h2") => &self.http2,
            Some(_) | None => &self.http1,
        }
    }
}

/// What all connections of a server share.
pub(crate) struct Host {
    pub(crate) builder: Builder,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) proxies: TrustedProxies,
}

impl Host {
    /// Serves one connection until it ends.
    pub(crate) async fn serve(&self, accepted: Accepted, stop: watch::Receiver<bool>) {
        let peer = accepted.peer().clone();
        let now = Instant::now();
        let activity = SharedActivity::new(Activity::new(now, now + self.age()));
        match accepted {
            Accepted::Tcp { stream, tls: None, .. } => {
                let socket = Noted::new(stream, activity.clone());
                self.speak(&self.builder.either, socket, peer, activity, stop).await;
            }
            Accepted::Unix { stream, .. } => {
                let socket = Noted::new(stream, activity.clone());
                self.speak(&self.builder.either, socket, peer, activity, stop).await;
            }
            Accepted::Tcp { stream, tls: Some(certificates), .. } => {
                let socket = Noted::new(stream, activity.clone());
                let within = self.limits.handshake;
                // Apart, so that its memory is given back when it is over.
                let handshake = Box::pin(async move {
                    let socket = timeout(within, certificates.acceptor().accept(socket)).await?;
                    Ok::<_, Elapsed>(socket.map(Box::new))
                });
                let socket = match handshake.await {
                    Ok(Ok(socket)) => socket,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, ?peer, "no TLS handshake");
                        return;
                    }
                    Err(_) => {
                        ended("handshake", &peer);
                        return;
                    }
                };
                let builder = self.builder.for_alpn(socket.get_ref().1.alpn_protocol());
                // Handshakes cost time that is not the first request's.
                *activity.lock() = Activity::after_handshake(Instant::now(), now + self.age());
                self.speak(builder, socket, peer, activity, stop).await;
            }
        }
    }

    /// How long a connection may live: between three quarters and five quarters of the limit,
    /// so that connections that were made together do not end together.
    fn age(&self) -> std::time::Duration {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Multiples of the golden ratio, fractions only, spread evenly without chance.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let spread = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN) >> 32;
        let spread = u32::try_from(spread).unwrap_or(u32::MAX);
        self.limits.age.mul_f64(0.75 + f64::from(spread) / f64::from(u32::MAX) / 2.0)
    }

    /// Speaks HTTP until the connection ends. What that takes is made here and not in the future, which
    /// would keep room for both ends of every move.
    fn speak<'h, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &'h self,
        builder: &'h auto::Builder<TokioExecutor>,
        socket: S,
        peer: Peer,
        activity: SharedActivity,
        mut stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + use<'h, S> {
        let (go, drain) = watch::channel(false);
        let request = Requests {
            router: self.router.clone(),
            limits: (self.limits.body_bytes, self.limits.body),
            peer: peer.clone(),
            activity: activity.clone(),
            drain: Drain(drain),
        };
        let service = service_fn(move |incoming| request.clone().answer(incoming));
        let mut connection = Box::pin(builder.serve_connection(TokioIo::new(socket), service));
        async move {
            // Set once the connection is on its way out: when it is over, whatever still runs.
            let mut last: Option<Instant> = None;
            let mut look = Instant::now();
            loop {
                let leave = || {
                    go.send_replace(true);
                    Some(Instant::now() + self.limits.drain)
                };
                tokio::select! {
                    biased;
                    outcome = connection.as_mut() => {
                        if let Err(error) = outcome {
                            tracing::debug!(error, ?peer, "connection failed");
                        }
                        return;
                    }
                    _ = stop.wait_for(|stop| *stop), if last.is_none() => {
                        last = leave();
                        connection.as_mut().graceful_shutdown();
                    }
                    () = sleep_until(last.map_or(look, |last| last.min(look))) => {
                        let now = Instant::now();
                        if last.is_some_and(|last| last <= now) {
                            return;
                        }
                        let verdict = activity.lock().verdict(&self.limits, now);
                        match verdict {
                            Verdict::Wait(until) => look = until,
                            Verdict::Close(reason) => {
                                ended(reason.label(), &peer);
                                return;
                            }
                            Verdict::GoAway(reason) => {
                                look = now + self.limits.drain;
                                if last.is_none() {
                                    ended(reason.label(), &peer);
                                    last = leave();
                                    connection.as_mut().graceful_shutdown();
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What the requests of one connection have in common.
#[derive(Clone)]
struct Requests {
    router: Router,
    limits: (usize, std::time::Duration),
    peer: Peer,
    activity: SharedActivity,
    drain: Drain,
}

impl Requests {
    /// Answers a request. What that takes is made here and not in the future, which would keep room for
    /// the request and for the answer side by side.
    fn answer(
        mut self,
        incoming: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<NotedBody>, Infallible>> + Send + use<> {
        let is_http2 = incoming.version() == Version::HTTP_2;
        let running = Running::begin(&self.activity, is_http2);
        let (bytes_max, within) = self.limits;
        let mut request = incoming.map(|body| {
            let body = LimitedBody::new(body, bytes_max, within);
            if is_http2 { Body::new(FinishedBody::new(body)) } else { Body::new(body) }
        });
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.drain);
        let answer = self.router.call(request);
        answer.map_ok(|response| finish(response).map(|body| NotedBody::new(body, running)))
    }
}

/// Takes the length out of an answer that has no body, where axum says that of an empty one: of 204 none
/// may be said, and of 304 it would be that of what the client has (RFC 9110, section 8.6).
fn finish(mut response: Response<Body>) -> Response<Body> {
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

fn ended(reason: &'static str, peer: &Peer) {
    metrics::counter!("postern_connections_ended_total", "reason" => reason).increment(1);
    tracing::debug!(reason, ?peer, "ended a connection at its limit");
}
