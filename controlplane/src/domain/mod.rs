//! The rules of the product, as values: no clock, no chance, no store, no HTTP.
//!
//! [`State`] is all orgs. [`decide`] says what an [`Order`] would change, or why it may not;
//! [`State::apply`] carries a change out. Every change that `decide` names, the audit record
//! among them, is made durable in one transaction before `apply` sees it.

mod account;
mod agent;
mod audit;
mod beacon;
mod change;
mod command;
mod group;
mod history;
mod key;
mod login;
mod org;
mod pair;
mod receipt;
mod rejection;
mod replay;
mod resolve;
mod right;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod ticket;

pub use account::{
    Account, Authenticator, Credentials, Factor, PasswordHash, RECOVERY_CODES, RecoveryHash,
    STEP_SECS, STEPS_SKEW, Sealed, TRIES_FREE, Tries, step_at,
};
pub use agent::{Agent, Enrolment};
pub use audit::{Actor, ActorKind, AuditRecord, Event, Refusal, Whereabouts};
pub use beacon::{Heard, Seen, hear};
pub use change::Change;
pub use command::{Command, Footprint, Order, RecordKey, decide};
pub use group::{Group, GroupEdit, Member, MemberKind};
pub use history::{History, Past, PastEntry};
pub use key::{Credential, Key, Origin, Standing};
pub use login::{BROWSER_CHARS_MAX, LOGIN_IDLE, LOGIN_LIFE, Login};
pub use org::{Org, Role, User};
pub use pair::{Pair, PairEdit, Report, Spot, Visit};
pub use receipt::{AgentReport, Board};
pub use rejection::Rejection;
pub(crate) use replay::REPLAYS_BY_ORG_MAX;
pub use replay::{Once, Replay, ReplayId};
pub use resolve::{ListChange, Resolved, Touched};
pub use state::{AgentRow, GroupRow, LoginRow, OrgRow, PairRow, Row, Secret, State};
pub(crate) use text::acts;
pub use text::{Email, Label, TextError};
pub use ticket::{Purpose, Ticket, Welcome};
