//! The policy of the host itself, which no control plane can change.
//!
//! [`LocalPolicy`] says what may ever be open here; [`Accepted`] holds the list of one group to it.

mod accepted;
mod findings;
#[cfg(test)]
mod tests;
mod why;

use std::fmt;

pub use accepted::Accepted;
pub use findings::Findings;
pub use why::{Match, Standing};

use crate::network::{Family, Network, Ungrantable};
use crate::time::Ttl;

/// What this host lets any control plane open, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPolicy {
    /// Shortest IPv4 prefix that is accepted. Default 24: the size of an office's network, and
    /// 65,536 of them are needed to open the world.
    pub widest_v4: u8,
    /// Shortest IPv6 prefix that is accepted. Default 48: what one site is given (RFC 6177).
    pub widest_v6: u8,
    /// Most entries of one group. Default [`LocalPolicy::ENTRIES_MAX`].
    pub entries_max: usize,
    /// Longest time that an entry stays open without word from the control plane. Default 7 days:
    /// an outage over a long weekend shuts nobody out, and a forgotten host closes within a week.
    pub ttl_max: Ttl,
    /// Networks of which no address may be opened. Default none.
    pub denied: Vec<Network>,
    /// Whether networks for private use are accepted. Default yes: in a LAN or behind a VPN they
    /// are the addresses that peers really have.
    pub allow_private: bool,
    /// Networks that are always open, so that nobody is locked out. They come first: what they
    /// cover is accepted even where the rest of this policy would refuse it. Default none.
    pub failsafe: Vec<Network>,
}

/// Why the local policy refuses an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Holds addresses that no remote peer can have.
    Ungrantable(Ungrantable),
    /// Wider than [`LocalPolicy::widest_v4`] or [`LocalPolicy::widest_v6`], which is `widest`.
    TooWide {
        /// The shortest prefix of this family that is accepted.
        widest: u8,
    },
    /// Overlaps a network that is denied.
    Denied {
        /// The denied network.
        by: Network,
    },
    /// For private use, where the policy accepts none.
    Private,
}

/// An entry that the local policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The entry.
    pub network: Network,
    /// What is wrong with it.
    pub reason: Reason,
}

impl LocalPolicy {
    /// 131,072: the 100,000 entries that the agent's memory and speed are measured with, and room.
    pub const ENTRIES_MAX: usize = 1 << 17;

    /// Says why `network` may not be opened on this host, if it may not.
    pub fn judge(&self, network: Network) -> Option<Reason> {
        if self.failsafe.iter().any(|failsafe| failsafe.covers(network)) {
            return None;
        }
        let widest = match network.family() {
            Family::V4 => self.widest_v4,
            Family::V6 => self.widest_v6,
        };
        let denied = || self.denied.iter().find(|denied| denied.overlaps(network)).copied();
        if let Some(why) = network.ungrantable() {
            Some(Reason::Ungrantable(why))
        } else if network.prefix() < widest {
            Some(Reason::TooWide { widest })
        } else if let Some(by) = denied() {
            Some(Reason::Denied { by })
        } else if network.is_private() && !self.allow_private {
            Some(Reason::Private)
        } else {
            None
        }
    }

    /// The same policy with every fail-safe network named once, so that they can be counted.
    fn tidied(mut self) -> LocalPolicy {
        self.failsafe.sort();
        self.failsafe.dedup();
        self
    }

    /// Says whether `network` is one of the fail-safe networks itself.
    fn is_failsafe(&self, network: Network) -> bool {
        self.failsafe.contains(&network)
    }
}

impl Default for LocalPolicy {
    fn default() -> LocalPolicy {
        const SECS_MAX: u64 = 7 * 86_400;
        LocalPolicy {
            widest_v4: 24,
            widest_v6: 48,
            entries_max: LocalPolicy::ENTRIES_MAX,
            ttl_max: Ttl::from_secs(SECS_MAX).expect("seven days are a lifetime"),
            denied: Vec::new(),
            allow_private: true,
            failsafe: Vec::new(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Ungrantable(why) => write!(f, "holds {why}, which are never opened"),
            Reason::TooWide { widest } => {
                write!(f, "is wider than /{widest}, the widest that the local policy accepts")
            }
            Reason::Denied { by } => write!(f, "overlaps {by}, which the local policy denies"),
            Reason::Private => f.write_str("is private, which the local policy does not accept"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.network, self.reason)
    }
}
