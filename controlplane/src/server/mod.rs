//! The sockets: who may connect, how long everything may take, who is at the other end.
//!
//! axum's own `serve` limits nothing in time, so this is an accept loop of our own around its
//! router. Everything that a client can hold up has a limit in [`Limits`].

mod activity;
mod body;
mod certificate;
mod client_address;
mod connection;
mod io;
mod limits;
mod listener;
mod refusal;
mod seats;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

pub use self::activity::WRITE_PROGRESS_BYTES;
pub use self::certificate::{CertificateError, Pin, SelfSigned, pin, self_signed};
pub use self::client_address::{
    AddressError, ClientAddress, ForwardHeader, HOPS_MAX, TrustedProxies,
};
pub use self::connection::{Drain, Peer};
pub use self::limits::Limits;
pub use self::listener::{ListenError, Listener};
pub use self::tls::{Certificates, TlsError};

use self::connection::{Builder, Host};
use self::listener::Accepted;
use self::refusal::Refusal;
use self::seats::{Seat, Seats};

/// How long the accept loop rests when the process is out of file descriptors or memory.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves a router on any number of listeners, which share their limits.
#[derive(Clone)]
pub struct Server {
    host: Arc<Host>,
    seats: Arc<Seats>,
    refusals: Arc<Semaphore>,
}

impl Server {
    /// Makes a server for `router`, which should have its [border](crate::http::border) already.
    ///
    /// Connections without TLS from elsewhere than this machine are taken from `proxies` only.
    pub fn new(router: Router, limits: Limits, proxies: TrustedProxies) -> Server {
        Server {
            seats: Arc::new(Seats::new(limits.connections, limits.connections_by_peer)),
            refusals: Arc::new(Semaphore::new(refusal::LINGERING_MAX)),
            host: Arc::new(Host { builder: Builder::new(&limits), router, limits, proxies }),
        }
    }

    /// Takes connections from `listener` until `stop` turns true or its sender is gone; then
    /// lets requests finish for [`Limits::drain`] and returns when the last connection is gone.
    pub async fn serve(&self, mut listener: Listener, mut stop: watch::Receiver<bool>) {
        let (alive, mut all_gone) = tokio::sync::mpsc::channel::<()>(1);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(Some(accepted)) => self.admit(accepted, stop.clone(), alive.clone()),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot take connections just now");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
        drop(listener);
        drop(alive);
        // Every connection ends by itself at its drain limit; a little more is for the way out.
        let last = timeout(self.host.limits.drain + ACCEPT_REST, all_gone.recv()).await;
        if last.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }

    fn admit(
        &self,
        accepted: Accepted,
        stop: watch::Receiver<bool>,
        alive: tokio::sync::mpsc::Sender<()>,
    ) {
        match self.seat(&accepted) {
            Ok(seat) => {
                let host = Arc::clone(&self.host);
                tokio::spawn(async move {
                    host.serve(accepted, stop).await;
                    drop((seat, alive));
                });
            }
            Err(refusal) => {
                metrics::counter!("postern_connections_refused_total", "reason" => refusal.label())
                    .increment(1);
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    tokio::spawn(async move {
                        refusal.tell(accepted).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    /// Finds a seat for a connection, or says why there is none.
    fn seat(&self, accepted: &Accepted) -> Result<Seat, Refusal> {
        let Peer::Tcp { address, .. } = accepted.peer() else {
            return self.seats.take(None);
        };
        let address = address.ip().to_canonical();
        let is_proxy = self.host.proxies.trusts(address);
        if accepted.is_plain_from_afar() && !is_proxy {
            return Err(Refusal::PlainHttp);
        }
        self.seats.take((!is_proxy).then_some(address))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("limits", &self.host.limits).finish_non_exhaustive()
    }
}
