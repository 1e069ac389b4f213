//! `/console/groups/{id}`: one group.

use std::ops::Bound;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query};
use axum::response::Response;
use axum::routing::get;
use postern_shared::format::flat;
use postern_shared::ids::{GroupId, MemberId};
use postern_shared::network::Network;
use serde::Deserialize;

use super::feeds::{Feed, feeds};
use super::live::Live;
use super::path;
use crate::api::group_id;
use crate::app::App;
use crate::console::fields::{Fields, Forms, written};
use crate::console::gate::Viewer;
use crate::console::show::{Left, Span, When};
use crate::console::version::{self, Current, Now};
use crate::domain::{GroupRow, Member, MemberKind, OrgRow, State as Orgs};
use crate::http::ApiError;

/// Most members on one page.
const MEMBERS_SHOWN_MAX: usize = 200;
/// An org with more pairs than that gets a field for a pair's number in place of a choice.
const PAIRS_OFFERED_MAX: usize = 200;

/// A form of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Settings,
    Pair,
    Network,
}

#[derive(Template)]
#[template(path = "console/group/page.html")]
struct GroupPage<'a> {
    path: String,
    number: u64,
    name: String,
    ttl: Option<Span>,
    ttl_written: String,
    created_at: When,
    live: Live,
    members: Vec<MemberRow>,
    members_count: usize,
    /// The last member of the page, where there are more behind it.
    members_next: Option<MemberId>,
    feeds: Vec<Feed>,
    change: Option<Change<'a>>,
}

/// What only admins see.
struct Change<'a> {
    proof: String,
    version: String,
    pairs: Pairs,
    forms: Forms<'a, Form>,
}

/// The pairs that can be added.
enum Pairs {
    Few(Vec<Choice>),
    Many,
}

struct Choice {
    number: u64,
    name: String,
}

struct MemberRow {
    id: MemberId,
    name: String,
    /// The page of the pair.
    path: Option<String>,
    networks: Vec<String>,
    until: Option<Left>,
    is_over: bool,
    added_at: When,
}

/// Which part of the members is shown.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Part {
    after: Option<MemberId>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/console/groups/{id}", get(show))
}

async fn show(
    viewer: Viewer,
    Path(id): Path<String>,
    Query(part): Query<Part>,
) -> Result<Response, ApiError> {
    let id = group_id(&viewer.app.engine().state(), viewer.org(), &id)?;
    let page = page(&viewer, id, &part, None)?;
    Ok(viewer.show(&page.name, &page))
}

/// Shows the page with a form that was not taken.
pub(super) fn show_tried(
    viewer: &Viewer,
    group: GroupId,
    form: Form,
    fields: &Fields,
) -> Result<Response, ApiError> {
    let page = page(viewer, group, &Part::default(), Some((form, fields)))?;
    Ok(viewer.show_wrong(&page.name, &page))
}

/// A group, as the form of its settings would show it.
pub(super) fn current(state: &Orgs, id: GroupId) -> Result<Current<'_>, ApiError> {
    let row = state.group(id).ok_or(ApiError::NotFound)?;
    let (name, ttl) = (row.record.name.to_string(), row.record.ttl.map(written));
    let fields = vec![
        Now { name: "name", called: "the name", value: name },
        Now { name: "ttl", called: "the longest time", value: ttl.unwrap_or_default() },
    ];
    Ok(Current { id: row.record.id.as_bytes(), revision: row.revision, fields, said: None })
}

fn page<'a>(
    viewer: &Viewer,
    id: GroupId,
    part: &Part,
    tried: Option<(Form, &'a Fields)>,
) -> Result<GroupPage<'a>, ApiError> {
    let live = Live::of(&viewer.app, id).ok_or(ApiError::NotFound)?;
    let state = viewer.app.engine().state();
    let row = state.group_of(viewer.org(), id).map_err(|_| ApiError::NotFound)?;
    let org = state.org(viewer.org()).ok_or(ApiError::NotFound)?;
    let (members, members_next) = members(viewer, &state, row, part);
    let change = viewer.proof().map(|proof| Change {
        proof,
        version: version::written(id.as_bytes(), row.revision),
        pairs: pairs(&state, org, id),
        forms: Forms::new(tried),
    });
    let record = &row.record;
    Ok(GroupPage {
        path: path(record.number),
        number: record.number,
        name: record.name.to_string(),
        ttl: record.ttl.map(|ttl| Span(ttl.as_duration())),
        ttl_written: record.ttl.map(written).unwrap_or_default(),
        created_at: When(record.created_at),
        live,
        members,
        members_count: row.members.len(),
        members_next,
        feeds: feeds(&viewer.app, record.number),
        change,
    })
}

fn members(
    viewer: &Viewer,
    state: &Orgs,
    row: &GroupRow,
    part: &Part,
) -> (Vec<MemberRow>, Option<MemberId>) {
    let after = part.after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = row.members.range((after, Bound::Unbounded)).map(|(_, row)| &row.record);
    let rows = rest.by_ref().take(MEMBERS_SHOWN_MAX);
    let rows: Vec<MemberRow> = rows.map(|member| shown(viewer, state, member)).collect();
    let last = rows.last().map(|row| row.id);
    let next = rest.next().and(last);
    (rows, next)
}

fn shown(viewer: &Viewer, state: &Orgs, member: &Member) -> MemberRow {
    let now = viewer.now();
    let name = state.member_name(&member.kind).map(ToString::to_string).unwrap_or_default();
    let (path, networks) = match &member.kind {
        MemberKind::Network { network, .. } => (None, vec![flat(*network)]),
        MemberKind::Pair(id) => {
            let pair = state.pair(*id);
            let is_fresh = |network: &Network| {
                let stale_at = pair.and_then(|pair| pair.stale_at(network.address()));
                stale_at.is_some_and(|at| now < at)
            };
            let spots = pair.and_then(|pair| pair.report).into_iter();
            let spots = spots.flat_map(|report| report.networks().map(|(network, _)| network));
            let path = pair.map(|pair| crate::console::pairs::path(pair.record.number));
            (path, spots.filter(is_fresh).map(flat).collect())
        }
    };
    MemberRow {
        id: member.id,
        name,
        path,
        networks,
        until: Left::until(member.expires, now),
        is_over: !member.expires.is_live_at(now),
        added_at: When(member.added_at),
    }
}

fn pairs(state: &Orgs, org: &OrgRow, group: GroupId) -> Pairs {
    if PAIRS_OFFERED_MAX < org.pairs_live {
        return Pairs::Many;
    }
    let rows = org.pairs.values().filter_map(|id| state.pair(*id));
    let free = rows.filter(|row| row.is_live() && !row.memberships.contains_key(&group));
    let choice =
        free.map(|row| Choice { number: row.record.number, name: row.record.name.to_string() });
    Pairs::Few(choice.collect())
}
