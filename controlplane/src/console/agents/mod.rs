//! `/console/agents`: the hosts that follow lists, and how a new one gets in.

mod host;
mod invite;

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::{get, post};
use postern_shared::ids::{AgentId, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;

use super::Section;
use super::condition::{Presence, Reach};
use super::fields::Fields;
use super::gate::{Sent, Viewer};
use super::rows::{After, Rows};
use super::show::When;
use crate::app::App;
use crate::domain::{Agent, Board, Credential, State};

pub(super) const SECTION: Section = Section { path: "/console/agents", name: "Hosts", routes };

/// Most groups that can be ticked in one form, beside those that are ticked already.
const TICKS_MAX: usize = 1_000;

#[derive(Template)]
#[template(path = "console/agents.html")]
struct AgentsPage<'a> {
    rows: Vec<Row>,
    next: Option<AgentId>,
    invited: Vec<Invited>,
    /// What an admin's form carries; none for others, who only look.
    proof: Option<String>,
    once: String,
    fields: &'a Fields,
    ticks: Ticks,
}

struct Row {
    id: AgentId,
    name: String,
    presence: Presence,
    heard_at: Option<When>,
    addresses: String,
    version: String,
    /// How many lists are in force on it, and how many should be.
    live: usize,
    lists: usize,
}

/// An invitation that was not used yet.
struct Invited {
    name: String,
    groups: String,
    until: When,
}

/// Groups to tick in a form.
struct Ticks {
    shown: Vec<Tick>,
    /// How many there are beside those.
    more: usize,
}

struct Tick {
    number: u64,
    name: String,
    is_ticked: bool,
}

fn routes() -> Router<App> {
    Router::new()
        .route(SECTION.path, get(list).post(invite::invite))
        .route("/console/agents/{id}", get(host::show))
        .route("/console/agents/{id}/groups", post(host::set_groups))
        .route("/console/agents/{id}/revoke", get(host::ask).post(host::revoke))
}

async fn list(viewer: Viewer, Query(After { after }): Query<After<AgentId>>) -> Response {
    viewer.show("Hosts", &page(&viewer, after, &Fields::default()))
}

fn page<'a>(viewer: &Viewer, after: Option<AgentId>, fields: &'a Fields) -> AgentsPage<'a> {
    let app = &viewer.app;
    let (shown, next, newest, invited, ticks) = {
        let state = app.engine().state();
        let live = state.agents_of(viewer.org()).filter(|agent| agent.revoked_at.is_none());
        let named = live.map(|agent| (agent.name.to_string(), agent.id, agent)).collect();
        let Rows { rows, next } = Rows::cut(named, after);
        let shown = rows.into_iter().map(|(_, agent)| (agent.clone(), addresses(&state, agent)));
        let is_ticked = |number: u64, _: GroupId| fields.is_ticked(&tick_name(number));
        (
            shown.collect::<Vec<_>>(),
            next,
            newest(&state, viewer),
            invited(&state, viewer),
            ticks(&state, viewer, is_ticked),
        )
    };
    let row = |(agent, addresses): (Agent, Vec<(String, Timestamp)>)| {
        let id = agent.id;
        let presence = Presence::of(app, Credential::Agent(viewer.org(), id));
        let epoch = app.engine().epoch();
        let board = app.engine().board();
        let reaches = reaches(&board, id, |target, group| {
            let revision = newest.get(&group)?;
            Some(Reach::of(&board, id, (target, group), epoch, *revision))
        });
        let version = board.agent(id).map(|report| report.host.version.clone());
        let addresses: Vec<String> = addresses.into_iter().map(|(address, _)| address).collect();
        Row {
            id,
            name: agent.name.to_string(),
            presence,
            heard_at: presence.heard_at.map(When),
            addresses: addresses.join(", "),
            version: version.unwrap_or_default(),
            live: reaches.iter().filter(|reach| reach.is_live()).count(),
            lists: reaches.len(),
        }
    };
    let rows = shown.into_iter().map(row).collect();
    let (proof, once) = (viewer.proof(), viewer.once());
    AgentsPage { rows, next, invited, proof, once, fields, ticks }
}

/// How far each list got at each target of a host.
fn reaches(
    board: &Board,
    id: AgentId,
    reach: impl Fn(&postern_shared::wire::v1::TargetStatus, GroupId) -> Option<Reach>,
) -> Vec<Reach> {
    let targets = board.agent(id).into_iter().flat_map(|report| &report.host.targets);
    targets
        .flat_map(|target| target.groups.iter().filter_map(|group| reach(target, *group)))
        .collect()
}

/// The newest list of each group.
fn newest(state: &State, viewer: &Viewer) -> BTreeMap<GroupId, Revision> {
    let groups = state.org(viewer.org()).into_iter().flat_map(|org| org.groups.values());
    let rows = groups.filter_map(|id| state.group(*id));
    rows.map(|row| (row.record.id, row.list_revision)).collect()
}

/// Where a host's own beacon says that it is, and until when that counts.
fn addresses(state: &State, agent: &Agent) -> Vec<(String, Timestamp)> {
    let row = state.pair(agent.pair);
    let spots = row.and_then(|row| row.report).into_iter().flat_map(|report| report.networks());
    let shown = spots.filter_map(|(network, _)| {
        let address = network.address();
        Some((address.to_string(), row?.stale_at(address)?))
    });
    shown.collect()
}

fn invited(state: &State, viewer: &Viewer) -> Vec<Invited> {
    let now = viewer.now();
    let ids = state.org(viewer.org()).into_iter().flat_map(|org| &org.enrolments);
    let open = ids.filter_map(|id| state.enrolment(*id));
    let open = open.filter(|one| one.used_at.is_none() && now < one.expires_at);
    let shown = open.map(|one| Invited {
        name: one.name.to_string(),
        groups: group_names(state, &one.groups),
        until: When(one.expires_at),
    });
    shown.collect()
}

fn group_names(state: &State, groups: &BTreeSet<GroupId>) -> String {
    let rows = groups.iter().filter_map(|id| state.group(*id));
    let names: Vec<&str> = rows.map(|row| row.record.name.as_str()).collect();
    names.join(", ")
}

fn tick_name(number: u64) -> String {
    format!("group-{number}")
}

/// The groups to tick: those that are ticked, and of the others the first.
fn ticks(state: &State, viewer: &Viewer, is_ticked: impl Fn(u64, GroupId) -> bool) -> Ticks {
    let groups = state.org(viewer.org()).into_iter().flat_map(|org| &org.groups);
    let (mut shown, mut free, mut more) = (Vec::new(), 0, 0);
    for (number, id) in groups {
        let Some(row) = state.group(*id) else { continue };
        let is_ticked = is_ticked(*number, *id);
        if !is_ticked {
            free += 1;
        }
        if is_ticked || free <= TICKS_MAX {
            shown.push(Tick { number: *number, name: row.record.name.to_string(), is_ticked });
        } else {
            more += 1;
        }
    }
    Ticks { shown, more }
}

/// The groups that were ticked.
fn ticked(sent: &Sent, fields: &Fields) -> BTreeSet<GroupId> {
    let state = sent.viewer.app.engine().state();
    let groups = state.org(sent.viewer.org()).into_iter().flat_map(|org| &org.groups);
    let ticked = groups.filter(|(number, _)| fields.is_ticked(&tick_name(**number)));
    ticked.map(|(_, id)| *id).collect()
}
