//! The allowlist of a group.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{Epoch, GroupId};
use crate::network::{Family, Network};
use crate::position::Revision;
use crate::time::{Expiry, Timestamp};

/// One allowed network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// The network.
    pub cidr: Network,
    /// The plane's time at which it closes; null for never.
    pub expires_at: Expiry,
}

/// `GET /api/v1/groups/{id}/ips`: what is allowed at `as_of`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupIps {
    /// The group.
    pub group: GroupId,
    /// The networks alone; a host without its prefix length.
    pub ips: Vec<String>,
    /// The networks with their expiry, and from whom they come.
    pub entries: Vec<ListedEntry>,
    /// The plane's time of this answer.
    pub as_of: Timestamp,
    /// The life of the store.
    pub epoch: Epoch,
    /// The commit that last changed the list.
    pub revision: Revision,
    /// The digest of the entries.
    pub digest: Digest,
}

/// One allowed network as people and scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ListedEntry {
    /// The network.
    pub cidr: Network,
    /// Its family: 4 or 6.
    pub family: u8,
    /// When it closes; null for never.
    pub expires_at: Expiry,
    /// The members that it comes from; agents are not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

/// A member that an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Source {
    /// What kind of member.
    pub kind: SourceKind,
    /// The id of the pair, or of the member itself for a fixed network.
    pub id: String,
    /// The name of the pair, or the note of a fixed network.
    pub name: String,
}

/// The kinds of member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A roving person, device or server.
    Pair,
    /// A fixed network.
    Network,
}

impl ListedEntry {
    /// Shows an entry with its sources.
    pub fn new(entry: Entry, sources: Vec<Source>) -> ListedEntry {
        let family = match entry.cidr.family() {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        ListedEntry { cidr: entry.cidr, family, expires_at: entry.expires_at, sources }
    }
}
