//! The same elements as bare netlink messages: what a load costs the kernel at least.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
    sockopt,
};

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;
const NFPROTO_INET: u8 = 1;
const NFT_SET_TIMEOUT: u32 = 0x10;
const TABLE: &[u8] = b"floor\0";

/// Loads `keys` with a timeout into a new hash set in one transaction; answers how long that took.
pub(crate) fn load(keys: &[Vec<u8>]) -> anyhow::Result<Duration> {
    let socket = open()?;
    let key_bytes = keys.first().map_or(4, Vec::len) as u32;
    commit(&socket, Batch::new().table(NFT_MSG_NEWTABLE).set(key_bytes, keys.len() as u32))?;
    let start = Instant::now();
    let mut batch = Batch::new();
    for chunk in keys.chunks(1_000) {
        batch = batch.elements(chunk);
    }
    commit(&socket, batch)?;
    let took = start.elapsed();
    commit(&socket, Batch::new().table(NFT_MSG_DELTABLE))?;
    Ok(took)
}

/// The bytes of an IPv4 address as a set holds them.
pub(crate) fn v4(address: Ipv4Addr) -> Vec<u8> {
    address.octets().to_vec()
}

/// The bytes of an IPv6 address as a set holds them.
pub(crate) fn v6(address: Ipv6Addr) -> Vec<u8> {
    address.octets().to_vec()
}

fn open() -> anyhow::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
    sockopt::set_socket_send_buffer_size_force(&socket, 64 << 20)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}

/// Sends a batch in one datagram and waits for the last acknowledgement.
fn commit(socket: &OwnedFd, batch: Batch) -> anyhow::Result<()> {
    let (bytes, last) = batch.finish();
    anyhow::ensure!(send(socket, &bytes, SendFlags::empty())? == bytes.len());
    let mut answer = vec![0; 1 << 16];
    loop {
        let (length, _) = recv(socket, &mut answer[..], RecvFlags::empty())?;
        let mut rest = &answer[..length];
        while 16 <= rest.len() {
            let size = u32::from_ne_bytes(rest[..4].try_into()?) as usize;
            let kind = u16::from_ne_bytes(rest[4..6].try_into()?);
            let sequence = u32::from_ne_bytes(rest[8..12].try_into()?);
            if kind == NLMSG_ERROR {
                let error = i32::from_ne_bytes(rest[16..20].try_into()?);
                anyhow::ensure!(error == 0, std::io::Error::from_raw_os_error(-error));
                if sequence == last {
                    return Ok(());
                }
            }
            rest = &rest[(size.next_multiple_of(4)).min(rest.len())..];
        }
    }
}

struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    fn new() -> Batch {
        let mut batch = Batch { bytes: Vec::with_capacity(1 << 16), sequence: 0 };
        let begin = batch.begin(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0, 10);
        batch.end(begin);
        batch
    }

    fn finish(mut self) -> (Vec<u8>, u32) {
        // The end itself is acknowledged by newer kernels only: ask for the message before it.
        let last = self.sequence;
        let end = self.begin(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 0, 10);
        self.end(end);
        (self.bytes, last)
    }

    fn table(mut self, kind: u16) -> Batch {
        let message = self.begin_nft(kind, NLM_F_CREATE);
        self.attribute(1, TABLE);
        self.end(message);
        self
    }

    fn set(mut self, key_bytes: u32, size: u32) -> Batch {
        let message = self.begin_nft(NFT_MSG_NEWSET, NLM_F_CREATE);
        self.attribute(1, TABLE);
        self.attribute(2, b"set\0");
        self.attribute(3, &NFT_SET_TIMEOUT.to_be_bytes());
        self.attribute(4, &7_u32.to_be_bytes());
        self.attribute(5, &key_bytes.to_be_bytes());
        let description = self.nest(9);
        self.attribute(1, &size.to_be_bytes());
        self.unnest(description);
        self.attribute(10, &1_u32.to_be_bytes());
        self.end(message);
        self
    }

    fn elements(mut self, keys: &[Vec<u8>]) -> Batch {
        const TIMEOUT_MS: u64 = 3_600_000;
        let message = self.begin_nft(NFT_MSG_NEWSETELEM, NLM_F_CREATE);
        self.attribute(1, TABLE);
        self.attribute(2, b"set\0");
        let list = self.nest(3);
        for key in keys {
            let element = self.nest(1);
            let data = self.nest(1);
            self.attribute(1, key);
            self.unnest(data);
            self.attribute(4, &TIMEOUT_MS.to_be_bytes());
            self.unnest(element);
        }
        self.unnest(list);
        self.end(message);
        self
    }

    fn begin_nft(&mut self, kind: u16, flags: u16) -> usize {
        let kind = NFNL_SUBSYS_NFTABLES | kind;
        self.begin(kind, NLM_F_REQUEST | NLM_F_ACK | flags, NFPROTO_INET, 0)
    }

    fn begin(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        self.sequence += 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0, 0, 0, 0, family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn nest(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        start
    }

    fn unnest(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}
