//! What happened, who did it and from where.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use postern_shared::ids::{AgentId, EnrolmentId, GroupId, KeyId, MemberId, OrgId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use super::group::MemberKind;
use super::key::Origin;
use super::org::Role;
use super::pair::Spot;
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
#[serde(rename_all = "snake_case")]
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
    /// Nobody that is known.
    Unknown,
    /// A user.
    User(UserId),
}

/// A kind of those who do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the actor's")]
pub enum ActorKind {
    Operator,
    User,
    Key,
    Pair,
    Agent,
    Enrolment,
    Unknown,
}

/// Why a request was refused, as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The secret is unknown, revoked or expired.
    WrongSecret,
    /// The secret counts, but not from that address.
    ForbiddenOrigin,
    /// The key lacks a scope.
    InsufficientScope,
    /// A budget of requests was used up.
    RateLimited,
    /// A bookmark has moved too often.
    MovedTooOften,
}

/// Where a pair is, and how long that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whereabouts {
    /// How long an address counts after its report.
    pub ttl: Ttl,
    /// Its IPv4 address.
    pub ipv4: Option<Spot<Ipv4Addr>>,
    /// Its IPv6 address.
    pub ipv6: Option<Spot<Ipv6Addr>>,
}

/// What happened. Names are kept as they were at the time.
///
/// Stored by position: new variants go to the end, and a variant's fields stay as they are. Shown
/// by name. What a group allowed at any time can be worked out from these alone
/// ([`History`](super::History)), so each carries all that such a replay needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the records' own, named as there")]
pub enum Event {
    /// An org began, with its first admin.
    OrgCreated { org: OrgId, name: Label, admin: UserId, email: Email },
    /// An API key was minted.
    KeyMinted { key: KeyId, name: Label, scopes: ScopeSet, origins: Vec<Origin>, expires: Expiry },
    /// An API key was revoked.
    KeyRevoked { key: KeyId, name: Label },
    /// A pair was made.
    PairCreated { pair: PairId, number: u64, name: Label, ttl: Ttl },
    /// A pair was edited; everything as it is since.
    PairEdited {
        pair: PairId,
        name: Label,
        ttl: Ttl,
        contact_email: Option<Email>,
        reports_by_get: bool,
    },
    /// A pair was deleted, and its secrets with it.
    PairDeleted { pair: PairId, name: Label },
    /// A pair reported; the addresses as they are since.
    PairReported {
        pair: PairId,
        ipv4: Option<Spot<Ipv4Addr>>,
        ipv6: Option<Spot<Ipv6Addr>>,
        moved: bool,
    },
    /// A group was made.
    GroupCreated { group: GroupId, number: u64, name: Label, ttl: Option<Ttl> },
    /// A group was edited; name and lifetime as they are since.
    GroupEdited { group: GroupId, name: Label, ttl: Option<Ttl> },
    /// A group was deleted.
    GroupDeleted { group: GroupId, name: Label },
    /// A member was added to a group; of a pair with where it was then.
    MemberAdded {
        group: GroupId,
        member: MemberId,
        name: Label,
        kind: MemberKind,
        expires: Expiry,
        whereabouts: Option<Whereabouts>,
    },
    /// A member was taken out of a group.
    MemberRemoved { group: GroupId, member: MemberId, name: Option<Label>, kind: MemberKind },
    /// An agent was invited.
    AgentInvited {
        enrolment: EnrolmentId,
        name: Label,
        groups: BTreeSet<GroupId>,
        expires_at: Timestamp,
    },
    /// An agent enrolled.
    AgentEnrolled { agent: AgentId, pair: PairId, name: Label, groups: BTreeSet<GroupId> },
    /// An agent was given other groups.
    AgentRegrouped { agent: AgentId, groups: BTreeSet<GroupId> },
    /// An agent was revoked, and its pair deleted.
    AgentRevoked { agent: AgentId, name: Label, pair: PairId },
    /// A host said that a list is not in force.
    ReceiptFailed { agent: AgentId, target: Label, group: GroupId, detail: String },
    /// A pair was given another bookmark; what the old one reported closed.
    BookmarkRotated { pair: PairId, name: Label },
    /// A pair was given another server key.
    ServerKeyRotated { pair: PairId, name: Label },
    /// Requests of the actor were refused, so often since; the record's address is the last one's.
    RequestsRefused { refusal: Refusal, count: u32, since: Timestamp },
    /// A user was invited.
    UserInvited { user: UserId, email: Email, role: Role },
    /// A user used an invitation or a recovery: password and authenticator are new.
    UserAccepted { user: UserId, email: Email },
    /// Somebody tried to sign in, or to prove a second factor. Without a record of success behind
    /// it, the try failed.
    SignInTried { user: UserId },
    /// A user signed in.
    SignedIn { user: UserId, by_recovery_code: bool },
    /// Logins of a user ended by hand.
    SignedOut { user: UserId, logins: u32 },
    /// A user's password was set anew, and other logins ended.
    PasswordSet { user: UserId, by_reset: bool },
    /// A link to reset the password was asked for.
    ResetRequested { user: UserId },
    /// The operator made a link that resets password and authenticator.
    RecoveryIssued { user: UserId, email: Email },
    /// A user enrolled another authenticator.
    AuthenticatorReplaced { user: UserId },
    /// A user made new recovery codes; the old ones are worth nothing.
    RecoveryCodesReplaced { user: UserId },
    /// A user has another role.
    UserRoleSet { user: UserId, email: Email, role: Role },
    /// A user was removed.
    UserRemoved { user: UserId, email: Email },
    /// An API key lost rights or origins; both as they are since.
    KeyNarrowed { key: KeyId, name: Label, scopes: ScopeSet, origins: Vec<Origin> },
    /// What a pair had reported was closed by hand; its bookmark stays.
    AddressesClosed { pair: PairId, name: Label },
    /// A pair's bookmark is mailed to its owner: recorded first, so that none goes out unrecorded.
    BookmarkMailed { pair: PairId, name: Label, to: Email },
}

impl ActorKind {
    /// All kinds.
    pub const ALL: [ActorKind; 7] = [
        ActorKind::Operator,
        ActorKind::User,
        ActorKind::Key,
        ActorKind::Pair,
        ActorKind::Agent,
        ActorKind::Enrolment,
        ActorKind::Unknown,
    ];

    /// Its name, as the audit shows it.
    pub const fn name(self) -> &'static str {
        match self {
            ActorKind::Operator => "operator",
            ActorKind::User => "user",
            ActorKind::Key => "key",
            ActorKind::Pair => "pair",
            ActorKind::Agent => "agent",
            ActorKind::Enrolment => "enrolment",
            ActorKind::Unknown => "unknown",
        }
    }
}

impl Actor {
    /// Its kind.
    pub const fn kind(self) -> ActorKind {
        match self {
            Actor::Operator => ActorKind::Operator,
            Actor::User(_) => ActorKind::User,
            Actor::Key(_) => ActorKind::Key,
            Actor::Pair(_) => ActorKind::Pair,
            Actor::Agent(_) => ActorKind::Agent,
            Actor::Enrolment(_) => ActorKind::Enrolment,
            Actor::Unknown => ActorKind::Unknown,
        }
    }

    /// The bytes of its id, where it has one.
    pub fn id(self) -> Option<[u8; 16]> {
        match self {
            Actor::Operator | Actor::Unknown => None,
            Actor::User(id) => Some(*id.as_bytes()),
            Actor::Key(id) => Some(*id.as_bytes()),
            Actor::Pair(id) => Some(*id.as_bytes()),
            Actor::Agent(id) => Some(*id.as_bytes()),
            Actor::Enrolment(id) => Some(*id.as_bytes()),
        }
    }
}

impl Event {
    /// Says whether it names a group: what happened to the group, to who is in it, and to the hosts
    /// that follow it. Where its pairs are is no part of that.
    pub fn names_group(&self, id: GroupId) -> bool {
        match self {
            Event::GroupCreated { group, .. }
            | Event::GroupEdited { group, .. }
            | Event::GroupDeleted { group, .. }
            | Event::MemberAdded { group, .. }
            | Event::MemberRemoved { group, .. }
            | Event::ReceiptFailed { group, .. } => *group == id,
            Event::AgentInvited { groups, .. }
            | Event::AgentEnrolled { groups, .. }
            | Event::AgentRegrouped { groups, .. } => groups.contains(&id),
            Event::OrgCreated { .. }
            | Event::KeyMinted { .. }
            | Event::KeyRevoked { .. }
            | Event::KeyNarrowed { .. }
            | Event::PairCreated { .. }
            | Event::PairEdited { .. }
            | Event::PairDeleted { .. }
            | Event::PairReported { .. }
            | Event::AgentRevoked { .. }
            | Event::BookmarkRotated { .. }
            | Event::ServerKeyRotated { .. }
            | Event::RequestsRefused { .. }
            | Event::UserInvited { .. }
            | Event::UserAccepted { .. }
            | Event::SignInTried { .. }
            | Event::SignedIn { .. }
            | Event::SignedOut { .. }
            | Event::PasswordSet { .. }
            | Event::ResetRequested { .. }
            | Event::RecoveryIssued { .. }
            | Event::AuthenticatorReplaced { .. }
            | Event::RecoveryCodesReplaced { .. }
            | Event::UserRoleSet { .. }
            | Event::UserRemoved { .. }
            | Event::AddressesClosed { .. }
            | Event::BookmarkMailed { .. } => false,
        }
    }
}

impl Whereabouts {
    /// The addresses, each as a network of one with the time of its report.
    pub fn networks(&self) -> impl Iterator<Item = (Network, Timestamp)> + use<> {
        let v4 = self.ipv4.map(|spot| (Network::host(spot.address.into()), spot.at));
        let v6 = self.ipv6.map(|spot| (Network::host(spot.address.into()), spot.at));
        v4.into_iter().chain(v6)
    }
}
