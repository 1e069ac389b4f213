//! Devices that report by themselves whenever the page is opened.
//!
//! A click may ask for that: its answer carries a cookie that only this plane can make and read.
//! Nothing is stored for it, so nothing is to be deleted: it is bound to the pair and to its present
//! bookmark, and worth nothing under a new one.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_shared::ids::PairId;
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::Bookmark;
use crate::app::App;
use crate::domain::Sealed;
use crate::http::cookie;
use crate::seal::Place;

/// Over TLS only, and sent to the one path for which it is.
const DEVICE: &str = "__Secure-postern-device";

/// How long a device is remembered after its last report.
const DEVICE_LIFE: Duration = Duration::from_secs(90 * 24 * 3_600);

/// What the page says of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Device {
    /// Somebody pressed, and wants it to report by itself from now on.
    Remember,
    /// It reports by itself.
    Itself,
    /// Somebody pressed, and wants to press from now on.
    Forget,
}

impl Device {
    /// Reads a form's word.
    pub(super) fn parse(text: &str) -> Option<Device> {
        match text {
            "remember" => Some(Device::Remember),
            "itself" => Some(Device::Itself),
            "forget" => Some(Device::Forget),
            _ => None,
        }
    }
}

/// Says whether the device was allowed to report by itself.
pub(super) fn is_remembered(app: &App, headers: &HeaderMap, bookmark: &Bookmark) -> bool {
    let value = cookie::read(headers, DEVICE);
    let Some(value) = value.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok()) else {
        return false;
    };
    let opened = app.people().sealer().open(place(&bookmark.pair), &Sealed(value));
    opened.is_ok_and(|text| is_good(text.expose_secret(), bookmark.hash, app.engine().now()))
}

/// Lets the device report by itself from now on. `path` is the page's own.
pub(super) fn remember(app: &App, response: &mut Response, bookmark: &Bookmark, path: &str) {
    let text = written(bookmark.hash, app.engine().now());
    let sealed = app.people().sealer().seal(place(&bookmark.pair), &text, app.engine().chance());
    set(response, &URL_SAFE_NO_PAD.encode(sealed.0), path, DEVICE_LIFE);
}

/// Has the device report no more by itself.
pub(super) fn forget(response: &mut Response, path: &str) {
    set(response, "", path, Duration::ZERO);
}

fn set(response: &mut Response, value: &str, path: &str, life: Duration) {
    let (attributes, age) = ("Secure; HttpOnly; SameSite=Strict", life.as_secs());
    cookie::add(response, format!("{DEVICE}={value}; Path={path}; {attributes}; Max-Age={age}"));
}

fn place(pair: &PairId) -> Place<'_> {
    Place { table: "pairs", row: pair.as_bytes(), purpose: "device" }
}

fn written(bookmark: TokenHash, now: Timestamp) -> Vec<u8> {
    [&now.unix_ms().to_be_bytes()[..], bookmark.as_bytes()].concat()
}

/// Says whether what was sealed is for this bookmark, and young enough.
fn is_good(text: &[u8], bookmark: TokenHash, now: Timestamp) -> bool {
    let Some((at, hash)) = text.split_first_chunk::<8>() else { return false };
    let Ok(at) = Timestamp::from_unix_ms(u64::from_be_bytes(*at)) else { return false };
    let is_its: bool = hash.ct_eq(bookmark.as_bytes()).into();
    is_its && at <= now && now.since(at) < DEVICE_LIFE
}

#[cfg(test)]
mod tests {
    use postern_shared::token::{Token, TokenKind};

    use super::*;

    #[test]
    fn a_device_is_remembered_for_ninety_days_and_one_bookmark() {
        let hash = |byte| Token::generate(TokenKind::Bookmark, |bytes| bytes.fill(byte)).hash();
        let now = Timestamp::from_unix_ms(1_767_225_600_000).unwrap();
        let text = written(hash(1), now);

        let almost = now.saturating_add(DEVICE_LIFE - Duration::from_millis(1));
        assert!(is_good(&text, hash(1), now) && is_good(&text, hash(1), almost));
        assert!(!is_good(&text, hash(1), now.saturating_add(DEVICE_LIFE)));
        assert!(!is_good(&text, hash(2), now), "another bookmark");
        assert!(!is_good(&text[..39], hash(1), now) && !is_good(b"", hash(1), now));
        let before = Timestamp::from_unix_ms(now.unix_ms() - 1).unwrap();
        assert!(!is_good(&text, hash(1), before), "from the future");
    }
}
