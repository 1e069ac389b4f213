//! Which web pages may call the API: those of the operator's list, none by default.
//!
//! A page sends the secret itself, as a header field; no cookie counts here, so none is allowed.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::IntoResponse as _;
use futures_util::future::Either;

use crate::app::App;
use crate::http::around::{Answered, Answering, Around};

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");
const SENT: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, idempotency-key, if-match, if-none-match, prefer",
);
const SHOWN: HeaderValue = HeaderValue::from_static(
    "etag, location, postern-as-of, postern-entries, preference-applied, ratelimit, ratelimit-policy, \
     retry-after, x-request-id",
);
/// How long a browser may keep what it was told, in seconds.
const MAX_AGE_SECS: u64 = 600;

/// Tells the browser that a page on the list may call, and read the answer. To be put around
/// all routes and what answers where there is none: a route that knows no `OPTIONS` would refuse
/// the question.
#[derive(Clone)]
pub(crate) struct Sharing(pub(crate) App);

impl Around for Sharing {
    fn answer<F>(&self, request: Request, route: impl FnOnce(Request) -> F) -> Answering<F>
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let Some(origin) = listed(&self.0, &request) else {
            return Either::Left(route(request));
        };
        let asks_first = request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let answer = (!asks_first).then(|| route(request));
        Either::Right(Box::pin(async move {
            let mut response = match answer {
                Some(answer) => answer.await?,
                None => StatusCode::NO_CONTENT.into_response(),
            };
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
            Ok(response)
        }))
    }
}

/// The page's origin, if it is on the list and calls the API.
fn listed(app: &App, request: &Request) -> Option<HeaderValue> {
    let origin = request.headers().get(ORIGIN)?;
    if !request.uri().path().starts_with("/api/") {
        return None;
    }
    let settings = app.settings();
    let is_listed = settings.cors_origins.iter().any(|one| one.as_str().as_bytes() == origin);
    is_listed.then(|| origin.clone())
}
