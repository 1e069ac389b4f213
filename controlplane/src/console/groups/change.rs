//! Changing a group, and deleting it.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::{get, post};

use super::page::{Form, current, show_tried};
use super::{SECTION, path};
use crate::api::group_id;
use crate::app::App;
use crate::console::fields::Fields;
use crate::console::gate::{Sent, Viewer};
use crate::domain::{Command, GroupEdit};
use crate::http::ApiError;
use crate::people::see;

/// Asks whether a group is really to go.
#[derive(Template)]
#[template(path = "console/group/delete.html")]
struct DeletePage {
    path: String,
    proof: String,
    name: String,
    entries: usize,
    members: usize,
    hosts: usize,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/console/groups/{id}", post(edit))
        .route("/console/groups/{id}/delete", get(ask_delete).post(delete))
}

async fn edit(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let viewer = &sent.viewer;
    let group = group_id(&viewer.app.engine().state(), viewer.org(), &id)?;
    let mut fields = Fields::of(&sent);
    let (name, ttl) = (fields.label(), fields.ttl("ttl", "the longest time"));
    let expected = fields.expected(&current(&viewer.app.engine().state(), group)?);
    if let (Some(name), Some(ttl), Some(_)) = (name, ttl, expected) {
        let edit = GroupEdit { name: Some(name), ttl: Some(ttl) };
        let command = Command::EditGroup { org: viewer.org(), group, edit, expected };
        if fields.accept(sent.submit(command).await)?.is_some() {
            return Ok(see(&format!("{}/{id}", SECTION.path)));
        }
    }
    show_tried(viewer, group, Form::Settings, &fields)
}

async fn ask_delete(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    viewer.require_admin()?;
    let page = {
        let state = viewer.app.engine().state();
        let group = group_id(&state, viewer.org(), &id)?;
        let row = state.group(group).ok_or(ApiError::NotFound)?;
        let agents = state.agents_of(viewer.org());
        let follows = agents.filter(|it| it.revoked_at.is_none() && it.groups.contains(&group));
        DeletePage {
            path: path(row.record.number),
            proof: viewer.signed_in.proof(),
            name: row.record.name.to_string(),
            entries: row.list.len_at(viewer.now()),
            members: row.members.len(),
            hosts: follows.count(),
        }
    };
    Ok(viewer.show(&format!("Delete {}?", page.name), &page))
}

async fn delete(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let viewer = &sent.viewer;
    let group = group_id(&viewer.app.engine().state(), viewer.org(), &id)?;
    sent.submit(Command::DeleteGroup { org: viewer.org(), group, expected: None }).await?;
    Ok(see(SECTION.path))
}
