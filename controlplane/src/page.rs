//! What all pages share: one style, nothing from elsewhere, and script on none but the bookmark's.

use std::sync::LazyLock;

use askama::Template;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_shared::time::Timestamp;
use qrcode::{Color, EcLevel, QrCode};
use sha2::{Digest as _, Sha256};

use crate::config::WebOrigin;
use crate::http::ApiError;
use crate::http::problem::PendingProblem;

/// The style that every page carries.
pub(crate) const STYLE: &str = include_str!("../templates/page.css");

/// What a page may do: carry its own style and send its forms back to where it came from. The
/// hash names that one style, so that not even text that got past the escaping could add another.
static POLICY: LazyLock<HeaderValue> =
    LazyLock::new(|| HeaderValue::try_from(policy()).expect("the policy is plain text"));

/// A script that a page carries, and with whom it may speak beside us.
pub(crate) struct Script<'a> {
    pub(crate) text: &'static str,
    pub(crate) peer: Option<&'a WebOrigin>,
}

/// Answers with a page.
pub(crate) fn show(status: StatusCode, page: &impl Template) -> Response {
    let body = match page.render() {
        Ok(body) => body,
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let headers: [(HeaderName, HeaderValue); 2] = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, POLICY.clone()),
    ];
    (status, headers, body).into_response()
}

/// Answers with a page that carries one script.
pub(crate) fn show_with(script: &Script<'_>, status: StatusCode, page: &impl Template) -> Response {
    let mut response = show(status, page);
    let hash = STANDARD.encode(Sha256::digest(script.text));
    let peer = script.peer.map(|peer| format!(" {}", peer.as_str())).unwrap_or_default();
    let policy = format!("{}; script-src 'sha256-{hash}'; connect-src 'self'{peer}", policy());
    let policy = HeaderValue::try_from(policy).expect("hashes and origins are plain text");
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// Answers an error with a page in place of a problem; the header fields of the error stay.
pub(crate) fn show_error(error: ApiError, page: &impl Template) -> Response {
    let (parts, body) = show(error.status(), page).into_parts();
    let mut response = error.into_response();
    response.extensions_mut().remove::<PendingProblem>();
    response.headers_mut().extend(parts.headers);
    *response.body_mut() = body;
    response
}

/// A time as pages show it, to the minute; script turns it into the reader's own.
pub(crate) fn minute(at: Timestamp) -> String {
    let exact = at.to_string();
    // RFC 3339 has the date in its first ten characters, hour and minute from the twelfth on.
    format!("{} {} UTC", &exact[..10], &exact[11..16])
}

fn policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    )
}

/// Draws a QR code as the path of a picture, one square a dark module, with its quiet zone.
pub(crate) fn draw_qr(text: &str) -> (String, usize) {
    const QUIET: usize = 4;
    let code = QrCode::with_error_correction_level(text, EcLevel::L);
    // An address of 254 characters in percent signs fits; where nothing is drawn there is the text.
    let Ok(code) = code else { return (String::new(), 1) };
    let width = code.width();
    let colours = code.into_colors();
    let dark = colours.iter().enumerate().filter(|(_, colour)| **colour == Color::Dark);
    let squares = dark
        .map(|(place, _)| format!("M{} {}h1v1h-1z", place % width + QUIET, place / width + QUIET));
    (squares.collect(), width + 2 * QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_decoder_reads_the_picture() {
        let text = "otpauth://totp/Acme:a%40example.org?secret=GEZDGNBVGY3TQOJQ&issuer=Acme";

        let (path, width) = draw_qr(text);

        const SCALE: usize = 4;
        let mut dark = std::collections::BTreeSet::new();
        for square in path.split_terminator("h1v1h-1z") {
            let (x, y) = square.strip_prefix('M').unwrap().split_once(' ').unwrap();
            dark.insert((x.parse::<usize>().unwrap(), y.parse::<usize>().unwrap()));
        }
        let side = width * SCALE;
        let is_dark = |x: usize, y: usize| dark.contains(&(x / SCALE, y / SCALE));
        let mut picture = rqrr::PreparedImage::prepare_from_bitmap(side, side, is_dark);
        let grids = picture.detect_grids();
        assert_eq!(grids[0].decode().unwrap().1, text);
    }
}
