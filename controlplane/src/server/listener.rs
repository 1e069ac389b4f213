//! Where connections come from: TCP with or without TLS, and a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::server::connection::Peer;
use crate::server::tls::Certificates;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;

/// How long a silent connection rests before the kernel asks whether the peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// How long sent bytes may go without a sign from the peer before the kernel gives it up.
const UNANSWERED_MAX: Duration = Duration::from_secs(60);

/// Takes connections.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp { listener: TcpListener, certificates: Option<Arc<Certificates>> },
    Unix { listener: UnixListener, path: PathBuf },
}

/// Why no connections can be taken at an address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The TCP address cannot be had.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The socket file cannot be made.
    #[error("cannot listen on {}", path.display())]
    Unix {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another process answers at the socket file.
    #[error("another process listens on {}; stop it first", .0.display())]
    InUse(PathBuf),
    /// Something else is where the socket file should be.
    #[error("{} is no socket; remove it or configure another path", .0.display())]
    NotASocket(PathBuf),
}

/// A connection that was taken and not yet spoken on.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp { stream: TcpStream, peer: Peer, is_from_afar: bool, tls: Option<Arc<Certificates>> },
    Unix { stream: UnixStream, peer: Peer },
}

impl Listener {
    /// Listens on a TCP address; with `certificates` it speaks TLS only.
    pub fn tcp(
        address: SocketAddr,
        certificates: Option<Arc<Certificates>>,
    ) -> Result<Listener, ListenError> {
        let listen = || {
            let socket =
                if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        let listener = listen().map_err(|source| ListenError::Tcp { address, source })?;
        Ok(Listener(Kind::Tcp { listener, certificates }))
    }

    /// Listens on a socket file that only the daemon's own user and root can use. Takes over a
    /// file that a dead process left behind.
    pub fn unix(path: &Path) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Unix { path: path.to_owned(), source };
        remove_stale(path)?;
        let listener = bind_private(path).map_err(|errno| failed(errno.into()))?;
        let listener = std::os::unix::net::UnixListener::from(listener);
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Listener(Kind::Unix { listener, path: path.to_owned() }))
    }

    /// The TCP address that it listens on: with port 0 configured, the one that was given.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Kind::Tcp { listener, .. } => listener.local_addr().ok(),
            Kind::Unix { .. } => None,
        }
    }

    /// Takes the next connection. `None` is one that was gone or refused at once.
    pub(crate) async fn accept(&mut self) -> io::Result<Option<Accepted>> {
        match &self.0 {
            Kind::Tcp { listener, certificates } => {
                let Some((stream, address)) = unless_gone(listener.accept().await)? else {
                    return Ok(None);
                };
                let Ok(is_from_afar) = prepare(&stream, address) else { return Ok(None) };
                let tls = certificates.clone();
                let peer = Peer::Tcp { address, is_tls: tls.is_some() };
                Ok(Some(Accepted::Tcp { stream, peer, is_from_afar, tls }))
            }
            Kind::Unix { listener, .. } => {
                let Some((stream, _)) = unless_gone(listener.accept().await)? else {
                    return Ok(None);
                };
                let Ok(credentials) = stream.peer_cred() else { return Ok(None) };
                let (uid, pid) = (credentials.uid(), credentials.pid());
                if !is_operator(uid, rustix::process::geteuid().as_raw()) {
                    tracing::warn!(uid, pid, "refused a process of another user");
                    return Ok(None);
                }
                Ok(Some(Accepted::Unix { stream, peer: Peer::Unix { uid, pid } }))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Kind::Unix { path, .. } = &self.0
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "could not remove the socket file");
        }
    }
}

impl Accepted {
    pub(crate) fn peer(&self) -> &Peer {
        match self {
            Accepted::Tcp { peer, .. } | Accepted::Unix { peer, .. } => peer,
        }
    }

    /// Says whether secrets would cross a network in the clear.
    pub(crate) fn is_plain_from_afar(&self) -> bool {
        match self {
            Accepted::Tcp { is_from_afar, tls, .. } => *is_from_afar && tls.is_none(),
            Accepted::Unix { .. } => false,
        }
    }

    /// The socket, if HTTP without TLS is spoken on it over TCP.
    pub(crate) fn into_plain(self) -> Option<TcpStream> {
        match self {
            Accepted::Tcp { stream, tls: None, .. } => Some(stream),
            Accepted::Tcp { tls: Some(_), .. } | Accepted::Unix { .. } => None,
        }
    }
}

/// Only the daemon's own user and root may give it orders.
fn is_operator(uid: u32, own_uid: u32) -> bool {
    const ROOT: u32 = 0;
    uid == own_uid || uid == ROOT
}

/// Sets the options of a socket. Returns whether the peer is another machine.
fn prepare(stream: &TcpStream, peer: SocketAddr) -> io::Result<bool> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_AFTER)?;
    let unanswered_ms = u32::try_from(UNANSWERED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, unanswered_ms)?;
    Ok(is_from_afar(peer, stream.local_addr()?))
}

/// Says whether what is sent between the two addresses crosses a network.
fn is_from_afar(peer: SocketAddr, own: SocketAddr) -> bool {
    let is_here = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    !is_here(peer) && !is_here(own)
}

/// Takes the errors of single connections out of those of the listener.
fn unless_gone<T>(accepted: io::Result<T>) -> io::Result<Option<T>> {
    const OF_ONE: [io::ErrorKind; 3] = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionRefused,
    ];
    match accepted {
        Ok(accepted) => Ok(Some(accepted)),
        Err(error) if OF_ONE.contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a socket file at which nobody listens any more.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Makes a socket file with mode 0600. Nobody can connect before the mode is set: the socket
/// does not listen until then.
fn bind_private(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
    rustix::net::listen(&socket, i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_the_own_user_and_root_are_operators() {
        assert!(is_operator(1_000, 1_000));
        assert!(is_operator(0, 1_000));
        assert!(!is_operator(1_001, 1_000));
        assert!(!is_operator(1_000, 0));
    }

    #[test]
    fn only_what_stays_on_the_loopback_interface_crosses_no_network() {
        let from =
            |peer: &str, own: &str| is_from_afar(peer.parse().unwrap(), own.parse().unwrap());

        assert!(!from("127.0.0.1:1", "127.0.0.1:80"));
        assert!(!from("[::1]:1", "[::1]:80"));
        assert!(!from("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:80"));
        assert!(from("203.0.113.7:1", "198.51.100.1:80"));
        assert!(from("10.0.0.2:1", "10.0.0.1:80"));
    }

    #[tokio::test]
    async fn the_socket_file_is_private_and_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");

        let listener = Listener::unix(&path).unwrap();

        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Listener::unix(&path).unwrap_err(), ListenError::InUse(_)));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_process_leaves_the_way_free_and_a_file_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(Listener::unix(&path).unwrap());
        std::fs::write(&path, "precious").unwrap();

        assert!(matches!(Listener::unix(&path).unwrap_err(), ListenError::NotASocket(_)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
