//! Adding members to a group, and taking them out.

use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::post;
use postern_shared::ids::{GroupId, MemberId};
use postern_shared::network::Network;
use postern_shared::time::Expiry;

use super::SECTION;
use super::page::{Form, show_tried};
use crate::api::{group_id, pair_id};
use crate::app::App;
use crate::console::fields::Fields;
use crate::console::gate::Sent;
use crate::domain::{Command, Label, Member, MemberKind};
use crate::http::ApiError;
use crate::people::see;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/console/groups/{id}/members/pairs", post(add_pair))
        .route("/console/groups/{id}/members/networks", post(add_network))
        .route("/console/groups/{id}/members/{member}/remove", post(remove))
}

async fn add_pair(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let group = find(&sent, &id)?;
    let mut fields = Fields::of(&sent);
    let viewer = &sent.viewer;
    let pair = pair_id(&viewer.app.engine().state(), viewer.org(), fields.value("pair"));
    if pair.is_err() {
        fields.refuse("there is no pair of this number");
    }
    let kind = pair.ok().map(MemberKind::Pair);
    add(sent, &id, group, (Form::Pair, fields, kind)).await
}

async fn add_network(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let group = find(&sent, &id)?;
    let mut fields = Fields::of(&sent);
    let network: Option<Network> = fields.required("network", "the network");
    if let Some(why) = network.and_then(|it| sent.viewer.app.settings().refuses(it)) {
        fields.refuse(why);
    }
    let note: Option<Label> = fields.required("note", "what it is");
    let kind = network.zip(note).map(|(network, note)| MemberKind::Network { network, note });
    add(sent, &id, group, (Form::Network, fields, kind)).await
}

async fn add(
    sent: Sent,
    id: &str,
    group: GroupId,
    (form, mut fields, kind): (Form, Fields, Option<MemberKind>),
) -> Result<Response, ApiError> {
    let viewer = &sent.viewer;
    let ends = fields.ttl("ends", "the time");
    if let (Some(kind), Some(ends), []) = (kind, ends, fields.wrong()) {
        let now = viewer.now();
        let expires = ends.map(|ttl| now.saturating_add(ttl.as_duration()));
        let member = Member {
            id: MemberId::from_random(viewer.app.engine().chance().id()),
            org: viewer.org(),
            group,
            kind,
            expires: Expiry::from(expires),
            added_at: now,
        };
        if fields.accept(sent.submit(Command::AddMember(member)).await)?.is_some() {
            return Ok(see(&format!("{}/{id}#members", SECTION.path)));
        }
    }
    show_tried(viewer, group, form, &fields)
}

async fn remove(
    sent: Sent,
    Path((id, member)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let group = find(&sent, &id)?;
    let member: MemberId = member.parse().map_err(|_| ApiError::NotFound)?;
    sent.submit(Command::RemoveMember { org: sent.viewer.org(), group, member }).await?;
    Ok(see(&format!("{}/{id}#members", SECTION.path)))
}

fn find(sent: &Sent, id: &str) -> Result<GroupId, ApiError> {
    group_id(&sent.viewer.app.engine().state(), sent.viewer.org(), id)
}
