//! How a record is shown.

use std::net::IpAddr;

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::chain::Place;
use crate::domain::{Actor, AuditRecord, Event, State};

/// A record as people and scripts see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordView {
    /// Its place in the chain.
    #[schema(value_type = String)]
    pub id: Place,
    /// When it happened.
    pub at: Timestamp,
    /// Who did it.
    pub actor: ActorView,
    /// From which address, where there was one.
    #[schema(value_type = Option<String>)]
    pub source: Option<IpAddr>,
    /// What kind of thing happened.
    pub kind: String,
    /// What exactly: the fields depend on the kind.
    #[schema(value_type = Object)]
    pub details: Value,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActorView {
    /// `operator`, `key`, `pair` and so on.
    pub kind: String,
    /// The id of the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name now, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl RecordView {
    /// Shows a record, with nothing but what it says itself.
    pub fn of(place: Place, record: &AuditRecord) -> RecordView {
        let (kind, details) = named(&record.event);
        let (actor, id) = named(&record.actor);
        let id = id.as_str().map(str::to_owned);
        RecordView {
            id: place,
            at: record.at,
            actor: ActorView { kind: actor, id, name: None },
            source: record.source,
            kind,
            details,
        }
    }

    /// Shows a record with the name that its actor has now.
    pub fn with_name(place: Place, record: &AuditRecord, state: &State) -> RecordView {
        let mut view = RecordView::of(place, record);
        view.actor.name = actor_name(state, record.org, record.actor);
        view
    }
}

impl Event {
    /// The name of the kind of event.
    pub fn kind(&self) -> String {
        named(self).0
    }
}

/// Splits what serde shows of an enum into the variant's name and its content.
fn named(value: &impl Serialize) -> (String, Value) {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => (name, Value::Null),
        Ok(Value::Object(fields)) => {
            fields.into_iter().next().unwrap_or_else(|| (String::new(), Value::Null))
        }
        Ok(_) | Err(_) => unreachable!("an enum of plain fields is a name, or an object of one"),
    }
}

fn actor_name(state: &State, org: OrgId, actor: Actor) -> Option<String> {
    match actor {
        Actor::Operator | Actor::Unknown => None,
        Actor::Key(id) => {
            state.key(id).filter(|key| key.org == org).map(|key| key.name.to_string())
        }
        Actor::Pair(id) => {
            let row = state.pair(id).filter(|row| row.record.org == org);
            row.map(|row| row.record.name.to_string())
        }
        Actor::Agent(id) => {
            state.agent(id).filter(|agent| agent.org == org).map(|agent| agent.name.to_string())
        }
        Actor::Enrolment(id) => {
            let found = state.enrolment(id).filter(|found| found.org == org);
            found.map(|found| found.name.to_string())
        }
        Actor::User(id) => {
            state.user(id).filter(|user| user.org == org).map(|user| user.email.to_string())
        }
    }
}
