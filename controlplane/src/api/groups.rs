//! `/groups`: named sets of members.

use std::ops::Bound;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use postern_shared::ids::GroupId;
use postern_shared::openapi::label;
use postern_shared::position::Revision;
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::wire::v1::Envelope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{GroupsRead, GroupsWrite, Holder};
use super::document::{GroupPath, IfMatch, OnceHeader, PagesOfGroups, PagesOfMembers};
use super::fields::Fields;
use super::members::{self, MemberView};
use super::once::{Asked, Told};
use super::refusal::refused;
use super::{expected, group_id, version};
use crate::app::App;
use crate::domain::{Change, Command, Group, GroupEdit, GroupRow, State as Orgs};
use crate::http::paging::{Cursor, List, PageRequest};
use crate::http::{Answer, ApiError};

#[derive(Serialize, ToSchema)]
struct GroupView<'a> {
    id: GroupId,
    number: u64,
    name: &'a str,
    /// Seconds that a reported address counts here, at most.
    ttl: Option<Ttl>,
    members_count: usize,
    /// Networks that are allowed now.
    entries_count: usize,
    created_at: Timestamp,
}

/// A group with a page of its members.
#[derive(Serialize, ToSchema)]
struct GroupDetail<'a> {
    #[serde(flatten)]
    group: GroupView<'a>,
    members: Vec<MemberView<'a>>,
}

/// What a new group is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct GroupToCreate {
    #[schema(schema_with = label)]
    name: String,
    /// Seconds that a reported address counts here, at most.
    ttl: Option<Ttl>,
}

/// What to change of a group.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct GroupToEdit {
    #[schema(schema_with = label, required = false)]
    name: Option<String>,
    /// Seconds that a reported address counts here, at most.
    ttl: Option<Ttl>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, edit, delete))
}

/// Lists the groups, in the order of their numbers.
#[utoipa::path(
    get, path = "/api/v1/groups", operation_id = "listGroups", tag = "groups",
    params(PagesOfGroups),
    security(("key" = ["groups.read"])),
    responses((status = 200, description = "A page of groups", body = Envelope<Vec<GroupView<'static>>>)),
)]
async fn list(
    State(app): State<App>,
    holder: Holder<GroupsRead>,
    page: PageRequest,
) -> Result<Answer, ApiError> {
    let after = page
        .behind(List::Groups)?
        .map_or(Bound::Unbounded, |key| Bound::Excluded(u64::from_be_bytes(key)));
    let (state, now) = (app.engine().state(), app.engine().now());
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let rest = org.groups.range((after, Bound::Unbounded));
    let rest = rest.filter_map(|(_, id)| state.group(*id));
    let (rows, next) =
        page.cut(rest, |last| Cursor::behind(List::Groups, &last.record.number.to_be_bytes()));
    let views: Vec<GroupView<'_>> = rows.into_iter().map(|row| shown(row, now)).collect();
    Ok(Answer::page(&views, next))
}

/// Makes a group.
#[utoipa::path(
    post, path = "/api/v1/groups", operation_id = "createGroup", tag = "groups",
    params(OnceHeader),
    request_body = GroupToCreate,
    security(("key" = ["groups.write"])),
    responses((status = 201, description = "The new group", body = Envelope<GroupView<'static>>, headers(("Location" = String, description = "The path of the new object"), ("ETag" = String, description = "The version of the object")))),
)]
async fn create(
    State(app): State<App>,
    holder: Holder<GroupsWrite>,
    Asked { attempt, mut body }: Asked<Fields>,
) -> Result<Answer, ApiError> {
    let name = body.required("name");
    let ttl: Option<Option<Ttl>> = body.nullable("ttl");
    body.finish()?;
    let name = name.ok_or_else(|| ApiError::field("/name", "is missing"))?;

    let group = Group {
        id: GroupId::from_random(app.engine().chance().id()),
        org: holder.org,
        number: 0, // given by the decision
        name,
        ttl: ttl.flatten(),
        created_at: app.engine().now(),
    };
    let tell = |_: &Orgs, changes: &[Change]| {
        let group = changes.iter().find_map(|change| {
            if let Change::PutGroup(group) = change { Some(group) } else { None }
        });
        let group = group.ok_or_else(|| ApiError::internal("the order made no group"))?;
        let location = format!("/api/v1/groups/{}", group.id);
        Told::created(location, group.id.as_bytes(), &view(group, 0, 0))
    };
    attempt.carry_out(&app, holder.order(Command::CreateGroup(group)), tell).await
}

/// Shows a group with a page of its members.
#[utoipa::path(
    get, path = "/api/v1/groups/{id}", operation_id = "getGroup", tag = "groups",
    params(GroupPath, PagesOfMembers),
    security(("key" = ["groups.read"])),
    responses((status = 200, description = "The group", body = Envelope<GroupDetail<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn show(
    State(app): State<App>,
    holder: Holder<GroupsRead>,
    Path(id): Path<String>,
    page: PageRequest,
) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let id = group_id(&state, holder.org, &id)?;
    let row = state.group(id).ok_or(ApiError::NotFound)?;
    let (members, next) = members::page(&state, row, &page)?;
    let detail = GroupDetail { group: shown(row, app.engine().now()), members };
    Ok(Answer::page(&detail, next).with_etag(&version(id.as_bytes(), row.revision)))
}

/// Edits a group; what is left out stays.
#[utoipa::path(
    patch, path = "/api/v1/groups/{id}", operation_id = "editGroup", tag = "groups",
    params(GroupPath, IfMatch),
    request_body = GroupToEdit,
    security(("key" = ["groups.write"])),
    responses((status = 200, description = "The group as it is since", body = Envelope<GroupView<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn edit(
    State(app): State<App>,
    holder: Holder<GroupsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut body: Fields,
) -> Result<Answer, ApiError> {
    let edit = GroupEdit { name: body.optional("name"), ttl: body.nullable("ttl") };
    body.finish()?;

    let (group, expected) = target(&app, &holder, &id, &headers)?;
    let command = Command::EditGroup { org: holder.org, group, edit, expected };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;

    let state = app.engine().state();
    let row = state.group(group).ok_or(ApiError::NotFound)?;
    let etag = version(group.as_bytes(), row.revision);
    Ok(Answer::ok(&shown(row, app.engine().now())).with_etag(&etag))
}

/// Deletes a group with its members: what it allows closes.
#[utoipa::path(
    delete, path = "/api/v1/groups/{id}", operation_id = "deleteGroup", tag = "groups",
    params(GroupPath, IfMatch),
    security(("key" = ["groups.write"])),
    responses((status = 204, description = "The group is gone")),
)]
async fn delete(
    State(app): State<App>,
    holder: Holder<GroupsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (group, expected) = target(&app, &holder, &id, &headers)?;
    let command = Command::DeleteGroup { org: holder.org, group, expected };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The group that a change is about, and the version that it is held to.
fn target(
    app: &App,
    holder: &Holder<GroupsWrite>,
    id: &str,
    headers: &HeaderMap,
) -> Result<(GroupId, Option<Revision>), ApiError> {
    let state = app.engine().state();
    let id = group_id(&state, holder.org, id)?;
    let row = state.group(id).ok_or(ApiError::NotFound)?;
    Ok((id, expected(headers, id.as_bytes(), row.revision)?))
}

fn view(group: &Group, members_count: usize, entries_count: usize) -> GroupView<'_> {
    GroupView {
        id: group.id,
        number: group.number,
        name: group.name.as_str(),
        ttl: group.ttl,
        members_count,
        entries_count,
        created_at: group.created_at,
    }
}

/// A group as it is now.
fn shown(row: &GroupRow, now: Timestamp) -> GroupView<'_> {
    view(&row.record, row.members.len(), row.list.len_at(now))
}
