//! What every answer is wrapped in.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A success: `{"data": …, "meta": …}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Envelope<T> {
    /// The answer itself.
    pub data: T,
    /// What is said about the answer.
    pub meta: Meta,
}

/// What is said about an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Meta {
    /// Names this request in the daemon's log.
    pub request_id: String,
    /// When the answer was made.
    pub timestamp: Timestamp,
    /// Where the next page of a list begins; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A failure, as `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A stable slug for the kind of problem, such as `forbidden_origin`.
    pub r#type: String,
    /// The kind of problem in words, the same for every problem of the kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What to change, for this request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Names this request in the daemon's log.
    pub request_id: String,
    /// The fields that are wrong, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FieldError {
    /// What to change.
    pub detail: String,
    /// The field, as a JSON pointer (RFC 6901) into the body.
    pub pointer: String,
}
