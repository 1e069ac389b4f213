//! What the command line and the daemon say to each other: a line of JSON each.

use postern_shared::time::{Expiry, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest question.
pub(crate) const REQUEST_BYTES_MAX: u64 = 4_096;
/// Longest answer: the plan of a first load, entry by entry.
pub(crate) const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// How are you? Answered by [`crate::status::Status`].
    Status,
    /// Does this address get in? Answered by [`Why`].
    Why { address: std::net::IpAddr, port: Option<u16> },
    /// What would a pass change? Answered by a list of [`Planned`].
    Plan,
    /// Empty the targets, and keep them so. Answered by a list of [`Flushed`].
    Flush,
    /// Withdraw what the brake holds, of one group or of all. Answered by [`Confirmed`].
    Accept { group: Option<String> },
    /// Read the configuration again. Answered by [`Reloaded`].
    Reload,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Ok(Value),
    Error(String),
}

/// Whether an address gets in, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Why {
    pub(crate) address: std::net::IpAddr,
    pub(crate) as_of: Timestamp,
    pub(crate) verdicts: Vec<Verdict>,
}

/// What one service, or one pair of sets, says to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) target: String,
    /// The service; absent where the operator's own rules decide.
    pub(crate) service: Option<String>,
    pub(crate) ports: Vec<String>,
    /// Whether the address gets in; where the operator's own rules decide, whether the sets hold
    /// it. `None` where that is not known.
    pub(crate) is_open: Option<bool>,
    /// Until when; the latest of the entries in force.
    pub(crate) until: Option<Timestamp>,
    pub(crate) entries: Vec<Found>,
    /// What else is to be known of the target, such as that it waits for a list.
    pub(crate) note: Option<String>,
}

/// An entry that holds the address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) group: String,
    pub(crate) network: String,
    pub(crate) expires_at: Expiry,
    pub(crate) is_open: bool,
    /// How the entry stands, in words.
    pub(crate) standing: String,
}

/// What a pass over one target would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    pub(crate) target: String,
    /// How many entries would change.
    pub(crate) changes: usize,
    /// The target's own words; empty where nothing is to be done.
    pub(crate) text: String,
    /// Why nothing can be said.
    pub(crate) error: Option<String>,
}

/// How the flush of one target went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flushed {
    pub(crate) target: String,
    pub(crate) error: Option<String>,
}

/// How the sweep of one target went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sweep {
    pub(crate) target: String,
    /// Overdue entries that were taken away.
    pub(crate) removed: Vec<String>,
    /// Overdue entries that are still there.
    pub(crate) left: Vec<String>,
    /// Why it is not known whether anything overdue is there.
    pub(crate) error: Option<String>,
}

/// What was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmed {
    pub(crate) withdrawn: usize,
}

/// The configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    pub(crate) targets: usize,
}
