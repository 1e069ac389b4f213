//! `/groups/{id}/members`: who and what belongs to a group.

use std::ops::Bound;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use postern_shared::ids::{GroupId, MemberId, OrgId, PairId};
use postern_shared::network::Network;
use postern_shared::openapi::label;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::Envelope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{GroupsRead, GroupsWrite, Holder};
use super::document::{GroupPath, IfMatch, MemberPath, OnceHeader, PagesOfMembers, pair_name};
use super::fields::{Fields, PairName};
use super::once::{Asked, Told};
use super::refusal::refused;
use super::{expected, group_id, pair_id, version};
use crate::app::App;
use crate::domain::{Change, Command, GroupRow, Label, Member, MemberKind, Row, State as Orgs};
use crate::http::paging::{Cursor, List, PageRequest, elsewhere};
use crate::http::{Answer, ApiError};

/// A member with what it stands for.
#[derive(Serialize, ToSchema)]
pub(super) struct MemberView<'a> {
    id: MemberId,
    #[serde(flatten)]
    kind: KindView<'a>,
    expires_at: Expiry,
    added_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum KindView<'a> {
    Pair { pair_id: PairId, number: u64, name: &'a str },
    Network { cidr: Network, note: &'a str },
}

/// What can be added to a group.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
enum MemberToAdd {
    /// Wherever a pair is.
    Pair(PairToAdd),
    /// A fixed network.
    Network(NetworkToAdd),
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct PairToAdd {
    /// The id of the pair, or its number, as such or as text.
    #[schema(schema_with = pair_name)]
    pair_id: String,
    /// When the membership ends; never, unless given.
    expires_at: Option<Timestamp>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct NetworkToAdd {
    cidr: Network,
    /// What the network is.
    #[schema(schema_with = label)]
    note: String,
    /// When the membership ends; never, unless given.
    expires_at: Option<Timestamp>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(show, remove))
}

/// A page of a group's members.
pub(super) fn page<'a>(
    state: &'a Orgs,
    row: &'a GroupRow,
    page: &PageRequest,
) -> Result<(Vec<MemberView<'a>>, Option<Cursor>), ApiError> {
    let group = row.record.id;
    let after = page.behind(List::Members)?.map(|key| split(group, key)).transpose()?;
    let after = after.map_or(Bound::Unbounded, Bound::Excluded);
    let rest = row.members.range((after, Bound::Unbounded)).map(|(_, row)| &row.record);
    let behind = |last: &&Member| [*group.as_bytes(), *last.id.as_bytes()].concat();
    let (members, next) = page.cut(rest, |last| Cursor::behind(List::Members, &behind(last)));
    Ok((members.into_iter().filter_map(|member| view(state, member)).collect(), next))
}

/// The member of a cursor, which names its group first: each group's members are a list of their own.
fn split(group: GroupId, key: [u8; 32]) -> Result<MemberId, ApiError> {
    let (its, member) = key.split_at(16);
    let member = member.try_into().ok().filter(|_| its == group.as_bytes());
    // Ids are ordered as their bytes are, and one made of an id's bytes is that id.
    member.map(MemberId::from_random).ok_or_else(elsewhere)
}

/// Lists the members of a group, in the order of their ids.
#[utoipa::path(
    get, path = "/api/v1/groups/{id}/members", operation_id = "listMembers", tag = "members",
    params(GroupPath, PagesOfMembers),
    security(("key" = ["groups.read"])),
    responses((status = 200, description = "A page of members", body = Envelope<Vec<MemberView<'static>>>)),
)]
async fn list(
    State(app): State<App>,
    holder: Holder<GroupsRead>,
    Path(id): Path<String>,
    request: PageRequest,
) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let id = group_id(&state, holder.org, &id)?;
    let row = state.group(id).ok_or(ApiError::NotFound)?;
    let (members, next) = page(&state, row, &request)?;
    Ok(Answer::page(&members, next))
}

/// Adds a pair, or a fixed network with what it is.
#[utoipa::path(
    post, path = "/api/v1/groups/{id}/members", operation_id = "addMember", tag = "members",
    params(OnceHeader, GroupPath),
    request_body = MemberToAdd,
    security(("key" = ["groups.write"])),
    responses((status = 201, description = "The new member", body = Envelope<MemberView<'static>>, headers(("Location" = String, description = "The path of the new object"), ("ETag" = String, description = "The version of the object")))),
)]
async fn add(
    State(app): State<App>,
    holder: Holder<GroupsWrite>,
    Path(id): Path<String>,
    Asked { attempt, body }: Asked<Fields>,
) -> Result<Answer, ApiError> {
    let group = group_id(&app.engine().state(), holder.org, &id)?;
    let (kind, expires) = read(&app, &holder, body)?;
    let member = Member {
        id: MemberId::from_random(app.engine().chance().id()),
        org: holder.org,
        group,
        kind,
        expires,
        added_at: app.engine().now(),
    };
    let new = member.clone();
    let tell = move |state: &Orgs, _: &[Change]| {
        let location = format!("/api/v1/groups/{}/members/{}", new.group, new.id);
        let view = view(state, &new).ok_or(ApiError::NotFound)?;
        Told::created(location, new.id.as_bytes(), &view)
    };
    attempt.carry_out(&app, holder.order(Command::AddMember(member)), tell).await
}

/// Shows a member.
#[utoipa::path(
    get, path = "/api/v1/groups/{id}/members/{member}", operation_id = "getMember", tag = "members",
    params(MemberPath),
    security(("key" = ["groups.read"])),
    responses((status = 200, description = "The member", body = Envelope<MemberView<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn show(
    State(app): State<App>,
    holder: Holder<GroupsRead>,
    Path((group, member)): Path<(String, String)>,
) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let (_, row) = find(&state, holder.org, &group, &member)?;
    let view = view(&state, &row.record).ok_or(ApiError::NotFound)?;
    Ok(Answer::ok(&view).with_etag(&version(row.record.id.as_bytes(), row.revision)))
}

/// Takes a member out of a group: what it allowed there closes.
#[utoipa::path(
    delete, path = "/api/v1/groups/{id}/members/{member}", operation_id = "removeMember", tag = "members",
    params(MemberPath, IfMatch),
    security(("key" = ["groups.write"])),
    responses((status = 204, description = "The member is gone")),
)]
async fn remove(
    State(app): State<App>,
    holder: Holder<GroupsWrite>,
    Path((group, member)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (group, member) = {
        let state = app.engine().state();
        let (group, row) = find(&state, holder.org, &group, &member)?;
        // A member is never edited: until it is removed its version is this one.
        expected(&headers, row.record.id.as_bytes(), row.revision)?;
        (group, row.record.id)
    };
    let command = Command::RemoveMember { org: holder.org, group, member };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads a new member: a pair, or a network with a note.
fn read(
    app: &App,
    holder: &Holder<GroupsWrite>,
    mut body: Fields,
) -> Result<(MemberKind, Expiry), ApiError> {
    let pair: Option<PairName> = body.optional("pair_id");
    let network: Option<Network> = body.optional("cidr");
    let note: Option<Label> = body.optional("note");
    let expires: Option<Option<Timestamp>> = body.nullable("expires_at");
    let now = app.engine().now();
    if expires.flatten().is_some_and(|at| at <= now) {
        body.refuse("expires_at", format!("must be later than now, which is {now}"));
    }
    if let Some(why) = network.and_then(|network| app.settings().refuses(network)) {
        body.refuse("cidr", why);
    }
    let find = |PairName(name): &PairName| pair_id(&app.engine().state(), holder.org, name).ok();
    let found = pair.as_ref().map(find);
    if body.is_clean() {
        match (found, network, &note) {
            (Some(Some(_)), None, None) | (None, Some(_), Some(_)) => {}
            (Some(None), ..) => body.refuse("pair_id", "is no pair of this org"),
            (Some(Some(_)), Some(_), _) => body.refuse("cidr", "cannot stand beside `pair_id`"),
            (Some(Some(_)), None, Some(_)) => body.refuse("note", "belongs to a `cidr`"),
            (None, Some(_), None) => body.refuse("note", "is missing: say what the network is"),
            (None, None, _) => body.refuse("pair_id", "is missing, or else `cidr` and `note`"),
        }
    }
    body.finish()?;
    let kind = match (found.flatten(), network, note) {
        (Some(pair), ..) => MemberKind::Pair(pair),
        (None, Some(network), Some(note)) => MemberKind::Network { network, note },
        (None, ..) => return Err(ApiError::field("/pair_id", "is missing")),
    };
    Ok((kind, Expiry::from(expires.flatten())))
}

/// Finds a member by its own id, or a pair's membership by the pair's id or number.
fn find<'a>(
    state: &'a Orgs,
    org: OrgId,
    group: &str,
    member: &str,
) -> Result<(GroupId, &'a Row<Member>), ApiError> {
    let group = group_id(state, org, group)?;
    let members = &state.group(group).ok_or(ApiError::NotFound)?.members;
    if let Some(row) = member.parse().ok().and_then(|id| members.get(&id)) {
        return Ok((group, row));
    }
    let pair = pair_id(state, org, member)?;
    let id = state.pair(pair).and_then(|pair| pair.memberships.get(&group));
    id.and_then(|id| members.get(id)).map(|row| (group, row)).ok_or(ApiError::NotFound)
}

fn view<'a>(state: &'a Orgs, member: &'a Member) -> Option<MemberView<'a>> {
    let kind = match &member.kind {
        MemberKind::Pair(id) => {
            let pair = &state.pair(*id)?.record;
            KindView::Pair { pair_id: *id, number: pair.number, name: pair.name.as_str() }
        }
        MemberKind::Network { network, note } => {
            KindView::Network { cidr: *network, note: note.as_str() }
        }
    };
    let Member { id, expires, added_at, .. } = member;
    Some(MemberView { id: *id, kind, expires_at: *expires, added_at: *added_at })
}
