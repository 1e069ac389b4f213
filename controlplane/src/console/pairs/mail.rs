//! Mailing a bookmark to its owner.
//!
//! The plane itself knows only the bookmark's hash: the page that shows it, once, sends it back.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::post;
use postern_shared::token::{Token, TokenKind};

use super::SECTION;
use crate::api::pair_id;
use crate::app::App;
use crate::console::gate::Sent;
use crate::domain::{Command, Email, Pair};
use crate::http::ApiError;
use crate::mail::{Addressee, Letter};
use crate::people::see;

/// When to try again while letters queue up.
const FULL_RETRY: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<App> {
    Router::new().route("/console/pairs/{id}/mail", post(mail))
}

async fn mail(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let conflict = |detail: &str| ApiError::Conflict { detail: detail.to_owned() };
    let viewer = &sent.viewer;
    let (pair, org) = {
        let state = viewer.app.engine().state();
        let id = pair_id(&state, viewer.org(), &id)?;
        let pair = state.pair(id).ok_or(ApiError::NotFound)?.record.clone();
        let org = state.org(viewer.org()).map(|row| row.record.name.to_string());
        (pair, org.unwrap_or_default())
    };
    let outbox = viewer.app.people().outbox();
    let outbox = outbox.ok_or_else(|| conflict("this control plane sends no mail"))?;
    let to = pair.contact_email.clone();
    let to = to.ok_or_else(|| conflict("the pair has no owner to mail it to"))?;
    let bookmark = sent.form.text("bookmark").parse::<Token>().ok();
    let bookmark = bookmark.filter(|it| it.kind() == TokenKind::Bookmark);
    let bookmark = bookmark
        .ok_or_else(|| conflict("the bookmark is not in force any more; make a new one"))?;
    let url = viewer.app.url(&format!("/b/{}", bookmark.expose()));
    let room = outbox.reserve().map_err(|full| ApiError::Unavailable {
        reason: full.to_string(),
        retry_after: FULL_RETRY,
    })?;
    let noted = Command::NoteBookmarkMailed {
        org: pair.org,
        pair: pair.id,
        bookmark: bookmark.hash(),
        to: to.clone(),
    };
    // First: what is not in the audit does not go out.
    sent.submit(noted).await?;
    room.send(letter(&pair, to, &org, (&bookmark, &url)));
    Ok(see(&format!("{}/{id}", SECTION.path)))
}

fn letter(pair: &Pair, to: Email, org: &str, (bookmark, url): (&Token, &str)) -> Letter {
    let name = &pair.name;
    Letter {
        addressee: Addressee::Pair(pair.id),
        to,
        subject: format!("Your bookmark for {org}"),
        body: format!(
            "{org} lets you in from wherever you are, as \"{name}\".\n\n\
             Open this link there and press its button, or keep it as a bookmark:\n\n\
             {url}\n\n\
             It is a secret, like a key: whoever has the link is let in in your place. If you lose\n\
             it, ask for a new one. If you expect no such mail, you need do nothing.\n"
        )
        .into(),
        secret: Some(bookmark.hash()),
    }
}
