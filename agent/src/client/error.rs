//! What can go wrong with a request to the control plane.

use std::time::Duration;

use postern_shared::wire::v1::Problem;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;

/// Longest piece of a foreign text that goes into a log line.
const DETAIL_CHARS_MAX: usize = 200;

/// Why a request had no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaneError {
    /// No answer: name, network, handshake or a connection that broke.
    #[error("the control plane cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Something else answers at the plane's address, or its key was replaced.
    #[error(
        "whoever answers at the control plane's address has another key than the one this host \
         was given: somebody may be in between; if the plane's key was replaced, enrol again"
    )]
    WrongKey,
    /// The plane knows this agent's secrets no more.
    #[error(
        "this agent's credential is not in force, it was revoked or replaced: enrol again with a \
         new invitation (`postern-agent enroll --replace`) and restart the agent; what is open \
         stays open until its deadlines"
    )]
    NotInForce,
    /// No answer in time.
    #[error("the control plane did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// An answer that is not a success.
    #[error("the control plane answered {status} {kind}{}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The slug of the problem; empty where the answer carried none.
        kind: String,
        /// What the plane says to change.
        detail: Option<String>,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that the control plane would not give.
    #[error("the answer is not one of a control plane: {0}")]
    Malformed(String),
}

impl PlaneError {
    /// Takes an error of the HTTP client, without the URL, which may hold a secret.
    pub(super) fn from_transport(error: reqwest::Error) -> PlaneError {
        let error = error.without_url();
        if is_wrong_key(&error) { PlaneError::WrongKey } else { PlaneError::Unreachable(error) }
    }

    /// Reads an answer that is not a success.
    pub(super) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> PlaneError {
        let problem: Option<Problem> = serde_json::from_slice(body).ok();
        let (kind, detail) = match problem {
            Some(problem) => (clip(&problem.r#type), problem.detail.map(|detail| clip(&detail))),
            None => (String::new(), None),
        };
        let retry_after = headers
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        PlaneError::Refused { status: status.as_u16(), kind, detail, retry_after }
    }

    /// Takes an answer to a request that carried the agent's credential.
    pub(super) fn of_credential(self) -> PlaneError {
        if self.is_refusal(401, "unauthorized") { PlaneError::NotInForce } else { self }
    }

    /// Takes an answer to a request that carried the bookmark, which is part of the credential.
    pub(super) fn of_bookmark(self) -> PlaneError {
        if self.is_refusal(404, "not_found") { PlaneError::NotInForce } else { self }
    }

    fn is_refusal(&self, of_status: u16, of_kind: &str) -> bool {
        matches!(self, PlaneError::Refused { status, kind, .. }
            if *status == of_status && kind == of_kind)
    }

    /// The address that this host was last seen with is not the one it has now: report it first.
    pub(crate) fn wants_beacon(&self) -> bool {
        self.is_refusal(403, "forbidden_origin")
    }

    /// Says whether the same request would be refused again, whoever sends it and whenever.
    pub(crate) fn blames_request(&self) -> bool {
        matches!(self, PlaneError::Refused { status: 400 | 404 | 409 | 413 | 415 | 422, .. })
    }

    /// How long the plane asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            PlaneError::Refused { retry_after, .. } => *retry_after,
            PlaneError::Unreachable(_)
            | PlaneError::WrongKey
            | PlaneError::NotInForce
            | PlaneError::TimedOut(_)
            | PlaneError::Malformed(_) => None,
        }
    }

    /// Says whether the connection itself is in doubt.
    pub(crate) fn doubts_connection(&self) -> bool {
        match self {
            PlaneError::Unreachable(_) | PlaneError::TimedOut(_) => true,
            PlaneError::WrongKey
            | PlaneError::NotInForce
            | PlaneError::Refused { .. }
            | PlaneError::Malformed(_) => false,
        }
    }
}

fn is_wrong_key(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(why)) = error.downcast_ref() {
        return matches!(why, rustls::CertificateError::ApplicationVerificationFailure);
    }
    // An I/O error hides what it carries from `source`, and may carry another one.
    match error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()) {
        Some(carried) => is_wrong_key(carried),
        None => error.source().is_some_and(is_wrong_key),
    }
}

/// Cuts a foreign text to what a log line can take, control characters left out.
pub(super) fn clip(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(DETAIL_CHARS_MAX).collect()
}
