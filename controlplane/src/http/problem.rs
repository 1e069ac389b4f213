//! Failures of the HTTP API, and how a client gets to see them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use postern_shared::wire::v1::{FieldError, Problem};

use crate::http::limit::Exhausted;

/// The media type of every failure (RFC 9457).
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request was not carried out.
///
/// The messages of client errors are shown to the client and say what to change. Those of server
/// errors are only logged: the client is told the request id.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request cannot be read.
    #[error("{detail}")]
    BadRequest {
        /// What to change.
        detail: String,
    },

    /// Fields of the body can be read, but not accepted.
    #[error("{} of the request must be changed", fields(.errors.len()))]
    Invalid {
        /// All the fields that are wrong.
        errors: Vec<FieldError>,
    },

    /// No secret, or one that is not accepted; why is not told.
    #[error("send a secret that is in force as `Authorization: Bearer …`")]
    Unauthorized,

    /// The secret does not work from the caller's address.
    #[error("the key does not work from this address; call from an origin of the key")]
    ForbiddenOrigin,

    /// The key lacks a scope.
    #[error("the key lacks the scope `{scope}`")]
    InsufficientScope {
        /// The scope that the request needs.
        scope: String,
    },

    /// Only an admin of the org may change what is asked for.
    #[error("only an admin of the org may change this")]
    AdminsOnly,

    /// A form that no page of ours has sent, or one that is too old.
    #[error("the form is not from a page of this plane, or is too old; open the page again")]
    ForeignForm,

    /// The name under which the caller asks is not one of ours.
    #[error("this plane has another name; open it under the host of its `public_url`")]
    Misdirected,

    /// There is no such thing, or it belongs to somebody else.
    #[error("there is nothing here under this name")]
    NotFound,

    /// The resource does not know the method; the header `Allow` names those that it knows.
    #[error("the resource does not know this method; see the header `Allow`")]
    MethodNotAllowed,

    /// Nothing that the client accepts can be made.
    #[error("{detail}")]
    NotAcceptable {
        /// What can be had.
        detail: String,
    },

    /// The whole request did not arrive in time.
    #[error("the body did not arrive within {} s", .within.as_secs_f32())]
    RequestTimeout {
        /// How long the server waited.
        within: Duration,
    },

    /// The request contradicts what is there.
    #[error("{detail}")]
    Conflict {
        /// What stands in the way.
        detail: String,
    },

    /// A request with the same `Idempotency-Key` is being carried out.
    #[error("a request with this `Idempotency-Key` is being carried out; ask again for its answer")]
    IdempotencyKeyInUse,

    /// The `Idempotency-Key` was used for another request.
    #[error("this `Idempotency-Key` was used for another request; give each request its own")]
    IdempotencyKeyReused,

    /// The object changed since the client read it.
    #[error("the object has changed; read it again and send its new ETag in `If-Match`")]
    PreconditionFailed,

    /// The object may be changed only by who says which version of it was read.
    #[error("send the ETag of the object in `If-Match`")]
    PreconditionRequired,

    /// The body is too long.
    #[error("the body is longer than {bytes_max} bytes")]
    TooLarge {
        /// The most bytes that are read.
        bytes_max: usize,
    },

    /// The body is not in a form that is read here.
    #[error("{detail}")]
    UnsupportedMediaType {
        /// The form to send.
        detail: String,
    },

    /// A budget of requests is used up.
    #[error("too many requests; the budget `{}` refills in {} s", .0.policy, .0.retry_after_secs())]
    RateLimited(Exhausted),

    /// A bookmark has moved as often as it may.
    #[error(
        "this bookmark has moved {} times within an hour, so it stays where it is for {} s: \
         somebody else may be using it; if it moved without you, ask for a new one",
        .0.standing.burst(), .0.retry_after_secs()
    )]
    MovedTooOften(Exhausted),

    /// The caller has as much of something open as it may.
    #[error("the most {what} at once is {max}; end one first")]
    TooManyAtOnce {
        /// What there are too many of.
        what: &'static str,
        /// The most that there may be.
        max: usize,
        /// When to try again.
        retry_after: Duration,
    },

    /// Something that the request needs is not to be had just now.
    #[error("not available just now: {reason}")]
    Unavailable {
        /// What is missing; logged, not shown.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },

    /// The disk has no room left for changes.
    #[error("the disk has no room left for changes")]
    DiskFull {
        /// When to try again.
        retry_after: Duration,
    },

    /// A fault on this side.
    #[error("{0}")]
    Internal(#[source] Box<dyn Error + Send + Sync>),
}

/// The parts of a kind of problem that never change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) status: StatusCode,
    pub(crate) slug: &'static str,
    pub(crate) title: &'static str,
}

const fn kind(status: StatusCode, slug: &'static str, title: &'static str) -> Kind {
    Kind { status, slug, title }
}

const BAD_REQUEST: Kind =
    kind(StatusCode::BAD_REQUEST, "bad_request", "The request cannot be read");
const INVALID: Kind =
    kind(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not acceptable");
const UNAUTHORIZED: Kind = kind(StatusCode::UNAUTHORIZED, "unauthorized", "A secret is needed");
const FORBIDDEN_ORIGIN: Kind =
    kind(StatusCode::FORBIDDEN, "forbidden_origin", "The key does not work from here");
const INSUFFICIENT_SCOPE: Kind =
    kind(StatusCode::FORBIDDEN, "insufficient_scope", "The key may not do this");
const ADMINS_ONLY: Kind = kind(StatusCode::FORBIDDEN, "admins_only", "Only an admin may do this");
const FOREIGN_FORM: Kind =
    kind(StatusCode::FORBIDDEN, "foreign_form", "The form comes from elsewhere");
const MISDIRECTED: Kind =
    kind(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", "The plane has another name");
const NOT_FOUND: Kind = kind(StatusCode::NOT_FOUND, "not_found", "Not found");
const METHOD_NOT_ALLOWED: Kind =
    kind(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method not allowed");
const NOT_ACCEPTABLE: Kind =
    kind(StatusCode::NOT_ACCEPTABLE, "not_acceptable", "No acceptable form");
const REQUEST_TIMEOUT: Kind =
    kind(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request took too long");
const CONFLICT: Kind = kind(StatusCode::CONFLICT, "conflict", "Conflict");
const IDEMPOTENCY_KEY_IN_USE: Kind =
    kind(StatusCode::CONFLICT, "idempotency_key_in_use", "The request is being carried out");
const IDEMPOTENCY_KEY_REUSED: Kind = kind(
    StatusCode::UNPROCESSABLE_ENTITY,
    "idempotency_key_reused",
    "The key was used for another request",
);
const PRECONDITION_FAILED: Kind =
    kind(StatusCode::PRECONDITION_FAILED, "precondition_failed", "The object changed");
const PRECONDITION_REQUIRED: Kind =
    kind(StatusCode::PRECONDITION_REQUIRED, "precondition_required", "A precondition is needed");
const TOO_LARGE: Kind = kind(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too long");
const UNSUPPORTED_MEDIA_TYPE: Kind = kind(
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    "unsupported_media_type",
    "The form of the body is not known",
);
const RATE_LIMITED: Kind = kind(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests");
const MOVED_TOO_OFTEN: Kind =
    kind(StatusCode::TOO_MANY_REQUESTS, "moved_too_often", "The bookmark has moved too often");
const TOO_MANY_AT_ONCE: Kind =
    kind(StatusCode::TOO_MANY_REQUESTS, "too_many_at_once", "Too many at once");
const UNAVAILABLE: Kind =
    kind(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available just now");
const DISK_FULL: Kind =
    kind(StatusCode::SERVICE_UNAVAILABLE, "disk_full", "No room left for changes");
const INTERNAL: Kind = kind(StatusCode::INTERNAL_SERVER_ERROR, "internal", "A fault on our side");

/// Every kind of problem that there is.
pub(crate) const KINDS: &[Kind] = &[
    BAD_REQUEST,
    INVALID,
    UNAUTHORIZED,
    FORBIDDEN_ORIGIN,
    INSUFFICIENT_SCOPE,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    NOT_ACCEPTABLE,
    REQUEST_TIMEOUT,
    CONFLICT,
    IDEMPOTENCY_KEY_IN_USE,
    IDEMPOTENCY_KEY_REUSED,
    PRECONDITION_FAILED,
    PRECONDITION_REQUIRED,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    RATE_LIMITED,
    MOVED_TOO_OFTEN,
    TOO_MANY_AT_ONCE,
    UNAVAILABLE,
    DISK_FULL,
    INTERNAL,
];

impl ApiError {
    /// Makes a fault on this side of any error.
    pub fn internal(error: impl Into<Box<dyn Error + Send + Sync>>) -> ApiError {
        ApiError::Internal(error.into())
    }

    /// Makes a refusal of one field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> ApiError {
        ApiError::Invalid {
            errors: vec![FieldError { pointer: pointer.into(), detail: detail.into() }],
        }
    }

    /// The status with which the error is answered.
    pub fn status(&self) -> StatusCode {
        self.classify().status
    }

    /// The stable name of the kind of problem.
    pub fn slug(&self) -> &'static str {
        self.classify().slug
    }

    /// Writes the error down for the client.
    pub(crate) fn to_problem(&self, request_id: &str) -> Problem {
        let Kind { status, slug, title } = self.classify();
        Problem {
            r#type: slug.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: status.is_client_error().then(|| self.to_string()),
            request_id: request_id.to_owned(),
            errors: if let ApiError::Invalid { errors } = self { errors.clone() } else { vec![] },
        }
    }

    /// Stands for an answer that a router or an extractor made on its own.
    pub(crate) fn from_status(status: StatusCode) -> ApiError {
        match status {
            StatusCode::NOT_FOUND => ApiError::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
            status if status.is_client_error() => ApiError::BadRequest {
                detail: "the path or the query of the request cannot be read".into(),
            },
            status => ApiError::internal(format!("a handler answered a bare {status}")),
        }
    }

    /// One arm for each variant, so that a new one does not compile without.
    fn classify(&self) -> Kind {
        match self {
            ApiError::BadRequest { .. } => BAD_REQUEST,
            ApiError::Invalid { .. } => INVALID,
            ApiError::Unauthorized => UNAUTHORIZED,
            ApiError::ForbiddenOrigin => FORBIDDEN_ORIGIN,
            ApiError::InsufficientScope { .. } => INSUFFICIENT_SCOPE,
            ApiError::AdminsOnly => ADMINS_ONLY,
            ApiError::ForeignForm => FOREIGN_FORM,
            ApiError::Misdirected => MISDIRECTED,
            ApiError::NotFound => NOT_FOUND,
            ApiError::MethodNotAllowed => METHOD_NOT_ALLOWED,
            ApiError::NotAcceptable { .. } => NOT_ACCEPTABLE,
            ApiError::RequestTimeout { .. } => REQUEST_TIMEOUT,
            ApiError::Conflict { .. } => CONFLICT,
            ApiError::IdempotencyKeyInUse => IDEMPOTENCY_KEY_IN_USE,
            ApiError::IdempotencyKeyReused => IDEMPOTENCY_KEY_REUSED,
            ApiError::PreconditionFailed => PRECONDITION_FAILED,
            ApiError::PreconditionRequired => PRECONDITION_REQUIRED,
            ApiError::TooLarge { .. } => TOO_LARGE,
            ApiError::UnsupportedMediaType { .. } => UNSUPPORTED_MEDIA_TYPE,
            ApiError::RateLimited(_) => RATE_LIMITED,
            ApiError::MovedTooOften(_) => MOVED_TOO_OFTEN,
            ApiError::TooManyAtOnce { .. } => TOO_MANY_AT_ONCE,
            ApiError::Unavailable { .. } => UNAVAILABLE,
            ApiError::DiskFull { .. } => DISK_FULL,
            ApiError::Internal(_) => INTERNAL,
        }
    }

    /// Header fields that belong to the answer beside the body.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        match self {
            ApiError::Unauthorized => {
                let bearer = HeaderValue::from_static("Bearer realm=\"postern\"");
                headers.insert(WWW_AUTHENTICATE, bearer);
            }
            ApiError::RateLimited(exhausted) | ApiError::MovedTooOften(exhausted) => {
                headers.insert(RETRY_AFTER, exhausted.retry_after_secs().into());
                exhausted.standing.write(&mut headers);
            }
            ApiError::IdempotencyKeyInUse => {
                headers.insert(RETRY_AFTER, whole_secs(Duration::ZERO).into());
            }
            ApiError::TooManyAtOnce { retry_after, .. }
            | ApiError::Unavailable { retry_after, .. }
            | ApiError::DiskFull { retry_after } => {
                headers.insert(RETRY_AFTER, whole_secs(*retry_after).into());
            }
            ApiError::BadRequest { .. }
            | ApiError::Invalid { .. }
            | ApiError::ForbiddenOrigin
            | ApiError::InsufficientScope { .. }
            | ApiError::AdminsOnly
            | ApiError::ForeignForm
            | ApiError::Misdirected
            | ApiError::NotFound
            | ApiError::MethodNotAllowed
            | ApiError::NotAcceptable { .. }
            | ApiError::RequestTimeout { .. }
            | ApiError::Conflict { .. }
            | ApiError::IdempotencyKeyReused
            | ApiError::PreconditionFailed
            | ApiError::PreconditionRequired
            | ApiError::TooLarge { .. }
            | ApiError::UnsupportedMediaType { .. }
            | ApiError::Internal(_) => {}
        }
        headers
    }
}

/// A failure on its way to the border, which knows the request id.
#[derive(Clone)]
pub(crate) struct PendingProblem(pub(crate) Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers();
        response.extensions_mut().insert(PendingProblem(Arc::new(self)));
        response
    }
}

/// The header fields of a router's own answer that stay when it becomes a problem.
pub(crate) const KEPT: [HeaderName; 2] = [ALLOW, RETRY_AFTER];

/// A span in seconds for `Retry-After`: rounded up, never zero.
pub(crate) fn whole_secs(span: Duration) -> u64 {
    span.as_secs().saturating_add(u64::from(span.subsec_nanos() > 0)).max(1)
}

fn fields(count: usize) -> String {
    if count == 1 { "one field".to_owned() } else { format!("{count} fields") }
}
