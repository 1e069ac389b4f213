//! What is shown once: the answer to the form that made it, kept by no cache and in no address.

use askama::Template;
use axum::response::Response;
use postern_shared::ids::PairId;
use postern_shared::token::Token;
use secrecy::{ExposeSecret as _, SecretString};

use super::path;
use crate::console::gate::Viewer;
use crate::http::ApiError;
use crate::page::draw_qr;

/// A bookmark that was just made.
pub(super) struct Bookmark<'a>(pub(super) &'a Token);

/// A server key that was just made.
pub(super) struct ServerKey<'a>(pub(super) &'a Token);

#[derive(Template)]
#[template(path = "console/pair/secrets.html")]
struct SecretsPage {
    path: String,
    proof: String,
    bookmark: Option<BookmarkView>,
    server_key: Option<ServerKeyView>,
    /// To whom the bookmark can be mailed; none where the plane sends no mail or knows no address.
    email: Option<String>,
    has_groups: bool,
}

struct BookmarkView {
    secret: SecretString,
    url: SecretString,
    /// The modules of a QR code, as the path of a picture.
    picture: SecretString,
    /// How many modules it is wide, its quiet zone included.
    width: usize,
}

struct ServerKeyView {
    secret: SecretString,
    url: SecretString,
}

/// Shows what a pair was given.
pub(super) fn show(
    viewer: &Viewer,
    pair: PairId,
    (bookmark, server_key): (Option<Bookmark<'_>>, Option<ServerKey<'_>>),
) -> Result<Response, ApiError> {
    let app = &viewer.app;
    let sends_mail = app.people().outbox().is_some();
    let (record, has_groups) = {
        let state = app.engine().state();
        let row = state.live_pair(viewer.org(), pair).map_err(|_| ApiError::NotFound)?;
        (row.record.clone(), !row.memberships.is_empty())
    };
    let bookmark = bookmark.map(|Bookmark(token)| {
        let url = app.url(&format!("/b/{}", token.expose()));
        let (picture, width) = draw_qr(&url);
        let secret = token.expose().into();
        BookmarkView { secret, url: url.into(), picture: picture.into(), width }
    });
    let server_key = server_key.map(|ServerKey(token)| ServerKeyView {
        secret: token.expose().into(),
        url: app.url(&format!("/serverquery/?key={}", token.expose())).into(),
    });
    let page = SecretsPage {
        path: path(record.number),
        proof: viewer.signed_in.proof(),
        bookmark,
        server_key,
        email: record.contact_email.filter(|_| sends_mail).map(|email| email.to_string()),
        has_groups,
    };
    Ok(viewer.show(record.name.as_str(), &page))
}
