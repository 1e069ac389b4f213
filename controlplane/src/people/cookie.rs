//! The cookies: a login, a browser that is known, and what a form is bound to before a login.

use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_shared::ids::UserId;
use postern_shared::token::{Token, TokenHash, TokenKind};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::app::App;
use crate::domain::{LOGIN_LIFE, PasswordHash, Sealed};
use crate::http::cookie::{add, read};
use crate::seal::Place;

/// The browser takes a cookie of such a name from this very host only, over TLS, for all paths.
const LOGIN: &str = "__Host-postern";
const KNOWN: &str = "__Host-postern-known";
const FORM: &str = "__Host-postern-form";

/// How long a browser stays known.
const KNOWN_SECS: u64 = 365 * 24 * 3_600;

/// The secret of the login that the browser shows.
pub(super) fn login(headers: &HeaderMap) -> Option<Token> {
    let token: Token = read(headers, LOGIN)?.parse().ok()?;
    (token.kind() == TokenKind::Login).then_some(token)
}

/// The login that the browser shows, to be replaced by a new one.
pub(super) fn login_hash(headers: &HeaderMap) -> Option<TokenHash> {
    login(headers).map(|token| token.hash())
}

/// Hands a login to the browser.
pub(super) fn set_login(response: &mut Response, token: &Token) {
    let (value, age) = (token.expose(), LOGIN_LIFE.as_secs());
    let attributes = "Path=/; Secure; HttpOnly; SameSite=Lax";
    add(response, format!("{LOGIN}={value}; {attributes}; Max-Age={age}"));
}

/// Takes the login from the browser.
pub(super) fn clear_login(response: &mut Response) {
    add(response, format!("{LOGIN}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"));
}

/// Says whether the user has signed in with this browser under the present password. What says so
/// opens nothing; it only sets the browser apart from those of strangers, whose tries are counted
/// by themselves.
pub(super) fn is_known(
    app: &App,
    headers: &HeaderMap,
    user: UserId,
    password: Option<&PasswordHash>,
) -> bool {
    let Some(password) = password else { return false };
    let value = read(headers, KNOWN).and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
    let opened = value.map(|value| app.people().sealer().open(known_place(&user), &Sealed(value)));
    match opened {
        Some(Ok(text)) => text.expose_secret().ct_eq(&digest(password)).into(),
        Some(Err(_)) | None => false,
    }
}

/// Makes the browser known.
pub(super) fn set_known(app: &App, response: &mut Response, user: UserId, password: &PasswordHash) {
    let chance = app.engine().chance();
    let sealed = app.people().sealer().seal(known_place(&user), &digest(password), chance);
    let value = URL_SAFE_NO_PAD.encode(sealed.0);
    let attributes = "Path=/; Secure; HttpOnly; SameSite=Strict";
    add(response, format!("{KNOWN}={value}; {attributes}; Max-Age={KNOWN_SECS}"));
}

fn known_place(user: &UserId) -> Place<'_> {
    Place { table: "accounts", row: user.as_bytes(), purpose: "known browser" }
}

fn digest(password: &PasswordHash) -> [u8; 32] {
    Sha256::digest(format!("postern known browser {}", password.0)).into()
}

/// What the forms of a browser without a login are bound to.
pub(super) fn form(headers: &HeaderMap) -> Option<&str> {
    read(headers, FORM).filter(|value| !value.is_empty())
}

/// Draws what the forms of a browser without a login are bound to from now on.
pub(super) fn new_form(app: &App) -> String {
    URL_SAFE_NO_PAD.encode(app.engine().chance().id())
}

pub(super) fn set_form(response: &mut Response, value: &str) {
    add(response, format!("{FORM}={value}; Path=/; Secure; HttpOnly; SameSite=Strict"));
}
