//! The way to the operations over the daemon's Unix socket. Who may connect there is the
//! listener's business: root and the daemon's own user.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;

use super::{OperatorError, Plane, Request, carry_out};
use crate::domain::Rejection;
use crate::engine::{Engine, Refused};
use crate::http::json::StrictJson;
use crate::http::{Answer, ApiError};

/// Where requests are posted.
pub const PATH: &str = "/operator";

/// When to try again after the engine was busy or is stopping.
const RETRY: Duration = Duration::from_secs(1);

/// When to try again after the disk was full.
const RETRY_DISK: Duration = Duration::from_secs(60);

/// The routes of the control socket.
pub fn router(engine: Engine, plane: Plane) -> Router {
    Router::new().route(PATH, post(answer)).with_state((engine, plane))
}

async fn answer(
    State((engine, plane)): State<(Engine, Plane)>,
    StrictJson(request): StrictJson<Request>,
) -> Result<Answer, ApiError> {
    Ok(Answer::ok(&carry_out(&engine, &plane, request).await?))
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> ApiError {
        match error {
            OperatorError::Unknown { what, .. } | OperatorError::Ambiguous { what, .. } => {
                ApiError::field(format!("/{what}"), error.to_string())
            }
            OperatorError::WhichOrg { .. } => ApiError::field("/org", error.to_string()),
            OperatorError::NoOrg => ApiError::Conflict { detail: error.to_string() },
            OperatorError::Refused(refused) => refusal(refused),
        }
    }
}

fn refusal(refused: Refused) -> ApiError {
    match refused {
        Refused::Rejected(rejection) => rejected(rejection),
        Refused::DiskFull => ApiError::DiskFull { retry_after: RETRY_DISK },
        Refused::Busy | Refused::Stopped => {
            ApiError::Unavailable { reason: refused.to_string(), retry_after: RETRY }
        }
    }
}

fn rejected(rejection: Rejection) -> ApiError {
    match rejection {
        Rejection::NotFound => ApiError::NotFound,
        Rejection::Invalid { field, reason } => ApiError::field(format!("/{field}"), reason),
        Rejection::Changed => ApiError::PreconditionFailed,
        Rejection::Conflict(_) | Rejection::Limit { .. } => {
            ApiError::Conflict { detail: rejection.to_string() }
        }
    }
}
