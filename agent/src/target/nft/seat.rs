//! One agent a table, on kernels whose tables cannot belong to a socket and outlive it.
//!
//! The seat is a socket with an abstract name: the kernel gives each name once in a network
//! namespace, which is what a table is in as well, and takes it back when its process ends, however
//! that ends.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use rustix::net::sockopt::socket_peercred;

use super::refusal;
use crate::target::TargetError;

/// How often a seat is asked for whose holder has gone just then.
const ATTEMPTS_MAX: usize = 3;

/// Held by the agent whose table it is; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    _name: UnixListener,
}

/// Takes the seat of a table, without waiting.
///
/// Names are free to every account, so only root's or our own agent's word counts: a stranger who
/// has taken the name keeps nobody from closing a door.
pub(super) fn take(table: &str) -> Result<Option<Seat>, TargetError> {
    let (mut stranger, mut failure) = (None, None);
    for _ in 0..ATTEMPTS_MAX {
        match ask(table) {
            Ok(Asked::Free(seat)) => return Ok(Some(seat)),
            Ok(Asked::Taken { pid, uid }) if is_trusted(uid) => {
                return Err(TargetError::Busy { holder: refusal::holder(pid) });
            }
            Ok(Asked::Taken { pid, .. }) => stranger = Some(pid),
            Ok(Asked::Leaving) => {}
            Err(error) => failure = Some(error),
        }
    }
    tracing::warn!(
        table,
        stranger,
        error = failure.map(tracing::field::display),
        "nobody keeps a second agent from this table"
    );
    Ok(None)
}

enum Asked {
    Free(Seat),
    Taken { pid: u32, uid: u32 },
    Leaving,
}

fn ask(table: &str) -> io::Result<Asked> {
    let name = SocketAddr::from_abstract_name(format!("postern-agent/inet/{table}"))?;
    match UnixListener::bind_addr(&name) {
        Ok(listener) => return Ok(Asked::Free(Seat { _name: listener })),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => return Err(error),
    }
    let holder = match UnixStream::connect_addr(&name) {
        Ok(holder) => holder,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok(Asked::Leaving),
        Err(error) => return Err(error),
    };
    let peer = socket_peercred(holder.as_fd())?;
    let pid = u32::try_from(peer.pid.as_raw_pid()).unwrap_or_default();
    Ok(Asked::Taken { pid, uid: peer.uid.as_raw() })
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}
