//! What an operator is told.

use std::net::IpAddr;

use postern_shared::digest::Digest;
use postern_shared::ids::{AgentId, EnrolmentId, Epoch, GroupId, KeyId, MemberId, PairId, UserId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use postern_shared::wire::v1::{AgentGroup, AgentUpdate, ListedEntry, Receipt};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::audit::{Hex, Line, Opening, Part, Place, RecordView, StrayRecord};
use crate::domain::{Email, Label, Role};
use crate::mail::Fate;

/// An answer with the plane's time at which it was true.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The plane's time.
    pub as_of: Timestamp,
    /// The answer.
    pub answer: Answer,
}

/// What became of an operation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant is its content")]
pub enum Answer {
    KeyMinted(MintedKey),
    Keys(Page<KeyView, KeyId>),
    PairAdded(AddedPair),
    Pairs(Page<PairView, u64>),
    GroupAdded(GroupView),
    Groups(Page<GroupView, u64>),
    Group(GroupList),
    MemberAdded(MemberView),
    Members(Page<MemberView, MemberId>),
    AgentInvited(Invitation),
    Agents(Page<AgentView, AgentId>),
    AgentGroupsSet(AgentView),
    /// A record is gone or dead.
    Removed(Named),
    PairClosed(PairView),
    KeyNarrowed(KeyView),
    BookmarkRotated(NewBookmark),
    ServerKeyRotated(NewServerKey),
    LockedKeyMinted(LockedKey),
    Audit(Page<RecordView, Place>),
    AuditOpened(AuditOpened),
    AuditPart(Part),
    AuditStray(AuditStray),
    UserInvited(UserLink),
    Users(Page<UserView, UserId>),
    UserRoleSet(UserView),
    UserRecovery(UserLink),
}

/// What an export of the audit holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditOpened {
    /// What its links and records are.
    pub opening: Opening,
    /// Its first lines.
    pub lines: Vec<Line>,
    /// The public half of the key that signs here, where there is one.
    pub key: Option<Hex<32>>,
}

/// Whether there is a record that no link has.
#[derive(Debug, Serialize, Deserialize)]
pub struct AuditStray {
    /// The first one.
    pub found: Option<StrayRecord>,
    /// Behind which key to look on, in hexadecimal digits; none at the end.
    pub next: Option<String>,
}

/// A part of a list, and behind which item the next part begins.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page<T, C> {
    /// The items, in the order of their ids.
    pub items: Vec<T>,
    /// The last of them, where there are more.
    pub next: Option<C>,
}

/// A secret on the one way on which it may be seen: to the operator who asked for it.
///
/// `Debug` does not show it; its text is wiped from memory when dropped.
#[derive(Debug, Clone)]
pub struct Revealed(SecretString);

/// Anything by its id and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The id, a UUID.
    pub id: String,
    /// The name.
    pub name: String,
}

/// A new key, with its secret.
#[derive(Debug, Serialize, Deserialize)]
pub struct MintedKey {
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
    /// Its secret (`pok_`), told once.
    pub secret: Revealed,
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub struct KeyView {
    pub id: KeyId,
    pub name: Label,
    pub scopes: ScopeSet,
    pub origins: Vec<OriginView>,
    pub created_at: Timestamp,
    pub expires_at: Expiry,
    pub revoked_at: Option<Timestamp>,
}

/// From where a key works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginView {
    /// From a network.
    Network(Network),
    /// From wherever a pair is.
    Pair(PairName),
}

/// A pair by id, number and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub struct PairName {
    pub id: PairId,
    pub number: u64,
    pub name: Label,
}

/// A new pair, with its secrets.
#[derive(Debug, Serialize, Deserialize)]
pub struct AddedPair {
    /// The pair.
    #[serde(flatten)]
    pub pair: PairView,
    /// The secret URL with which it reports, told once.
    pub bookmark: Revealed,
    /// The secret (`pos_`) with which one host reads it, told once.
    pub server_key: Revealed,
}

/// A pair with its new bookmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewBookmark {
    /// The pair.
    #[serde(flatten)]
    pub pair: PairView,
    /// The secret URL with which it reports from now on, told once.
    pub bookmark: Revealed,
}

/// A pair with its new server key.
#[derive(Debug, Serialize, Deserialize)]
pub struct NewServerKey {
    /// The pair.
    #[serde(flatten)]
    pub pair: PairView,
    /// The secret (`pos_`) with which one host reads it from now on, told once.
    pub server_key: Revealed,
}

/// A new key that works only from where its pair is, with the secrets of both.
#[derive(Debug, Serialize, Deserialize)]
pub struct LockedKey {
    /// The key, with its secret.
    #[serde(flatten)]
    pub minted: MintedKey,
    /// The secret URL with which its holder reports from where the key is to work, told once.
    pub bookmark: Revealed,
}

/// A pair without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub struct PairView {
    #[serde(flatten)]
    pub pair: PairName,
    pub contact_email: Option<Email>,
    /// In seconds.
    pub ttl: Ttl,
    pub reports_by_get: bool,
    pub created_at: Timestamp,
    /// Where it is, live or stale.
    pub addresses: Vec<AddressView>,
    /// When it was last heard of.
    pub last_seen: Option<Timestamp>,
}

/// An address of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressView {
    /// The address.
    pub address: IpAddr,
    /// When it goes stale.
    pub expires_at: Timestamp,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub struct GroupView {
    pub id: GroupId,
    pub number: u64,
    pub name: Label,
    /// In seconds.
    pub ttl: Option<Ttl>,
    pub created_at: Timestamp,
    /// How many members it has.
    pub members: usize,
    /// How many networks it allows now.
    pub entries: usize,
}

/// A group and what it allows.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the list's own, named as there")]
pub struct GroupList {
    pub group: GroupView,
    pub epoch: Epoch,
    pub revision: Revision,
    pub digest: Digest,
    /// What it allows, with the members that each network comes from.
    pub allowed: Page<ListedEntry, Network>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub struct MemberView {
    pub id: MemberId,
    #[serde(flatten)]
    pub kind: MemberKindView,
    pub expires_at: Expiry,
    pub added_at: Timestamp,
}

/// Who or what is a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub enum MemberKindView {
    Pair(PairName),
    Network { network: Network, note: Label },
}

/// An invitation for one agent, with its secret.
#[derive(Debug, Serialize, Deserialize)]
pub struct Invitation {
    /// The invitation.
    pub id: EnrolmentId,
    /// The name that the agent will have.
    pub name: Label,
    /// The groups that it will follow.
    pub groups: Vec<AgentGroup>,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What `postern-agent enroll` reads: URL, token and pin. Told once.
    pub invitation: Revealed,
}

/// An agent without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the record's own, named as there")]
pub struct AgentView {
    pub id: AgentId,
    pub name: Label,
    /// Its own pair.
    pub pair: PairId,
    pub groups: Vec<AgentGroup>,
    pub enrolled_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    /// When it last said anything since the plane started.
    pub last_seen: Option<Timestamp>,
    /// What the host is, as far as it said since the plane started.
    pub host: Option<AgentUpdate>,
    /// Its newest word on each target and group.
    pub receipts: Vec<Receipt>,
}

/// A link that lets one user in, once.
#[derive(Debug, Serialize, Deserialize)]
pub struct UserLink {
    /// The user.
    #[serde(flatten)]
    pub user: UserView,
    /// The link, told once.
    pub link: Revealed,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A user without what the user signs in with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserView {
    /// The user.
    pub id: UserId,
    /// Where the user gets mail, and the name to sign in with.
    pub email: Email,
    /// What the user may do.
    pub role: Role,
    /// Whether the user can sign in yet.
    pub state: UserState,
    /// When the user was first invited.
    pub created_at: Timestamp,
    /// In how many browsers the user is signed in.
    pub logins: usize,
    /// How many recovery codes are left.
    pub recovery_codes: usize,
    /// What became of the newest mail to the user, as far as the daemon knows.
    pub mail: Option<Fate>,
}

/// Whether a user can sign in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserState {
    /// Not before the invitation is accepted.
    Invited,
    /// Yes.
    Active,
}

impl Revealed {
    /// Wraps a secret text.
    pub fn new(text: String) -> Revealed {
        Revealed(text.into())
    }

    /// The secret itself, for the one moment in which it is shown.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Serialize for Revealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Revealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Revealed, D::Error> {
        String::deserialize(deserializer).map(Revealed::new)
    }
}

impl<T, C> Page<T, C> {
    /// A page with nothing on it.
    pub fn empty() -> Page<T, C> {
        Page { items: Vec::new(), next: None }
    }
}

impl Named {
    pub(super) fn new(id: impl ToString, name: Option<&Label>) -> Named {
        Named { id: id.to_string(), name: name.map(Label::to_string).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revealed_secret_is_not_in_debug_output() {
        let shown = format!("{:?}", Revealed::new("pob_secret".to_owned()));

        assert!(!shown.contains("secret\"") && !shown.contains("pob_"), "{shown}");
    }
}
