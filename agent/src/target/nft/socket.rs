//! The netlink socket: one transaction in one message, its acknowledgement, dumps.
//!
//! The kernel answers within the call that sends, so that what was said is already in the receive
//! queue; nothing here waits for anybody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use postern_shared::failpoint;
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use tokio::io::unix::AsyncFd;

use super::sys::{self, Sealed};
use super::wire::{self, Attributes, Message, Request};

/// A transaction of 100,000 elements takes 4 MB.
const SEND_BYTES: usize = 64 << 20;
const RECEIVE_BYTES: usize = 4 << 20;
/// The kernel never sends more at once in a dump.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Failures kept of one transaction; the rest say no more than these.
const FAILURES_MAX: usize = 4096;
/// Only a kernel that lost its answer makes us wait for it.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

pub(super) const NFT: u16 = 10 << 8;
pub(super) const ACK: u16 = 0x4;
pub(super) const DUMP: u16 = 0x300;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const DUMP_INTERRUPTED: u16 = 0x10;
const GET_GENERATION: u16 = NFT | 16;
const GENERATION_ID: u16 = 1;
const NFTABLES_GROUP: i32 = 7;

/// Buffers of the socket, for what may need other ones than usual.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Buffers {
    /// Asks for this send buffer without privilege, as an unprivileged container gets it.
    pub(super) send_bytes: Option<usize>,
    /// Asks for this receive buffer without privilege.
    pub(super) receive_bytes: Option<usize>,
}

/// A socket for requests and their answers. A table made with the owner flag belongs to it.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    port: u32,
    sequence: u32,
    send_bytes_max: usize,
    buffer: Vec<u8>,
}

/// What became of a transaction that was not acknowledged.
#[derive(Debug)]
pub(super) enum CommitError {
    /// The kernel refused it; nothing of it is in force.
    Refused(Vec<Failure>),
    /// It is longer than the socket may send; nothing of it is in force.
    TooLong,
    /// The answer is lost: it is in force, or it is not.
    Unknown(io::Error),
}

/// What the kernel did not like about one message of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) errno: Errno,
    /// Sequence number of the message.
    pub(super) message: u32,
    /// The failure is not one of a message but of the whole.
    pub(super) whole: bool,
    /// The set that the message was about, when it was about elements.
    pub(super) set: Option<String>,
    /// The key of the element that failed.
    pub(super) key: Option<Vec<u8>>,
    /// The kernel's own words.
    pub(super) text: Option<String>,
}

impl Connection {
    /// Opens a socket for netfilter.
    pub(super) fn open(buffers: Buffers) -> io::Result<Connection> {
        let connection = Connection::bind(Some(netlink::NETFILTER), buffers)?;
        let socket = connection.socket.as_fd();
        sys::set_netlink_option(socket, libc::NETLINK_EXT_ACK, 1)?;
        sys::set_netlink_option(socket, libc::NETLINK_CAP_ACK, 1)?;
        Ok(connection)
    }

    /// Opens a socket for questions about routes.
    pub(super) fn open_route() -> io::Result<Connection> {
        // The protocol for routes is the one without a number.
        Connection::bind(None, Buffers::default())
    }

    fn bind(protocol: Option<rustix::net::Protocol>, buffers: Buffers) -> io::Result<Connection> {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        match buffers.send_bytes {
            Some(bytes) => sockopt::set_socket_send_buffer_size(&socket, bytes)?,
            // Refused in a container without privilege: then large loads go in several steps.
            None => drop(sockopt::set_socket_send_buffer_size_force(&socket, SEND_BYTES)),
        }
        match buffers.receive_bytes {
            Some(bytes) => sockopt::set_socket_recv_buffer_size(&socket, bytes)?,
            None => drop(sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BYTES)),
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_WAIT))?;
        let address = SocketAddrNetlink::try_from(rustix::net::getsockname(&socket)?)?;
        // The kernel keeps this much of the buffer for itself.
        const RESERVED_BYTES: usize = 32;
        let send_bytes_max = sockopt::socket_send_buffer_size(&socket)? - RESERVED_BYTES;
        Ok(Connection {
            socket,
            port: address.pid(),
            sequence: 0,
            send_bytes_max,
            buffer: vec![0; DATAGRAM_BYTES_MAX],
        })
    }

    /// The number that the kernel knows this socket by.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Bytes that one transaction may have.
    pub(super) fn send_bytes_max(&self) -> usize {
        self.send_bytes_max
    }

    /// Sends one transaction and reads what the kernel says to it.
    pub(super) fn commit(&mut self, batch: &Sealed) -> Result<(), CommitError> {
        self.forget_answers();
        failpoint::reach("nft::before_send").map_err(CommitError::Unknown)?;
        match rustix::net::send(&self.socket, &batch.bytes, SendFlags::empty()) {
            Ok(_) => {
                failpoint::reach("nft::after_send").map_err(CommitError::Unknown)?;
                self.read_acknowledgements(batch)
            }
            Err(Errno::MSGSIZE) => Err(CommitError::TooLong),
            // Refused before the kernel looked at it.
            Err(errno @ (Errno::NOBUFS | Errno::NOMEM)) => Err(refused_whole(errno)),
            Err(errno) => Err(CommitError::Unknown(errno.into())),
        }
    }

    fn read_acknowledgements(&mut self, batch: &Sealed) -> Result<(), CommitError> {
        let mut failures = Vec::new();
        loop {
            let received =
                rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT);
            let (length, _) = received.map_err(|errno| CommitError::Unknown(errno.into()))?;
            for message in wire::messages(&self.buffer[..length]) {
                let Some(errno) = errno_of(&message) else { continue };
                let whole = message.sequence == batch.first;
                if errno != 0 && failures.len() < FAILURES_MAX {
                    failures.push(explain(&message, errno, whole, batch));
                }
                if message.sequence == batch.last || (whole && errno != 0) {
                    let refused = !failures.is_empty();
                    return if refused { Err(CommitError::Refused(failures)) } else { Ok(()) };
                }
            }
        }
    }

    /// Sends a request and hands every answer to `each`. Answers whether the kernel says that the
    /// ruleset changed while it was listing it.
    pub(super) fn ask(
        &mut self,
        request: Request,
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<bool> {
        self.forget_answers();
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.finish(self.sequence);
        rustix::net::send(&self.socket, &request, SendFlags::empty())?;
        let mut interrupted = false;
        loop {
            let (length, _) =
                rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            for message in wire::messages(&self.buffer[..length]) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & DUMP_INTERRUPTED != 0;
                if message.kind != KIND_DONE && message.kind != KIND_ERROR {
                    each(&message);
                    continue;
                }
                return match errno_of(&message) {
                    Some(0) => Ok(interrupted),
                    Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                    None => Err(io::ErrorKind::InvalidData.into()),
                };
            }
        }
    }

    /// The number of the ruleset that is in force; every transaction of anybody counts it up.
    pub(super) fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.ask(Request::new(GET_GENERATION, ACK, 0), |message| {
            generation = generation.or(message.attributes().u32(GENERATION_ID));
        })?;
        generation.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Throws away answers that nobody waited for.
    fn forget_answers(&mut self) {
        let flags = RecvFlags::DONTWAIT;
        while !matches!(
            rustix::net::recv(&self.socket, &mut self.buffer[..], flags),
            Err(Errno::AGAIN)
        ) {}
    }
}

fn refused_whole(errno: Errno) -> CommitError {
    let failure = Failure { errno, message: 0, whole: true, set: None, key: None, text: None };
    CommitError::Refused(vec![failure])
}

/// The error number in an acknowledgement, positive; `None` for any other message.
fn errno_of(message: &Message<'_>) -> Option<i32> {
    if message.kind != KIND_ERROR && message.kind != KIND_DONE {
        return None;
    }
    wire::u32_native(message.body.get(..4)?).map(|errno| errno.cast_signed().wrapping_neg())
}

/// Reads an extended acknowledgement: which message, which element, which words.
fn explain(answer: &Message<'_>, errno: i32, whole: bool, batch: &Sealed) -> Failure {
    const TEXT: u16 = 1;
    const OFFSET: u16 = 2;
    let details = extended_attributes(answer);
    let offset = details.get(OFFSET).and_then(wire::u32_native);
    let about = wire::messages(&batch.bytes).find(|sent| sent.sequence == answer.sequence);
    let (set, key) = match about {
        Some(sent) if !whole => element_at(&sent, offset),
        Some(_) | None => (None, None),
    };
    let text = details.text(TEXT).map(str::to_owned);
    let errno = Errno::from_raw_os_error(errno);
    Failure { errno, message: answer.sequence, whole, set, key, text }
}

/// The attributes behind the copy of the message's header.
fn extended_attributes<'a>(answer: &Message<'a>) -> Attributes<'a> {
    const CAPPED: u16 = 0x100;
    const HAS_ATTRIBUTES: u16 = 0x200;
    const ERRNO_BYTES: usize = 4;
    if answer.flags & HAS_ATTRIBUTES == 0 {
        return Attributes::new(&[]);
    }
    let copied = answer.body.get(ERRNO_BYTES..).unwrap_or_default();
    let copied_bytes = match answer.flags & CAPPED {
        0 => copied
            .get(..4)
            .and_then(wire::u32_native)
            .map_or(0, |length| (length as usize + 3) & !3),
        _ => wire::HEADER_BYTES,
    };
    Attributes::new(copied.get(copied_bytes..).unwrap_or_default())
}

/// The set that a message of elements was about, and the key of the element at `offset`.
fn element_at(sent: &Message<'_>, offset: Option<u32>) -> (Option<String>, Option<Vec<u8>>) {
    const SET_NAME: u16 = 2;
    const LIST: u16 = 3;
    const KEY: u16 = 1;
    const VALUE: u16 = 1;
    const ATTRIBUTE_BYTES: usize = 4;
    if !matches!(sent.kind & 0xff, 12 | 14 | 30) || sent.kind & 0xff00 != NFT {
        return (None, None);
    }
    let start = sent.whole.as_ptr().addr();
    let mut elements = sent.attributes().nested(LIST);
    let failed = elements.find(|element| {
        let at = element.value.as_ptr().addr() - start - ATTRIBUTE_BYTES;
        offset.is_some_and(|offset| offset as usize == at)
    });
    let key = failed.and_then(|element| {
        Attributes::new(element.value).nested(KEY).get(VALUE).map(<[u8]>::to_vec)
    });
    (sent.attributes().text(SET_NAME).map(str::to_owned), key)
}

/// A socket that hears of every change to the ruleset by anybody.
#[derive(Debug)]
pub(super) struct Listener {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

/// What a listener heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Heard {
    /// Something of the table was changed, or something may have been missed.
    pub(super) ours: bool,
    /// The number of the last transaction heard of.
    pub(super) generation: Option<u32>,
}

impl Listener {
    /// Opens the socket; it hears nothing before [`Listener::listen`].
    pub(super) fn open(buffers: Buffers) -> io::Result<Listener> {
        let Connection { socket, buffer, .. } =
            Connection::bind(Some(netlink::NETFILTER), buffers)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Listener { socket: sys::watch(socket)?, buffer })
    }

    /// Resolves when there is something to drain; never where the runtime is shutting down.
    pub(super) async fn wait(&self) {
        match self.socket.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Starts to hear.
    pub(super) fn listen(&self) -> io::Result<()> {
        sys::set_netlink_option(
            self.socket.get_ref().as_fd(),
            libc::NETLINK_ADD_MEMBERSHIP,
            NFTABLES_GROUP,
        )
    }

    /// Stops to hear.
    pub(super) fn ignore(&self) -> io::Result<()> {
        sys::set_netlink_option(
            self.socket.get_ref().as_fd(),
            libc::NETLINK_DROP_MEMBERSHIP,
            NFTABLES_GROUP,
        )
    }

    /// Reads all that has been heard, without waiting.
    pub(super) fn drain(&mut self, family: u8, table: &str) -> Heard {
        const NEW_GENERATION: u16 = NFT | 15;
        const TABLE_NAME: u16 = 1;
        let mut heard = Heard::default();
        loop {
            match rustix::net::recv(
                self.socket.get_ref(),
                &mut self.buffer[..],
                RecvFlags::DONTWAIT,
            ) {
                Ok((length, _)) => {
                    for message in wire::messages(&self.buffer[..length]) {
                        let attributes = message.attributes();
                        if message.kind == NEW_GENERATION {
                            heard.generation = attributes.u32(GENERATION_ID).or(heard.generation);
                        } else {
                            heard.ours |= message.family() == family
                                && attributes.text(TABLE_NAME) == Some(table);
                        }
                    }
                }
                Err(Errno::AGAIN) => return heard,
                // The queue overflowed: whatever came may have been ours.
                Err(Errno::NOBUFS) => heard.ours = true,
                Err(Errno::INTR) => {}
                Err(_) => return Heard { ours: true, ..heard },
            }
        }
    }
}
