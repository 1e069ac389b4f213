//! The border around the router: what every request gets on its way in and every answer on its
//! way out.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::Either;
use postern_shared::error::chain;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::Meta;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::chance::Chance;
use crate::clock::Clock;
use crate::http::answer::PendingAnswer;
use crate::http::around::{self, Answered, Answering, Around};
use crate::http::problem::{ApiError, KEPT, PROBLEM_JSON, PendingProblem};
use crate::server::{ClientAddress, Peer, TrustedProxies};

/// The header field that names a request in the daemon's log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names a request in answers and in the log. Always ours: what a client sends is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

/// What the border needs to know.
pub struct Border {
    proxies: TrustedProxies,
    clock: Arc<dyn Clock>,
    /// What all request ids of this run begin with, unlike those of others.
    prefix: Box<str>,
    count: AtomicU64,
}

impl Border {
    /// Makes a border that takes the word of `proxies` on the caller's address.
    pub fn new(proxies: TrustedProxies, clock: Arc<dyn Clock>, chance: &dyn Chance) -> Border {
        let mut seed = [0; 6];
        chance.fill(&mut seed);
        let [a, b, c, d, e, f] = seed;
        let prefix = format!("req_{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}").into();
        Border { proxies, clock, prefix, count: AtomicU64::new(0) }
    }

    fn next_id(&self) -> RequestId {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        RequestId(format!("{}{count:08x}", self.prefix).into())
    }

    /// Finds out who calls, and takes everything out of the request that claims to know.
    fn identify(&self, request: &mut Request) -> Result<(), ApiError> {
        if let Some(Peer::Tcp { address, .. }) = request.extensions().get::<Peer>() {
            let address = address.ip();
            let caller = ClientAddress::resolve(address, request.headers(), &self.proxies)
                .map_err(|error| ApiError::BadRequest { detail: error.to_string() })?;
            request.extensions_mut().insert(caller);
        }
        ClientAddress::strip(request.headers_mut());
        Ok(())
    }
}

impl fmt::Debug for Border {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Border").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}

/// Puts the border around all routes of `router`; to be done last.
///
/// On the way in a request gets a [`RequestId`] and, when it came over TCP, the caller's
/// [`ClientAddress`]; the header fields that could carry an address are removed. On the way out
/// an [`Answer`](crate::http::Answer) gets its `meta` and an [`ApiError`] becomes a problem, as
/// does an error that the router or an extractor answers by itself.
pub fn finish(router: Router, border: Border) -> Router {
    answer_all(router).layer(around::layer(Arc::new(border)))
}

/// Has a router answer by problems of ours also what it knows no route or no method for.
pub(crate) fn answer_all(router: Router) -> Router {
    router
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

impl RequestId {
    /// The id as it is written everywhere.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<RequestId, ApiError> {
        let id = parts.extensions.get::<RequestId>().cloned();
        id.ok_or_else(|| ApiError::internal("the request did not cross the border"))
    }
}

impl Around for Arc<Border> {
    fn answer<F>(&self, mut request: Request, route: impl FnOnce(Request) -> F) -> Answering<F>
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let border = Arc::clone(self);
        let id = border.next_id();
        // The pattern of the route, never the path: a path can hold a secret.
        let pattern = request.extensions().get::<MatchedPath>().cloned();
        let method = method_label(request.method());
        let span =
            tracing::info_span!("request", id = id.as_str(), method, route = label(&pattern));
        let began = Instant::now();
        let answer = border.identify(&mut request).map(|()| {
            request.extensions_mut().insert(id.clone());
            span.in_scope(|| route(request))
        });
        Either::Right(Box::pin(async move {
            let response = match answer {
                Ok(answer) => answer.instrument(span.clone()).await?,
                Err(error) => error.into_response(),
            };
            let _entered = span.entered();
            let mut response = complete(response, &id, border.clock.now());
            let headers = response.headers_mut();
            let id = HeaderValue::from_str(id.as_str()).expect("an id is hexadecimal");
            headers.insert(X_REQUEST_ID, id);
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            let status = response.status();
            tracing::debug!(status = status.as_u16(), "answered");
            count(label(&pattern), method, status, began.elapsed());
            Ok(response)
        }))
    }
}

/// The route as a label, and in the log.
fn label(pattern: &Option<MatchedPath>) -> &str {
    pattern.as_ref().map_or("none", MatchedPath::as_str)
}

/// Counts an answer, and how long it took until its head was there. Every label has few values:
/// what a stranger sends is none.
fn count(route: &str, method: &'static str, status: StatusCode, took: Duration) {
    let route: Arc<str> = route.into();
    metrics::counter!(
        "postern_requests_total",
        "route" => Arc::clone(&route), "method" => method, "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("postern_request_seconds", "route" => route).record(took);
}

/// The method as a label, and in the log: a client may send any word.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    const NAMES: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.iter().position(|known| known == method).map_or("other", |place| NAMES[place])
}

/// Writes the body of an answer or a problem; leaves everything else as it is.
fn complete(mut response: Response, id: &RequestId, now: Timestamp) -> Response {
    if let Some(answer) = response.extensions_mut().remove::<PendingAnswer>() {
        let meta = Meta { request_id: id.to_string(), timestamp: now, next_cursor: None };
        return match answer.complete(meta) {
            Ok(body) => with_body(response, body, HeaderValue::from_static("application/json")),
            Err(error) => with_problem(ApiError::internal(error).into_response(), id),
        };
    }
    if response.extensions().get::<PendingProblem>().is_some() {
        return with_problem(response, id);
    }
    if is_bare_error(&response) {
        let mut problem = ApiError::from_status(response.status()).into_response();
        for name in KEPT {
            if let Some(value) = response.headers_mut().remove(&name) {
                problem.headers_mut().insert(name, value);
            }
        }
        return with_problem(problem, id);
    }
    response
}

/// Says whether the router or one of its extractors failed without a word of ours.
fn is_bare_error(response: &Response) -> bool {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_plain = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    let is_plain = response.headers().get(CONTENT_TYPE).is_none_or(is_plain);
    is_error && is_plain
}

/// Takes the error out of an answer that is one, and logs it as the border does: for routes that
/// tell their errors as pages.
pub(crate) fn take_failure(response: &mut Response) -> Option<Arc<ApiError>> {
    if let Some(PendingProblem(error)) = response.extensions_mut().remove() {
        log(&error);
        return Some(error);
    }
    is_bare_error(response).then(|| Arc::new(ApiError::from_status(response.status())))
}

fn log(error: &ApiError) {
    if matches!(error, ApiError::Internal(_)) {
        tracing::error!(error = chain(error), "request failed");
    } else if error.status().is_server_error() {
        tracing::debug!(error = chain(error), "request refused");
    }
}

fn with_problem(mut response: Response, id: &RequestId) -> Response {
    let Some(PendingProblem(error)) = response.extensions_mut().remove() else { return response };
    log(&error);
    let problem = error.to_problem(id.as_str());
    let body = serde_json::to_vec(&problem).expect("a problem has only plain fields");
    with_body(response, body, PROBLEM_JSON)
}

fn with_body(mut response: Response, body: Vec<u8>, media_type: HeaderValue) -> Response {
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, media_type);
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(Bytes::from(body));
    response
}
