//! `/console/groups`: the groups of the org, and what each lets in.

mod change;
mod feeds;
pub(super) mod follow;
mod live;
mod members;
mod page;

use askama::Template;
use axum::Router;
use axum::response::Response;
use axum::routing::get;
use postern_shared::ids::GroupId;

use super::Section;
use super::fields::Fields;
use super::gate::{Sent, Viewer};
use super::show::Span;
use crate::api::once::Turn;
use crate::app::App;
use crate::domain::{Command, Group};
use crate::http::ApiError;
use crate::people::see;

pub(super) const SECTION: Section = Section { path: "/console/groups", name: "Groups", routes };

#[derive(Template)]
#[template(path = "console/group/list.html")]
struct GroupsPage<'a> {
    groups: Vec<Row>,
    /// What an admin's form carries; none for others, who only look.
    proof: Option<String>,
    once: String,
    fields: &'a Fields,
}

struct Row {
    number: u64,
    name: String,
    entries: usize,
    members: usize,
    ttl: Option<Span>,
}

/// Where the page of a group is.
pub(super) fn path(number: u64) -> String {
    format!("{}/{number}", SECTION.path)
}

fn routes() -> Router<App> {
    Router::new()
        .route(SECTION.path, get(list).post(make))
        .merge(page::routes())
        .merge(change::routes())
        .merge(members::routes())
}

async fn list(viewer: Viewer) -> Response {
    viewer.show("Groups", &page(&viewer, &Fields::default()))
}

async fn make(sent: Sent, turn: Turn) -> Result<Response, ApiError> {
    let mut fields = Fields::of(&sent);
    let (name, ttl) = (fields.label(), fields.ttl("ttl", "the longest time"));
    if let (Some(name), Some(ttl)) = (name, ttl) {
        let group = Group {
            id: GroupId::from_random(sent.viewer.app.engine().chance().id()),
            org: sent.viewer.org(),
            number: 0, // given by the decision
            name,
            ttl,
            created_at: sent.viewer.now(),
        };
        let place = format!("{}/{}", SECTION.path, group.id);
        let made = sent.submit_once(turn, Command::CreateGroup(group), place.clone()).await;
        if fields.accept(made)?.is_some() {
            return Ok(see(&place));
        }
    }
    Ok(sent.viewer.show_wrong("Groups", &page(&sent.viewer, &fields)))
}

fn page<'a>(viewer: &Viewer, fields: &'a Fields) -> GroupsPage<'a> {
    let (state, now) = (viewer.app.engine().state(), viewer.now());
    let groups = state.org(viewer.org()).into_iter().flat_map(|org| org.groups.values());
    let rows = groups.filter_map(|id| state.group(*id)).map(|row| Row {
        number: row.record.number,
        name: row.record.name.to_string(),
        entries: row.list.len_at(now),
        members: row.members.len(),
        ttl: row.record.ttl.map(|ttl| Span(ttl.as_duration())),
    });
    GroupsPage { groups: rows.collect(), proof: viewer.proof(), once: viewer.once(), fields }
}
