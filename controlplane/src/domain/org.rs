//! Tenants and the people in them.

use postern_shared::ids::{OrgId, UserId};
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::text::{Email, Label};

/// A tenant. Every other record belongs to exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// The org.
    pub id: OrgId,
    /// Its name.
    pub name: Label,
    /// When it was made.
    pub created_at: Timestamp,
    /// The running number of the newest pair.
    pub pairs_numbered: u64,
    /// The running number of the newest group.
    pub groups_numbered: u64,
}

/// A person in an org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The person.
    pub id: UserId,
    /// The person's org.
    pub org: OrgId,
    /// Where the person gets mail, and the name to sign in with.
    pub email: Email,
    /// What the person may do.
    pub role: Role,
    /// When the person was added.
    pub created_at: Timestamp,
}

/// What a person may do in an org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, people included.
    Admin,
    /// Own pairs and what an admin gave.
    Member,
}
