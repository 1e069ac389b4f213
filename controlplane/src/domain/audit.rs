//! What happened, who did it and from where.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_shared::ids::{AgentId, EnrolmentId, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use super::key::Origin;
use super::text::{Email, Label};

/// One thing that happened. Written in the transaction of the change itself, never altered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Whose audit it belongs to.
    pub org: OrgId,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// From which address, where there was one.
    pub source: Option<IpAddr>,
    /// What.
    pub event: Event,
}

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Actor {
    /// The operator, on the control plane's host.
    Operator,
    /// The holder of an API key.
    Key(KeyId),
    /// The holder of a pair's bookmark.
    Pair(PairId),
    /// An agent.
    Agent(AgentId),
    /// The holder of an invitation.
    Enrolment(EnrolmentId),
}

/// What happened. Names are kept as they were at the time.
///
/// Stored by position: new variants and fields go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the records' own, named as there")]
pub enum Event {
    /// An org began, with its first admin.
    OrgCreated { org: OrgId, name: Label, admin: UserId, email: Email },
    /// An API key was minted.
    KeyMinted { key: KeyId, name: Label, scopes: ScopeSet, origins: Vec<Origin> },
    /// An API key was revoked.
    KeyRevoked { key: KeyId, name: Label },
    /// A pair was made.
    PairCreated { pair: PairId, number: u64, name: Label },
    /// A pair was edited; name and lifetime as they are since.
    PairEdited { pair: PairId, name: Label, ttl: Ttl },
    /// A pair was deleted, and its secrets with it.
    PairDeleted { pair: PairId, name: Label },
    /// A pair reported; the addresses as they are since.
    PairReported { pair: PairId, ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>, moved: bool },
    /// A group was made.
    GroupCreated { group: GroupId, number: u64, name: Label },
    /// A group was edited; name and lifetime as they are since.
    GroupEdited { group: GroupId, name: Label, ttl: Option<Ttl> },
    /// A group was deleted.
    GroupDeleted { group: GroupId, name: Label },
    /// A member was added to a group.
    MemberAdded { group: GroupId, member: MemberId, name: Label },
    /// A member was taken out of a group.
    MemberRemoved { group: GroupId, member: MemberId, name: Option<Label> },
    /// An agent was invited.
    AgentInvited { enrolment: EnrolmentId, name: Label },
    /// An agent enrolled.
    AgentEnrolled { agent: AgentId, pair: PairId, name: Label },
    /// An agent was given other groups.
    AgentRegrouped { agent: AgentId, groups: BTreeSet<GroupId> },
    /// An agent was revoked, and its pair deleted.
    AgentRevoked { agent: AgentId, name: Label },
    /// A host said that a list is not in force.
    ReceiptFailed { agent: AgentId, target: Label, group: GroupId, detail: String },
    /// A pair was given another bookmark; what the old one reported closed.
    BookmarkRotated { pair: PairId, name: Label },
    /// A pair was given another server key.
    ServerKeyRotated { pair: PairId, name: Label },
}
