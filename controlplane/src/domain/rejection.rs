//! Why an order is refused, in words that say what to change.

use std::time::Duration;

use postern_shared::position::Revision;

/// Why an order is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// There is no such record in the org, or there never was.
    #[error("no such resource")]
    NotFound,
    /// A field's value may not be.
    #[error("`{field}` {reason}")]
    Invalid {
        /// The field's name in the API.
        field: &'static str,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// The order does not fit what is there.
    #[error("{0}")]
    Conflict(&'static str),
    /// The user may look, but change nothing of the org's.
    #[error("only an admin of the org may change this")]
    AdminsOnly,
    /// The record is not in the state that the caller saw.
    #[error("the record was changed by somebody else; read it again")]
    Changed,
    /// A limit would be passed.
    #[error("the most {what} is {max}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A request of this name was carried out already: its answer is kept.
    #[error("the request was carried out already")]
    Repeated,
    /// There is no room to keep the answer to one more request that has a name.
    #[error("too many answers are kept for requests with an `Idempotency-Key`")]
    TooManyKept {
        /// When one of them is forgotten.
        retry_after: Duration,
    },
}

/// Holds a change to the version that the caller saw, where it says which that was.
pub(super) fn check_unchanged(
    expected: Option<Revision>,
    revision: Revision,
) -> Result<(), Rejection> {
    match expected {
        Some(expected) if expected != revision => Err(Rejection::Changed),
        Some(_) | None => Ok(()),
    }
}
