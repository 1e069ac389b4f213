//! Figures for Prometheus.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::http::{ApiError, host};

/// The media type of the Prometheus text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How often what histograms have collected is summed up.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);

/// Upper bounds of the buckets of durations, in seconds: from a lookup in memory to a slow disk.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The figures that the process collects.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Why figures cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The collector cannot be built.
    #[error("cannot set up the metrics")]
    Build(#[source] BuildError),
    /// The process has one already.
    #[error("the process collects metrics already")]
    Installed(#[source] metrics::SetRecorderError<metrics_exporter_prometheus::PrometheusRecorder>),
}

impl Metrics {
    /// Makes the process collect figures; to be called once, early.
    pub fn install() -> Result<Metrics, MetricsError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .map_err(MetricsError::Build)?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(MetricsError::Installed)?;
        describe();
        Ok(Metrics { handle })
    }

    /// The routes of the metrics listener: `/metrics` alone. Where only this machine reaches it,
    /// no page that a browser here shows shall read it under a name of its own.
    pub fn router(&self, address: SocketAddr) -> Router {
        let handle = self.handle.clone();
        let render = async move |request: Request| {
            host::check(&request, |_| !address.ip().is_loopback())?;
            Ok::<_, ApiError>(([(CONTENT_TYPE, PROMETHEUS_TEXT)], handle.render()))
        };
        Router::new().route("/metrics", get(render))
    }

    /// Keeps the collector small until `stop` turns true.
    pub async fn upkeep(self, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(UPKEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => self.handle.run_upkeep(),
            }
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What each figure tells, for whoever finds it in Prometheus.
fn describe() {
    for (name, what) in [
        ("postern_connections_ended_total", "Connections that were ended at one of their limits"),
        ("postern_connections_refused_total", "Connections for which there was no seat"),
        (
            "postern_mails_total",
            "Mails that were sent, given up, or dropped since their links had ended",
        ),
        ("postern_orders_committed_total", "Orders that are durable"),
        (
            "postern_reports_total",
            "Reports of bookmarks: moved, renewed, heartbeats of an address on file, or frozen \
             since the bookmark has moved too often",
        ),
        ("postern_requests_total", "Requests that were answered"),
        ("postern_sign_ins_total", "Attempts to sign in"),
    ] {
        metrics::describe_counter!(name, what);
    }
    for (name, what) in [
        (
            "postern_clock_skew_seconds",
            "How far the wall clock has moved since the plane began to count",
        ),
        ("postern_records", "Records in memory and in the store"),
        ("postern_store_free_bytes", "Room on the store's disk"),
        ("postern_streams", "Followers that hold a stream open"),
    ] {
        metrics::describe_gauge!(name, what);
    }
    for (name, what) in [
        ("postern_commit_seconds", "From the first order of a batch to its commit on disk"),
        ("postern_request_seconds", "From a request to the head of its answer"),
    ] {
        metrics::describe_histogram!(name, metrics::Unit::Seconds, what);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt as _;

    use super::*;

    async fn get_from(router: Router, host: &str) -> (StatusCode, String) {
        let request = Request::get("/metrics").header("host", host).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn figures_are_rendered_for_prometheus() {
        let metrics = Metrics::install().unwrap();
        metrics::counter!("postern_test_total", "kind" => "a").increment(3);
        metrics::histogram!("postern_test_seconds").record(0.003);

        let here = "127.0.0.1:9643".parse().unwrap();
        let (status, text) = get_from(metrics.router(here), "127.0.0.1:9643").await;

        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("postern_test_total{kind=\"a\"} 3"), "{text}");
        assert!(text.contains("postern_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
        let rebound = get_from(metrics.router(here), "rebound.example:9643").await;
        assert_eq!(rebound, (StatusCode::MISDIRECTED_REQUEST, String::new()));
        let lan = "192.0.2.1:9643".parse().unwrap();
        assert_eq!(get_from(metrics.router(lan), "plane.lan:9643").await.0, StatusCode::OK);
        assert!(matches!(Metrics::install(), Err(MetricsError::Installed(_))));
    }
}
