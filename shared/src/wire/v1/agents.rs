//! What agents say and are told, apart from the lists.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::ids::{AgentId, Epoch, GroupId};
use crate::position::Revision;

/// `POST /api/v1/agents/enroll`, with an enrolment token as the bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// What the host calls itself.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub host: String,
    /// The agent's version.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub version: String,
}

/// The credential of a new agent: told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrolAnswer {
    /// The agent.
    pub agent: AgentId,
    /// Its name in the org.
    pub name: String,
    /// The agent's credential (`poa_`).
    pub token: String,
    /// The bookmark (`pob_`) with which the host reports its own address.
    pub bookmark: String,
    /// The groups that it may follow.
    pub groups: Vec<AgentGroup>,
}

/// A group that an agent may follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentGroup {
    /// The group.
    pub id: GroupId,
    /// Its running number in the org.
    pub number: u64,
    /// Its name.
    pub name: String,
}

/// `PUT /api/v1/agents/self`: what the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AgentUpdate {
    /// What the host calls itself.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub host: String,
    /// The agent's version.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub version: String,
    /// Its targets.
    #[cfg_attr(feature = "openapi", schema(max_items = 256))]
    pub targets: Vec<TargetStatus>,
}

/// One target of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TargetStatus {
    /// Its name in the agent's configuration.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub name: String,
    /// What it is, such as `nftables`.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub kind: String,
    /// The groups that it is kept equal to.
    pub groups: Vec<GroupId>,
}

/// The answer to an update: what the agent is in the org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentSelf {
    /// The agent.
    pub agent: AgentId,
    /// Its name in the org.
    pub name: String,
    /// The groups that it may follow.
    pub groups: Vec<AgentGroup>,
}

/// `POST /api/v1/agents/self/receipts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Receipts {
    /// The agent's word on each of its targets and groups, newest last.
    #[cfg_attr(feature = "openapi", schema(max_items = 1_024))]
    pub receipts: Vec<Receipt>,
}

/// An agent's word on what is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The target's name in the agent's configuration.
    #[cfg_attr(feature = "openapi", schema(schema_with = crate::openapi::label))]
    pub target: String,
    /// The group.
    pub group: GroupId,
    /// The life of the store that the list came from.
    pub epoch: Epoch,
    /// The revision of the list.
    pub revision: Revision,
    /// The digest of the list.
    pub digest: Digest,
    /// Whether it is in force.
    pub state: ReceiptState,
    /// How many entries are in force.
    pub entries: u64,
    /// What went wrong or was held back, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How far a list got at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReceiptState {
    /// All of it is in force.
    Applied,
    /// The host's local policy holds part of it back.
    Held,
    /// The target refused it or could not be reached.
    Failed,
}
