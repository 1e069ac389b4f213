//! Which records are asked for: one rule for the API, the console and the command line.

use std::fmt;
use std::str::FromStr;

use postern_shared::ids::GroupId;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::kind::Kind;
use crate::domain::{Actor, ActorKind, AuditRecord};

/// Which records of an org are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// None from before this time.
    pub since: Option<Timestamp>,
    /// None from this time or later.
    pub until: Option<Timestamp>,
    /// Only those of this kind.
    pub kind: Option<Kind>,
    /// Only what these did.
    pub actor: Option<Actors>,
    /// Only those that name this group.
    pub group: Option<GroupId>,
}

/// Who did something, as far as a filter says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actors {
    /// All of a kind.
    Kind(ActorKind),
    /// The one of an id; ids of different kinds never meet.
    One(Uuid),
}

/// A text that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an actor is {}, or an id", ActorKind::ALL.map(ActorKind::name).join(", "))]
pub struct ActorsError;

impl Filter {
    /// Says whether a record is asked for. The times are for whoever reads to look at: records are
    /// in their order.
    pub fn holds(&self, record: &AuditRecord) -> bool {
        self.actor.is_none_or(|actors| actors.include(record.actor))
            && self.group.is_none_or(|group| record.event.names_group(group))
            && self.kind.is_none_or(|kind| record.event.kind() == kind.name())
    }
}

impl Actors {
    fn include(self, actor: Actor) -> bool {
        match self {
            Actors::Kind(kind) => actor.kind() == kind,
            Actors::One(id) => actor.id() == Some(id.into_bytes()),
        }
    }
}

impl fmt::Display for Actors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actors::Kind(kind) => f.write_str(kind.name()),
            Actors::One(id) => id.hyphenated().fmt(f),
        }
    }
}

impl FromStr for Actors {
    type Err = ActorsError;

    fn from_str(text: &str) -> Result<Actors, ActorsError> {
        const HYPHENATED_LEN: usize = 36;
        if let Some(kind) = ActorKind::ALL.into_iter().find(|kind| kind.name() == text) {
            return Ok(Actors::Kind(kind));
        }
        if text.len() != HYPHENATED_LEN {
            return Err(ActorsError);
        }
        Uuid::try_parse(text).map(Actors::One).map_err(|_| ActorsError)
    }
}

impl TryFrom<String> for Actors {
    type Error = ActorsError;

    fn try_from(text: String) -> Result<Actors, ActorsError> {
        text.parse()
    }
}

impl From<Actors> for String {
    fn from(actors: Actors) -> String {
        actors.to_string()
    }
}
