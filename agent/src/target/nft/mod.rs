//! nftables: the kernel's own firewall, through one netlink socket and never through the program
//! `nft`.
//!
//! Two ways to use it. A [`GateTarget`] owns a table that drops whatever is not on a list, for the
//! ports that it protects. A [`SetsTarget`] fills sets of a table that the operator wrote.
//! Both tell the kernel the deadline of every entry, so that it closes whatever becomes of us.

mod conntrack;
mod gate;
mod kernel;
mod link;
mod read;
mod refusal;
mod rules;
mod seat;
mod sets;
mod socket;
mod steps;
mod sys;
mod wire;

pub use gate::GateTarget;
pub use gate::config::{ConfigError, GateConfig, OnExpiry, Ownership, Ports, Protocol, Service};
pub use sets::{SetsConfig, SetsTarget, TableFamily};
pub(crate) use sys::{give_back_memory, watch};

/// What the kernel and the host can do, to be held back by force: for older kernels and containers
/// without privilege, and for tests that act like them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NftOptions {
    /// Never uses what Linux 6.9 has for tables that belong to a socket and outlive it.
    pub no_owner: bool,
    /// Never uses what Linux 6.3 has for deleting what may be gone.
    pub no_destroy: bool,
    /// Asks for a send buffer of this many bytes instead of taking what a large load needs.
    pub send_bytes: Option<usize>,
    /// Asks for a receive buffer of this many bytes.
    pub receive_bytes: Option<usize>,
}

impl NftOptions {
    fn buffers(&self) -> socket::Buffers {
        socket::Buffers { send_bytes: self.send_bytes, receive_bytes: self.receive_bytes }
    }
}

/// The kernel's number for family `inet`, which holds rules for IPv4 and IPv6.
const FAMILY_INET: u8 = 1;
