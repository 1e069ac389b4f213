//! A report of an address, and its answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// `POST /b/{bookmark}`: the address reported is the caller's own and never a field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeaconRequest {
    /// The visit of an earlier report of the other family, so that both addresses are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visit: Option<String>,
}

/// What a report led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeaconAnswer {
    /// The IPv4 address that the pair now has.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that the pair now has.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether this report changed an address.
    pub moved: bool,
    /// When the address goes stale unless it is reported again; agents know this deadline too.
    pub expires_at: Timestamp,
    /// Seconds after which to report again.
    pub next: u64,
    /// Names this visit for 60 s: a report of the other family that carries it adds to this one
    /// in place of replacing it.
    pub visit: String,
    /// How far the hosts have confirmed.
    pub confirmation: Confirmation,
}

/// How many targets have confirmed that the address is open. Those that `open`, `held` and `failed`
/// leave of `of` have said nothing yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Targets that have it open.
    pub open: u32,
    /// Targets that should.
    pub of: u32,
    /// Targets whose host's local policy holds part of the list back, maybe this address.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub held: u32,
    /// Targets that could not put the list in force; their agents go on trying.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub failed: u32,
}

impl Confirmation {
    /// Targets that have said nothing about it yet.
    pub fn outstanding(&self) -> u32 {
        let said = self.open.saturating_add(self.held).saturating_add(self.failed);
        self.of.saturating_sub(said)
    }
}

/// Ordinary answers name only what every version knows.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over by reference")]
fn is_none_of_them(count: &u32) -> bool {
    *count == 0
}
