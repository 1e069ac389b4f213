//! Changing a pair: its settings, its secrets, where it is, and its end.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};
use postern_shared::ids::{MemberId, PairId};
use postern_shared::time::Expiry;
use postern_shared::token::TokenKind;

use super::page::{Form, show_tried};
use super::secrets::{self, Bookmark, ServerKey};
use super::{SECTION, page, path};
use crate::api::once::Turn;
use crate::api::{group_id, pair_id};
use crate::app::App;
use crate::console::fields::Fields;
use crate::console::gate::{Sent, Viewer};
use crate::domain::{Command, Email, Member, MemberKind, PairEdit};
use crate::http::ApiError;
use crate::people::see;

/// Asks whether a pair is really to go.
#[derive(Template)]
#[template(path = "console/pair/delete.html")]
struct DeletePage {
    path: String,
    proof: String,
    name: String,
    addresses: usize,
    groups: usize,
    locks: usize,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/console/pairs/{id}", post(edit))
        .route("/console/pairs/{id}/groups", post(join))
        .route("/console/pairs/{id}/bookmark", post(rotate_bookmark))
        .route("/console/pairs/{id}/server-key", post(rotate_server_key))
        .route("/console/pairs/{id}/close", post(close))
        .route("/console/pairs/{id}/delete", get(ask_delete).post(delete))
}

async fn edit(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let pair = find(&sent, &id)?;
    let mut fields = Fields::of(&sent);
    let name = fields.label();
    let email = fields.optional::<Email>("email", "the owner's mail address");
    let ttl = fields.ttl("ttl", "the time");
    if ttl == Some(None) {
        fields.refuse("the time is missing; write a span of time such as 90s, 15m, 12h or 7d");
    }
    let viewer = &sent.viewer;
    let expected = fields.expected(&page::current(&viewer.app.engine().state(), pair)?);
    if let (Some(name), Some(email), Some(Some(ttl)), Some(_)) = (name, email, ttl, expected) {
        let edit = PairEdit {
            name: Some(name),
            contact_email: Some(email),
            ttl: Some(ttl),
            reports_by_get: Some(fields.value("by-get") == "yes"),
        };
        let command = Command::EditPair { org: viewer.org(), pair, edit, expected };
        if fields.accept(sent.submit(command).await)?.is_some() {
            return Ok(see(&format!("{}/{id}", SECTION.path)));
        }
    }
    show_tried(viewer, pair, Form::Settings, &fields)
}

async fn join(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let pair = find(&sent, &id)?;
    let mut fields = Fields::of(&sent);
    let viewer = &sent.viewer;
    let group = group_id(&viewer.app.engine().state(), viewer.org(), fields.value("group"));
    if let Ok(group) = group {
        let member = Member {
            id: MemberId::from_random(viewer.app.engine().chance().id()),
            org: viewer.org(),
            group,
            kind: MemberKind::Pair(pair),
            expires: Expiry::Never,
            added_at: viewer.now(),
        };
        if fields.accept(sent.submit(Command::AddMember(member)).await)?.is_some() {
            return Ok(see(&format!("{}/{id}", SECTION.path)));
        }
    } else {
        fields.refuse("there is no such group");
    }
    show_tried(viewer, pair, Form::Join, &fields)
}

async fn rotate_bookmark(
    sent: Sent,
    Path(id): Path<String>,
    turn: Result<Turn, Response>,
) -> Result<Response, ApiError> {
    let pair = find(&sent, &id)?;
    let turn = match turn {
        Ok(turn) => turn,
        Err(page) => return Ok(page),
    };
    let viewer = &sent.viewer;
    let bookmark = viewer.app.engine().chance().token(TokenKind::Bookmark);
    let (org, hash) = (viewer.org(), bookmark.hash());
    let command = Command::RotateBookmark { org, pair, hash, expected: None };
    sent.submit_once(turn, command, format!("{}/{id}", SECTION.path)).await?;
    secrets::show(viewer, pair, (Some(Bookmark(&bookmark)), None))
}

async fn rotate_server_key(
    sent: Sent,
    Path(id): Path<String>,
    turn: Result<Turn, Response>,
) -> Result<Response, ApiError> {
    let pair = find(&sent, &id)?;
    let turn = match turn {
        Ok(turn) => turn,
        Err(page) => return Ok(page),
    };
    let viewer = &sent.viewer;
    let server_key = viewer.app.engine().chance().token(TokenKind::Server);
    let (org, hash) = (viewer.org(), server_key.hash());
    let command = Command::RotateServerKey { org, pair, hash, expected: None };
    sent.submit_once(turn, command, format!("{}/{id}", SECTION.path)).await?;
    secrets::show(viewer, pair, (None, Some(ServerKey(&server_key))))
}

async fn close(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let pair = find(&sent, &id)?;
    sent.submit(Command::CloseAddresses { org: sent.viewer.org(), pair }).await?;
    Ok(see(&format!("{}/{id}", SECTION.path)))
}

async fn ask_delete(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    viewer.require_admin()?;
    let page = {
        let state = viewer.app.engine().state();
        let pair = pair_id(&state, viewer.org(), &id)?;
        let row = state.pair(pair).ok_or(ApiError::NotFound)?;
        DeletePage {
            path: path(row.record.number),
            proof: viewer.signed_in.proof(),
            name: row.record.name.to_string(),
            addresses: page::spots(row, viewer.now()).len(),
            groups: row.memberships.len(),
            locks: row.locks,
        }
    };
    Ok(viewer.show(&format!("Delete {}?", page.name), &page))
}

async fn delete(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let pair = find(&sent, &id)?;
    sent.submit(Command::DeletePair { org: sent.viewer.org(), pair, expected: None }).await?;
    Ok(see(SECTION.path))
}

fn find(sent: &Sent, id: &str) -> Result<PairId, ApiError> {
    pair_id(&sent.viewer.app.engine().state(), sent.viewer.org(), id)
}
