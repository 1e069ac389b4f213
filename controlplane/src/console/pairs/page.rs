//! `/console/pairs/{id}`: one pair.

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use postern_shared::ids::PairId;
use postern_shared::time::{Expiry, Timestamp};

use super::path;
use crate::api::pair_id;
use crate::app::App;
use crate::beacon::frozen_until;
use crate::console::fields::{Fields, Forms, written};
use crate::console::gate::Viewer;
use crate::console::show::{Left, Span, When};
use crate::console::version::{self, Current, Now};
use crate::domain::{OrgRow, Pair, PairRow, State as Orgs};
use crate::http::ApiError;
use crate::mail::Fate;
use crate::page::minute;

/// Most groups that a pair can be added to by a choice; in an org with more, the group's own page
/// adds pairs.
const GROUPS_OFFERED_MAX: usize = 200;

/// Where a pair is, and for how long that counts.
pub(super) struct Spot {
    pub(super) address: String,
    pub(super) reported_at: When,
    pub(super) until: Option<Left>,
}

/// A form of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Settings,
    Join,
}

#[derive(Template)]
#[template(path = "console/pair/page.html")]
struct PairPage<'a> {
    path: String,
    pair: Pair,
    spots: Vec<Spot>,
    last_seen: Option<When>,
    /// Until when it stays where it is, having moved too often.
    frozen: Option<When>,
    ttl: Span,
    created_at: When,
    groups: Vec<Membership>,
    /// The page of the agent whose own pair it is.
    agent: Option<String>,
    /// Keys and agents that work only from where it is.
    locks: usize,
    mail: Option<String>,
    change: Option<Change<'a>>,
}

/// What only admins see.
struct Change<'a> {
    proof: String,
    version: String,
    once: String,
    groups: Vec<Choice>,
    ttl_written: String,
    forms: Forms<'a, Form>,
}

struct Choice {
    number: u64,
    name: String,
}

struct Membership {
    path: String,
    name: String,
    until: Option<Left>,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/console/pairs/{id}", get(show))
}

async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = pair_id(&viewer.app.engine().state(), viewer.org(), &id)?;
    let page = page(&viewer, id, None)?;
    Ok(viewer.show(page.pair.name.as_str(), &page))
}

/// Shows the page with a form that was not taken.
pub(super) fn show_tried(
    viewer: &Viewer,
    pair: PairId,
    form: Form,
    fields: &Fields,
) -> Result<Response, ApiError> {
    let page = page(viewer, pair, Some((form, fields)))?;
    Ok(viewer.show_wrong(page.pair.name.as_str(), &page))
}

/// A pair, as the form of its settings would show it.
pub(super) fn current(state: &Orgs, id: PairId) -> Result<Current<'_>, ApiError> {
    let row = state.pair(id).ok_or(ApiError::NotFound)?;
    let now = |name, called, value: &str| Now { name, called, value: value.to_owned() };
    let pair = &row.record;
    let fields = vec![
        now("name", "the name", pair.name.as_str()),
        now("email", "the mail address of its owner", email(pair)),
        now("ttl", "the time after which its address closes", &written(pair.ttl)),
        now("by-get", "the box for reports of old scripts", by_get(pair)),
    ];
    Ok(Current { id: pair.id.as_bytes(), revision: row.revision, fields, said: None })
}

/// Where a pair is; nothing stale.
pub(super) fn spots(row: &PairRow, now: Timestamp) -> Vec<Spot> {
    let spots = row.report.into_iter().flat_map(|report| report.networks());
    let spot = |(network, reported_at): (postern_shared::network::Network, Timestamp)| {
        let until = row.stale_at(network.address()).filter(|at| now < *at)?;
        Some(Spot {
            address: network.address().to_string(),
            reported_at: When(reported_at),
            until: Left::until(Expiry::At(until), now),
        })
    };
    spots.filter_map(spot).collect()
}

fn page<'a>(
    viewer: &Viewer,
    id: PairId,
    tried: Option<(Form, &'a Fields)>,
) -> Result<PairPage<'a>, ApiError> {
    let (state, now) = (viewer.app.engine().state(), viewer.now());
    let row = state.live_pair(viewer.org(), id).map_err(|_| ApiError::NotFound)?;
    let org = state.org(viewer.org()).ok_or(ApiError::NotFound)?;
    let pair = row.record.clone();
    let own = state.agents_of(viewer.org()).find(|it| it.pair == id && it.revoked_at.is_none());
    let change = viewer.proof().map(|proof| Change {
        proof,
        version: version::written(id.as_bytes(), row.revision),
        once: viewer.once(),
        groups: free_groups(&state, org, row),
        ttl_written: written(pair.ttl),
        forms: Forms::new(tried),
    });
    Ok(PairPage {
        path: path(pair.number),
        spots: spots(row, now),
        last_seen: row.last_seen().map(When),
        frozen: frozen_until(&viewer.app, row, now).map(When),
        ttl: Span(pair.ttl.as_duration()),
        created_at: When(pair.created_at),
        groups: memberships(&state, row, now),
        agent: own.map(|agent| format!("/console/agents/{}", agent.id)),
        locks: row.locks,
        mail: mail(viewer, id),
        change,
        pair,
    })
}

fn memberships(state: &Orgs, row: &PairRow, now: Timestamp) -> Vec<Membership> {
    let groups = row.memberships.iter().filter_map(|(group, member)| {
        let group = state.group(*group)?;
        let member = &group.members.get(member)?.record;
        let live = member.expires.is_live_at(now);
        live.then(|| Membership {
            path: crate::console::groups::path(group.record.number),
            name: group.record.name.to_string(),
            until: Left::until(member.expires, now),
        })
    });
    groups.collect()
}

/// The groups that the pair can be added to.
fn free_groups(state: &Orgs, org: &OrgRow, row: &PairRow) -> Vec<Choice> {
    let free = org.groups.iter().filter(|(_, id)| !row.memberships.contains_key(id));
    let choice = free.filter_map(|(number, id)| {
        let name = state.group(*id)?.record.name.to_string();
        Some(Choice { number: *number, name })
    });
    choice.take(GROUPS_OFFERED_MAX).collect()
}

/// What became of the newest mail with the bookmark.
fn mail(viewer: &Viewer, pair: PairId) -> Option<String> {
    let fate = viewer.app.people().outbox()?.fate_of_pair(pair)?;
    Some(match fate {
        Fate::Waiting { .. } => "is on its way".to_owned(),
        Fate::Sent { at } => format!("was taken by the mail server, {}", minute(at)),
        Fate::Retried { why, .. } => format!("waits to be tried again: {why}"),
        Fate::Failed { why, .. } => format!("could not be sent: {why}"),
    })
}

impl PairPage<'_> {
    fn by_get(&self) -> &'static str {
        by_get(&self.pair)
    }

    fn email(&self) -> &str {
        email(&self.pair)
    }
}

/// What the box for reports by GET is sent as.
fn by_get(pair: &Pair) -> &'static str {
    if pair.reports_by_get { "yes" } else { "" }
}

fn email(pair: &Pair) -> &str {
    pair.contact_email.as_ref().map_or("", |email| email.as_str())
}
