//! What an operator can ask for.

use std::fmt;
use std::str::FromStr;

use postern_shared::ids::{AgentId, KeyId, MemberId, UserId};
use postern_shared::network::Network;
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use crate::audit::{Filter, Opening, Place};
use crate::domain::{Email, Label, Role};

/// One thing that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The org that it is about; needed where there is more than one.
    pub org: Option<Reference>,
    /// What to do.
    pub operation: Operation,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the records' own, named as there")]
pub enum Operation {
    /// Mints an API key.
    MintKey { name: Label, scopes: ScopeSet, origins: Vec<OriginAsked>, lifetime: Option<Ttl> },
    /// Lists API keys behind `after`; without `all` those that are not revoked.
    ListKeys { all: bool, after: Option<KeyId> },
    /// Revokes an API key.
    RevokeKey { key: Reference },
    /// Makes a pair.
    AddPair { name: Label, email: Option<Email>, ttl: Option<Ttl>, reports_by_get: bool },
    /// Lists pairs behind the running number `after`.
    ListPairs { after: Option<u64> },
    /// Deletes a pair.
    RemovePair { pair: Reference },
    /// Makes a group.
    AddGroup { name: Label, ttl: Option<Ttl> },
    /// Lists groups behind the running number `after`.
    ListGroups { after: Option<u64> },
    /// Shows a group, and what it allows behind the network `after`.
    ShowGroup { group: Reference, after: Option<Network> },
    /// Lists the members of a group behind `after`.
    ListMembers { group: Reference, after: Option<MemberId> },
    /// Deletes a group with its members.
    RemoveGroup { group: Reference },
    /// Adds a member to a group.
    AddMember { group: Reference, member: MemberAsked, expires: MemberEnd },
    /// Takes a member out of a group: its id, its pair, or its network.
    RemoveMember { group: Reference, member: Reference },
    /// Invites an agent.
    InviteAgent { name: Label, groups: Vec<Reference>, lifetime: Ttl },
    /// Lists agents behind `after`; without `all` those that are not revoked.
    ListAgents { all: bool, after: Option<AgentId> },
    /// Gives an agent other groups.
    SetAgentGroups { agent: Reference, groups: Vec<Reference> },
    /// Revokes an agent and deletes its pair.
    RevokeAgent { agent: Reference },
    /// Closes what a pair has reported, until it reports again.
    ClosePair { pair: Reference },
    /// Takes scopes and origins away from an API key; none leaves all.
    NarrowKey { key: Reference, scopes: Option<ScopeSet>, origins: Option<Vec<OriginAsked>> },
    /// Gives a pair another bookmark: the old one dies, and what it reported closes.
    RotateBookmark { pair: Reference },
    /// Gives a pair another server key: the old one dies.
    RotateServerKey { pair: Reference },
    /// Mints an API key together with a pair of the same name, and locks it to where that is.
    MintLockedKey { name: Label, scopes: ScopeSet, lifetime: Option<Ttl> },
    /// Lists the newest records of the audit that are older than `after`: those of the org, or of
    /// no org at all. `group` is that of the filter, as somebody wrote it.
    ListAudit {
        no_org: bool,
        filter: Filter,
        group: Option<Reference>,
        limit: usize,
        after: Option<Place>,
    },
    /// Says what an export of the audit holds: of one org, or of the whole plane.
    OpenAudit { since: Option<Timestamp>, until: Option<Timestamp> },
    /// Reads the lines of an export from a link on.
    ReadAudit { opening: Opening, from: u64 },
    /// Looks behind a key for records that no link has.
    FindStray { after: Option<String> },
    /// Invites a user; `mail` has the daemon mail the link as well.
    InviteUser { email: Email, role: Role, mail: bool },
    /// Lists users behind `after`.
    ListUsers { after: Option<UserId> },
    /// Gives a user another role.
    SetUserRole { user: Reference, role: Role },
    /// Removes a user.
    RemoveUser { user: Reference },
    /// Makes a link that resets a user's password and authenticator.
    RecoverUser { user: Reference },
}

/// A name, a running number or a UUID, as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(String);

/// A text that can name nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write what it goes by, {REFERENCE_CHARS_MAX} characters at most")]
pub struct ReferenceError;

/// Longest reference, in characters: no name or mail address is longer.
const REFERENCE_CHARS_MAX: usize = 254;

/// From where a key is to work. Written `network` or `pair:reference`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginAsked {
    /// From a network.
    Network(Network),
    /// From wherever a pair is.
    Pair(Reference),
}

/// Who or what is to be a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MemberAsked {
    /// A pair.
    Pair(Reference),
    /// A fixed network, and what it is in words.
    #[expect(missing_docs, reason = "the fields are the record's own")]
    Network { network: Network, note: Label },
}

/// When a membership is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberEnd {
    /// At a time, or never.
    At(Expiry),
    /// So long after it begins.
    After(Ttl),
}

impl Reference {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        let text = text.trim();
        if text.is_empty() || REFERENCE_CHARS_MAX < text.chars().count() {
            return Err(ReferenceError);
        }
        Ok(Reference(text.to_owned()))
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Reference, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OriginAsked {
    type Err = String;

    fn from_str(text: &str) -> Result<OriginAsked, String> {
        match text.strip_prefix("pair:") {
            Some(pair) => pair.parse().map(OriginAsked::Pair).map_err(|error| error.to_string()),
            None => text
                .parse()
                .map(OriginAsked::Network)
                .map_err(|error| format!("{error}; or pair: and the pair's name, number or UUID")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_networks_or_pairs() {
        let network: OriginAsked = "203.0.113.0/24".parse().unwrap();
        let pair: OriginAsked = "pair:laptop".parse().unwrap();

        assert_eq!(network, OriginAsked::Network("203.0.113.0/24".parse().unwrap()));
        assert_eq!(pair, OriginAsked::Pair("laptop".parse().unwrap()));
        for text in ["", "pair:", "pair: ", "laptop", "203.0.113.1/24"] {
            text.parse::<OriginAsked>().expect_err(text);
        }
    }

    #[test]
    fn a_reference_is_never_empty_nor_longer_than_a_name() {
        for text in ["", " ", &"x".repeat(255)] {
            text.parse::<Reference>().expect_err(text);
        }
        assert_eq!(" padded ".parse::<Reference>().unwrap().as_str(), "padded");
    }
}
