//! Forms, and the proof that a page of ours has sent them.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::app::App;
use crate::http::{ApiError, body};

/// Longest body of a form, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// The field that carries the proof.
const PROOF: &str = "proof";

/// The fields of a form. None is shown by `Debug`: any may be a secret.
#[derive(Debug)]
pub(crate) struct Form(BTreeMap<String, SecretString>);

/// What a form must prove beside coming from our own origin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// That it carries what was derived from the browser's cookie, as [`proof`] does.
    Cookie(&'a str),
    /// Nothing more: its address is a secret already.
    Address,
}

/// What a form carries that is bound to a cookie. The cookie's value cannot be told from it.
pub(crate) fn proof(cookie: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("postern form {cookie}")))
}

impl Form {
    /// Reads a form that a page of ours has sent. Where it comes from is looked at before the body
    /// is read.
    pub(crate) async fn read(
        app: &App,
        request: Request,
        wanted: Proof<'_>,
    ) -> Result<Form, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_ours(app, &parts.headers, wanted) {
            return Err(ApiError::ForeignForm);
        }
        let media_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        if !media_type.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let detail = "send a form (`application/x-www-form-urlencoded`)".to_owned();
            return Err(ApiError::UnsupportedMediaType { detail });
        }
        let bytes = body::read(body, BODY_BYTES_MAX).await?;
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(&bytes) {
            let value = SecretString::from(value.into_owned());
            if fields.insert(name.into_owned(), value).is_some() {
                let detail = "a field of the form is there twice".to_owned();
                return Err(ApiError::BadRequest { detail });
            }
        }
        let form = Form(fields);
        match wanted {
            Proof::Cookie(cookie) => {
                let is_right: bool =
                    form.text(PROOF).as_bytes().ct_eq(proof(cookie).as_bytes()).into();
                if !is_right {
                    return Err(ApiError::ForeignForm);
                }
            }
            Proof::Address => {}
        }
        Ok(form)
    }

    /// All fields, in the order of their names.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose_secret()))
    }

    /// The text of a field; empty where it is not there.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.expose_secret())
    }

    /// A field that is a secret.
    pub(crate) fn secret(&self, name: &str) -> SecretString {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// Says whether a browser sends the form from a page of ours, as far as it says at all: programs
/// and old browsers do not, and have only the proof.
fn is_ours(app: &App, headers: &HeaderMap, wanted: Proof<'_>) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    match (headers.get(ORIGIN), wanted) {
        (None, _) => true,
        // What a browser says for a page that keeps its address to itself.
        (Some(origin), Proof::Address) if origin == "null" => true,
        (Some(origin), _) => {
            let ours = app.settings().public_url.to_string();
            origin.to_str().is_ok_and(|origin| origin.eq_ignore_ascii_case(&ours))
        }
    }
}
