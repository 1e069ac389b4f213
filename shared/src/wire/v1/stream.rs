//! What a follower is sent: server-sent events, one JSON object each.

use serde::{Deserialize, Serialize};

use super::list::Entry;
use crate::digest::Digest;
use crate::ids::{Epoch, GroupId};
use crate::network::Network;
use crate::position::Revision;
use crate::time::Timestamp;

/// The whole list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The group.
    pub group: GroupId,
    /// The life of the store.
    pub epoch: Epoch,
    /// The commit that last changed the list.
    pub revision: Revision,
    /// The plane's time of this message; every entry is later.
    pub as_of: Timestamp,
    /// The digest of `entries`.
    pub digest: Digest,
    /// What is allowed, in the order of the networks.
    pub entries: Vec<Entry>,
}

/// The difference between two states of the list. An entry that only changes its expiry is in
/// `add`. Expiry itself is never told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The group.
    pub group: GroupId,
    /// The life of the store.
    pub epoch: Epoch,
    /// The revision that this applies to.
    pub from: Revision,
    /// The digest, at `as_of`, of the list that this applies to.
    pub base: Digest,
    /// The revision that it leads to.
    pub revision: Revision,
    /// The plane's time of this message.
    pub as_of: Timestamp,
    /// The digest, at `as_of`, of the list that it leads to.
    pub digest: Digest,
    /// Networks that are allowed, or allowed until another time.
    pub add: Vec<Entry>,
    /// Networks that are allowed no longer.
    pub remove: Vec<Network>,
}

/// The follower has the newest list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Same {
    /// The group.
    pub group: GroupId,
    /// The life of the store.
    pub epoch: Epoch,
    /// The commit that last changed the list.
    pub revision: Revision,
    /// The plane's time of this message.
    pub as_of: Timestamp,
    /// The digest of the entries later than `as_of`.
    pub digest: Digest,
}

/// The follower may not read this group (any more), or there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// The group.
    pub group: GroupId,
}

/// One event of the stream. On the wire the variant is the event's name, its content the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// `same`.
    Same(Same),
    /// `delta`.
    Delta(Delta),
    /// `snapshot`.
    Snapshot(Snapshot),
    /// `withdrawn`.
    Withdrawn(Withdrawn),
}

impl StreamEvent {
    /// The event's name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            StreamEvent::Same(_) => "same",
            StreamEvent::Delta(_) => "delta",
            StreamEvent::Snapshot(_) => "snapshot",
            StreamEvent::Withdrawn(_) => "withdrawn",
        }
    }

    /// The group that the event is about.
    pub const fn group(&self) -> GroupId {
        match self {
            StreamEvent::Same(same) => same.group,
            StreamEvent::Delta(delta) => delta.group,
            StreamEvent::Snapshot(snapshot) => snapshot.group,
            StreamEvent::Withdrawn(withdrawn) => withdrawn.group,
        }
    }

    /// Writes the event as one server-sent event, the empty line at its end included.
    pub fn to_sse(&self) -> Result<String, serde_json::Error> {
        let data = match self {
            StreamEvent::Same(same) => serde_json::to_string(same),
            StreamEvent::Delta(delta) => serde_json::to_string(delta),
            StreamEvent::Snapshot(snapshot) => serde_json::to_string(snapshot),
            StreamEvent::Withdrawn(withdrawn) => serde_json::to_string(withdrawn),
        }?;
        Ok(format!("event: {}\ndata: {data}\n\n", self.name()))
    }

    /// Reads an event from its name and its data. `None` for a name that this version does not
    /// know, which a reader passes over.
    pub fn from_sse(name: &str, data: &str) -> Option<Result<StreamEvent, serde_json::Error>> {
        Some(match name {
            "same" => serde_json::from_str(data).map(StreamEvent::Same),
            "delta" => serde_json::from_str(data).map(StreamEvent::Delta),
            "snapshot" => serde_json::from_str(data).map(StreamEvent::Snapshot),
            "withdrawn" => serde_json::from_str(data).map(StreamEvent::Withdrawn),
            _ => return None,
        })
    }
}
