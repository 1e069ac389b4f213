//! The name by which a caller reached us.
//!
//! Whoever owns a name can let it lead to this machine (DNS rebinding): a browser then takes our
//! pages for theirs, asks from the address of whoever sits before it, and reaches what listens on
//! its own loopback interface. So what browsers are for answers under our own names alone. An
//! address cannot be rebound, and is always one of them.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::HOST;

use super::ApiError;

/// Refuses a request under a name that is neither an address, nor this machine's for itself, nor
/// one that `is_ours` knows. That gets it without port, in lower case. Every browser says a name.
pub(crate) fn check(request: &Request, is_ours: impl Fn(&str) -> bool) -> Result<(), ApiError> {
    let asked = match (request.uri().authority(), request.headers().get(HOST)) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().unwrap_or_default(),
        (None, None) => return Ok(()),
    };
    let name = name(asked);
    let is_fixed = name == "localhost" || name.parse::<IpAddr>().is_ok();
    if is_fixed || is_ours(&name) { Ok(()) } else { Err(ApiError::Misdirected) }
}

/// The host of `host:port`, an address of IPv6 without its brackets.
fn name(host: &str) -> String {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    bare.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(host: &str) -> Result<(), ApiError> {
        let request = Request::get("/").header(HOST, host).body(Body::empty()).unwrap();
        check(&request, |name| name == "plane.example")
    }

    #[test]
    fn names_of_others_are_refused_and_addresses_and_our_own_are_not() {
        for ours in [
            "plane.example",
            "PLANE.example:8443",
            "plane.example.",
            "localhost:8080",
            "192.0.2.1",
            "192.0.2.1:8443",
            "[2001:db8::1]:8443",
            "[::1]",
        ] {
            assert!(asked(ours).is_ok(), "{ours}");
        }
        for other in
            ["", "rebound.example", "plane.example.rebound.example", "xplane.example", "[]", "1"]
        {
            assert!(matches!(asked(other), Err(ApiError::Misdirected)), "{other}");
        }
    }

    #[test]
    fn the_authority_of_http2_counts_as_the_header_field_does() {
        let request = Request::get("https://rebound.example/").header(HOST, "plane.example");

        let checked = check(&request.body(Body::empty()).unwrap(), |name| name == "plane.example");

        assert!(matches!(checked, Err(ApiError::Misdirected)));
    }
}
