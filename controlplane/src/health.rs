//! Whether the daemon is alive and ready, for service managers and load balancers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::time::{Instant, timeout};

use crate::engine::Engine;
use crate::http::ApiError;

/// How long the writer may be busy before the daemon counts as not ready. A commit takes
/// milliseconds; a disk that keeps one this long keeps everybody waiting.
const WRITER_WAIT_MAX: Duration = Duration::from_secs(2);
/// For how long a sign of the writer's life counts, so that many questions cost no more than one.
const WRITER_KNOWN_FOR: Duration = Duration::from_secs(1);
/// When to ask again whether the daemon is ready.
const NOT_READY_RETRY: Duration = Duration::from_secs(1);

/// Knows when the writer was last seen at work.
struct Readiness {
    engine: Engine,
    seen_at: Mutex<Option<Instant>>,
}

/// The routes `/livez` (the process answers) and `/readyz` (reports and changes go through; else
/// 503). Neither says more.
pub(crate) fn routes(engine: Engine) -> Router {
    let readiness = Arc::new(Readiness { engine, seen_at: Mutex::new(None) });
    let ready = async move || readiness.answer().await;
    Router::new().route("/livez", get(async || "alive\n")).route("/readyz", get(ready))
}

impl Readiness {
    async fn answer(&self) -> Response {
        let is_fresh = |seen_at: Instant| seen_at.elapsed() < WRITER_KNOWN_FOR;
        if !self.seen_at().is_some_and(is_fresh) {
            if !matches!(timeout(WRITER_WAIT_MAX, self.engine.pass()).await, Ok(Ok(()))) {
                let reason = "the store does not answer".to_owned();
                return ApiError::Unavailable { reason, retry_after: NOT_READY_RETRY }
                    .into_response();
            }
            *self.seen_at() = Some(Instant::now());
        }
        "ready\n".into_response()
    }

    fn seen_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.seen_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
