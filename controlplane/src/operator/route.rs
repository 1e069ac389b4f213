//! The way to the operations over the daemon's Unix socket. Who may connect there is the
//! listener's business: root and the daemon's own user.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;

use super::{OperatorError, Plane, Request, carry_out};
use crate::api::{audit, refusal};
use crate::engine::Engine;
use crate::http::json::StrictJson;
use crate::http::{Answer, ApiError};

/// Where requests are posted.
pub const PATH: &str = "/operator";

/// Tells how the plane is reached now: configuration and certificate can be reloaded.
pub type AskPlane = Arc<dyn Fn() -> Plane + Send + Sync>;

/// The routes of the control socket.
pub fn router(engine: Engine, plane: AskPlane) -> Router {
    Router::new().route(PATH, post(answer)).with_state((engine, plane))
}

async fn answer(
    State((engine, plane)): State<(Engine, AskPlane)>,
    StrictJson(request): StrictJson<Request>,
) -> Result<Answer, ApiError> {
    Ok(Answer::ok(&carry_out(&engine, &plane(), request).await?))
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> ApiError {
        match error {
            OperatorError::Unknown { what, .. } | OperatorError::Ambiguous { what, .. } => {
                ApiError::field(format!("/{what}"), error.to_string())
            }
            OperatorError::WhichOrg { .. } => ApiError::field("/org", error.to_string()),
            OperatorError::NoOrg => ApiError::Conflict { detail: error.to_string() },
            OperatorError::Refused(refused) => refusal::refused(refused),
            OperatorError::Audit(error) => audit::unreadable(error),
        }
    }
}
