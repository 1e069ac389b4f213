//! What a client is told whose connection is not taken.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::http::ApiError;
use crate::http::problem::PROBLEM_JSON;
use crate::server::listener::Accepted;

/// Refused clients that are answered at once; further ones are cut off.
pub(crate) const LINGERING_MAX: usize = 64;

/// How long a refused client may take to read its answer.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read and thrown away, so that the answer is not lost to a reset.
const LINGER_BYTES_MAX: u64 = 16 * 1024;

/// When a refused client may try again.
const RETRY: Duration = Duration::from_secs(5);

/// Stands for a request id: the request was never read.
const NO_REQUEST: &str = "none";

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All seats are taken.
    Full,
    /// The peer has its share of the seats.
    TooManyOfPeer,
    /// No TLS, from elsewhere than this machine or a trusted proxy.
    PlainHttp,
}

impl Refusal {
    /// The reason as a label for metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Refusal::Full => "full",
            Refusal::TooManyOfPeer => "peer",
            Refusal::PlainHttp => "plain",
        }
    }

    /// Answers before anything was asked, where that can be read: a client that expects TLS is
    /// cut off instead, since a handshake costs more than the answer is worth.
    pub(crate) async fn tell(self, accepted: Accepted) {
        let Some(mut socket) = accepted.into_plain() else { return };
        let telling = async {
            socket.write_all(self.answer().as_bytes()).await?;
            socket.shutdown().await?;
            let mut rest = socket.take(LINGER_BYTES_MAX);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        if !matches!(timeout(LINGER, telling).await, Ok(Ok(_))) {
            tracing::debug!(reason = self.label(), "a refused client did not wait for the answer");
        }
    }

    fn answer(self) -> String {
        let error = match self {
            Refusal::Full | Refusal::TooManyOfPeer => {
                ApiError::Unavailable { reason: self.label().to_owned(), retry_after: RETRY }
            }
            Refusal::PlainHttp => ApiError::BadRequest {
                detail: "use https: without TLS only trusted proxies are served here".into(),
            },
        };
        let body = serde_json::to_string(&error.to_problem(NO_REQUEST))
            .expect("a problem has only plain fields");
        let media_type = PROBLEM_JSON.to_str().expect("the media type is plain text").to_owned();
        let response = error.into_response();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after =
            retry_after.map_or(String::new(), |secs| format!("retry-after: {secs}\r\n"));
        format!(
            "HTTP/1.1 {}\r\ncontent-type: {media_type}\r\n{retry_after}connection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            response.status(),
            body.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_from_afar_is_told_what_to_do() {
        let answer = Refusal::PlainHttp.answer();

        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains("use https"), "{body}");
    }
}
