//! What a client prefers: `Prefer: wait=30` (RFC 7240).

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Longest wait that is granted to a request.
pub(crate) const WAIT_SECS_MAX: u64 = 30;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long the client would have the answer held back; capped at [`WAIT_SECS_MAX`]. As with all
/// preferences, one that cannot be read is passed over, and of two the first counts.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        is_wait.then(|| capped(value.trim().trim_matches('"')))?
    })
}

/// Reads a wait in whole seconds.
pub(crate) fn capped(secs: &str) -> Option<Duration> {
    let is_number = !secs.is_empty() && secs.bytes().all(|byte| byte.is_ascii_digit());
    // What does not fit into the number is longer than any wait that is granted.
    is_number.then(|| Duration::from_secs(secs.parse().unwrap_or(u64::MAX).min(WAIT_SECS_MAX)))
}

/// Says that the wait was granted.
pub(crate) fn applied(wait: Duration) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::try_from(format!("wait={}", wait.as_secs()));
    (PREFERENCE_APPLIED, value.expect("a number is plain text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_of(lines: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(PREFER, HeaderValue::from_static(line));
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn a_wait_is_read_and_capped() {
        for (lines, expected) in [
            (&["wait=5"][..], Some(5)),
            (&["respond-async, Wait = \"7\"; x=1"][..], Some(7)),
            (&["return=minimal", "wait=3", "wait=9"][..], Some(3)),
            (&["wait=31"][..], Some(30)),
            (&["wait=99999999999999999999999"][..], Some(30)),
            (&["wait=0"][..], Some(0)),
        ] {
            assert_eq!(wait_of(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        for line in ["", "wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "await=5"] {
            assert_eq!(wait_of(&[line]), None, "{line}");
        }
    }
}
