//! Whether the daemon is alive and ready, for service managers and load balancers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::engine::Engine;
use crate::http::ApiError;

/// How long the writer may be busy before the daemon counts as not ready. A commit takes
/// milliseconds; a disk that keeps one this long keeps everybody waiting.
const WRITER_WAIT_MAX: Duration = Duration::from_secs(2);
/// For how long a sign of the writer's life counts, so that many questions cost no more than one.
const WRITER_KNOWN_FOR: Duration = Duration::from_secs(1);
/// When to ask again whether the daemon is ready.
const NOT_READY_RETRY: Duration = Duration::from_secs(1);

/// How the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Reports and changes go through.
    Well,
    /// The disk is almost full: only revocations go through.
    DiskFull,
    /// The store does not answer.
    Stuck,
}

/// Knows how the store was when somebody last looked.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    seen: Mutex<Option<(Instant, Health)>>,
}

/// The routes `/livez` (the process answers) and `/readyz` (the store answers; else 503). Neither
/// says more.
pub(crate) fn routes(app: App) -> Router {
    let ready = async move || match app.readiness().look(app.engine()).await {
        Health::Well | Health::DiskFull => "ready\n".into_response(),
        Health::Stuck => {
            let reason = "the store does not answer".to_owned();
            ApiError::Unavailable { reason, retry_after: NOT_READY_RETRY }.into_response()
        }
    };
    Router::new().route("/livez", get(async || "alive\n")).route("/readyz", get(ready))
}

impl Readiness {
    /// Says how the store is, as of a second ago at most.
    pub(crate) async fn look(&self, engine: &Engine) -> Health {
        let known = *self.seen();
        if let Some((at, health)) = known
            && at.elapsed() < WRITER_KNOWN_FOR
        {
            return health;
        }
        let health = match timeout(WRITER_WAIT_MAX, engine.pass()).await {
            Ok(Ok(true)) => Health::Well,
            Ok(Ok(false)) => Health::DiskFull,
            // Not kept: the next one to ask waits for a sign of life again.
            Ok(Err(_)) | Err(_) => return Health::Stuck,
        };
        *self.seen() = Some((Instant::now(), health));
        health
    }

    fn seen(&self) -> MutexGuard<'_, Option<(Instant, Health)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
