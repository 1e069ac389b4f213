//! How a refused order is told.

use std::time::Duration;

use crate::domain::{REPLAYS_BY_ORG_MAX, Rejection};
use crate::engine::Refused;
use crate::http::ApiError;

/// When to try again while orders queue up.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// When to try again after somebody had time to make room.
const DISK_RETRY: Duration = Duration::from_secs(60);

/// Tells why an order was not carried out.
pub(crate) fn refused(refused: Refused) -> ApiError {
    match refused {
        Refused::Rejected(rejection) => rejected(rejection),
        Refused::Busy => unavailable(&refused),
        Refused::DiskFull => ApiError::DiskFull { retry_after: DISK_RETRY },
        Refused::Stopped => unavailable(&refused),
    }
}

fn unavailable(refused: &Refused) -> ApiError {
    ApiError::Unavailable { reason: refused.to_string(), retry_after: BUSY_RETRY }
}

fn rejected(rejection: Rejection) -> ApiError {
    match rejection {
        Rejection::NotFound => ApiError::NotFound,
        Rejection::Invalid { field, reason } => ApiError::field(format!("/{field}"), reason),
        Rejection::Conflict(detail) => ApiError::Conflict { detail: detail.to_owned() },
        Rejection::AdminsOnly => ApiError::AdminsOnly,
        Rejection::Changed => ApiError::PreconditionFailed,
        // Looked up before it was asked for; then another process was faster.
        Rejection::Repeated => ApiError::IdempotencyKeyInUse,
        Rejection::TooManyKept { retry_after } => ApiError::TooManyAtOnce {
            what: "answers kept for an `Idempotency-Key`",
            max: REPLAYS_BY_ORG_MAX,
            retry_after,
        },
        limit @ Rejection::Limit { .. } => ApiError::Conflict { detail: limit.to_string() },
    }
}
