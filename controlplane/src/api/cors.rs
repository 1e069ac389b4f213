//! Which web pages may call the API: those of the operator's list, none by default.
//!
//! A page sends the secret itself, as a header field; no cookie counts here, so none is allowed.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const SENT: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, prefer",
);
const SHOWN: HeaderValue = HeaderValue::from_static(
    "etag, location, preference-applied, ratelimit, ratelimit-policy, retry-after, x-request-id",
);
/// How long a browser may keep what it was told, in seconds.
const MAX_AGE_SECS: u64 = 600;

/// Tells the browser that a page on the list may call, and read the answer. To be put around
/// everything: a route that knows no `OPTIONS` would refuse the question.
pub(crate) async fn share(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let Some(origin) = listed(&app, request.headers()).filter(|_| is_api) else {
        return next.run(request).await;
    };
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response =
        if asks_first { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(VARY, HeaderValue::from_static("origin"));
    if asks_first {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS.into());
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, SHOWN);
    }
    response
}

/// The page's origin, if it is on the list.
fn listed(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let settings = app.settings();
    let is_listed = settings.cors_origins.iter().any(|one| one.as_str().as_bytes() == origin);
    is_listed.then(|| origin.clone())
}
