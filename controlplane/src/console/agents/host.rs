//! `/console/agents/{id}`: one host, and how far each of its lists got.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use postern_shared::ids::{AgentId, GroupId};
use postern_shared::position::Revision;
use postern_shared::wire::v1::TargetStatus;

use super::{SECTION, Ticks, addresses, group_names, ticked, ticks};
use crate::console::condition::{Presence, Reach};
use crate::console::confirm::Question;
use crate::console::fields::Fields;
use crate::console::gate::{Sent, Viewer};
use crate::console::show::When;
use crate::console::version::{self, Current};
use crate::domain::{Agent, AgentReport, Command, Credential, State};
use crate::http::ApiError;
use crate::people::see;

#[derive(Template)]
#[template(path = "console/agent.html")]
struct AgentPage<'a> {
    id: AgentId,
    name: String,
    revoked_at: Option<When>,
    presence: Presence,
    heard_at: Option<When>,
    addresses: Vec<Spot>,
    /// What the host calls itself, and its version; empty where it has not said.
    host: String,
    version: String,
    enrolled_at: When,
    lines: Vec<Line>,
    /// When it last said anything about its lists.
    said_at: Option<When>,
    groups: String,
    proof: Option<String>,
    /// The version of its record, which the form carries.
    seen: String,
    fields: &'a Fields,
    ticks: Ticks,
}

struct Spot {
    address: String,
    until: When,
}

/// A target, with one of its lists.
struct Line {
    target: String,
    kind: String,
    list: Option<List>,
}

struct List {
    number: u64,
    group: String,
    reach: Reach,
    /// What the host last said, where it said anything.
    detail: Option<String>,
    entries: String,
    revision: String,
}

/// A group that a host may follow.
struct Known {
    number: u64,
    name: String,
    newest: Revision,
}

pub(super) async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let agent = find(&viewer, &id)?;
    let fields = Fields::default();
    Ok(viewer.show(agent.name.as_str(), &page(&viewer, &agent, &agent.groups, &fields)))
}

pub(super) async fn set_groups(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let agent = find(&sent.viewer, &id)?;
    let mut fields = Fields::of(&sent);
    let groups = ticked(&sent, &fields);
    if groups.is_empty() {
        fields.refuse("tick at least one group, or revoke the host");
    } else {
        let expected = fields.expected(&current(&sent.viewer, &agent)?);
        let (org, agent, groups) = (sent.viewer.org(), agent.id, groups.clone());
        let command = Command::SetAgentGroups { org, agent, groups, expected };
        if expected.is_some() && fields.accept(sent.submit(command).await)?.is_some() {
            return Ok(see(&format!("{}/{}", SECTION.path, agent)));
        }
    }
    let page = page(&sent.viewer, &agent, &groups, &fields);
    Ok(sent.viewer.show_wrong(agent.name.as_str(), &page))
}

pub(super) async fn ask(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let agent = find(&viewer, &id)?;
    if agent.revoked_at.is_some() {
        return Ok(see(&format!("{}/{}", SECTION.path, agent.id)));
    }
    let page = format!("{}/{}", SECTION.path, agent.id);
    let lines = [
        format!("{} gets no list any more, and its credential is worth nothing.", agent.name),
        "What is in force there stays until each entry ends. To let this host in again, \
         invite it anew."
            .to_owned(),
    ];
    viewer.ask(
        &format!("Revoke {}?", agent.name),
        Question {
            lines: &lines,
            action: &format!("{page}/revoke"),
            button: "Revoke the host",
            back: &page,
            proof: String::new(),
        },
    )
}

pub(super) async fn revoke(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let agent = find(&sent.viewer, &id)?;
    if agent.revoked_at.is_none() {
        sent.submit(Command::RevokeAgent { org: sent.viewer.org(), agent: agent.id }).await?;
    }
    Ok(see(SECTION.path))
}

/// A host, as the form of its groups would show it. The groups are named by the page itself.
fn current<'a>(viewer: &Viewer, agent: &'a Agent) -> Result<Current<'a>, ApiError> {
    let state = viewer.app.engine().state();
    let row = state.agent_row(agent.id).ok_or(ApiError::NotFound)?;
    let said = format!("it follows {}", group_names(&state, &row.record.groups));
    Ok(Current {
        id: agent.id.as_bytes(),
        revision: row.revision,
        fields: Vec::new(),
        said: Some(said),
    })
}

/// The agent of an id, revoked or not.
fn find(viewer: &Viewer, id: &str) -> Result<Agent, ApiError> {
    let id: AgentId = id.parse().map_err(|_| ApiError::NotFound)?;
    let state = viewer.app.engine().state();
    let agent = state.agent(id).filter(|agent| agent.org == viewer.org());
    agent.cloned().ok_or(ApiError::NotFound)
}

fn page<'a>(
    viewer: &Viewer,
    agent: &Agent,
    groups: &BTreeSet<GroupId>,
    fields: &'a Fields,
) -> AgentPage<'a> {
    let app = &viewer.app;
    let (spots, known, names, ticks, seen) = {
        let state = app.engine().state();
        (
            addresses(&state, agent),
            known(&state, agent),
            group_names(&state, &agent.groups),
            ticks(&state, viewer, |_, id| groups.contains(&id)),
            state
                .agent_row(agent.id)
                .map(|row| version::written(agent.id.as_bytes(), row.revision)),
        )
    };
    let presence = Presence::of(app, Credential::Agent(viewer.org(), agent.id));
    let report = app.engine().board().agent(agent.id).cloned();
    let host = report.as_ref().map(|report| &report.host);
    let (spots, seen) = (spots.into_iter(), seen.unwrap_or_default());
    AgentPage {
        id: agent.id,
        name: agent.name.to_string(),
        revoked_at: agent.revoked_at.map(When),
        presence,
        heard_at: presence.heard_at.map(When),
        addresses: spots.map(|(address, until)| Spot { address, until: When(until) }).collect(),
        host: host.map(|host| host.host.clone()).unwrap_or_default(),
        version: host.map(|host| host.version.clone()).unwrap_or_default(),
        enrolled_at: When(agent.enrolled_at),
        lines: report
            .as_ref()
            .map(|report| lines(viewer, agent, report, &known))
            .unwrap_or_default(),
        said_at: report.as_ref().map(|report| When(report.at)),
        groups: names,
        proof: viewer.proof(),
        seen,
        fields,
        ticks,
    }
}

fn known(state: &State, agent: &Agent) -> BTreeMap<GroupId, Known> {
    let rows = agent.groups.iter().filter_map(|id| state.group(*id));
    let known = rows.map(|row| {
        let name = row.record.name.to_string();
        (row.record.id, Known { number: row.record.number, name, newest: row.list_revision })
    });
    known.collect()
}

fn lines(
    viewer: &Viewer,
    agent: &Agent,
    report: &AgentReport,
    known: &BTreeMap<GroupId, Known>,
) -> Vec<Line> {
    let mut lines = Vec::new();
    for target in &report.host.targets {
        let line = |list| Line { target: target.name.clone(), kind: target.kind.clone(), list };
        let groups = target.groups.iter().filter_map(|id| known.get_key_value(id));
        let lists: Vec<List> =
            groups.map(|(id, group)| list(viewer, agent, report, (target, *id, group))).collect();
        if lists.is_empty() {
            lines.push(line(None));
        }
        lines.extend(lists.into_iter().map(|list| line(Some(list))));
    }
    lines
}

fn list(
    viewer: &Viewer,
    agent: &Agent,
    report: &AgentReport,
    (target, id, group): (&TargetStatus, GroupId, &Known),
) -> List {
    let engine = viewer.app.engine();
    let epoch = engine.epoch();
    let reach = Reach::of(&engine.board(), agent.id, (target, id), epoch, group.newest);
    let receipt = report.receipts.get(&(target.name.clone(), id));
    let receipt = receipt.filter(|receipt| receipt.epoch == epoch);
    let revision = receipt.map_or_else(
        || format!("none of {}", group.newest),
        |receipt| {
            let is_newest = group.newest <= receipt.revision;
            let behind = if is_newest { String::new() } else { format!(" of {}", group.newest) };
            format!("{}{behind}", receipt.revision)
        },
    );
    List {
        number: group.number,
        group: group.name.clone(),
        reach,
        detail: receipt.and_then(|receipt| receipt.detail.clone()),
        entries: receipt.map(|receipt| receipt.entries.to_string()).unwrap_or_default(),
        revision,
    }
}
