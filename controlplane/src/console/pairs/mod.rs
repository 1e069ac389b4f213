//! `/console/pairs`: the pairs of the org, where they are, and the secrets that they are given.

mod change;
mod mail;
mod page;
mod secrets;

use std::collections::BTreeSet;
use std::ops::Bound;

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::get;
use postern_shared::ids::PairId;
use serde::Deserialize;

use self::page::{Spot, spots};
use self::secrets::{Bookmark, ServerKey};
use super::Section;
use super::fields::Fields;
use super::gate::{Sent, Viewer};
use super::show::{Span, When};
use crate::api::once::Turn;
use crate::app::App;
use crate::beacon::frozen_until;
use crate::domain::{Command, Email, Pair, PairRow};
use crate::drafts::NewPair;
use crate::http::ApiError;

pub(super) const SECTION: Section = Section { path: "/console/pairs", name: "Pairs", routes };

/// Most pairs on one page.
const PAIRS_SHOWN_MAX: usize = 100;
/// Most pairs that one page looks through for what is to be found.
const PAIRS_SEARCHED_MAX: usize = 20_000;

/// Which part of the pairs is shown.
#[derive(Debug, Default, Deserialize)]
struct Part {
    /// Behind which number.
    after: Option<u64>,
    /// What name, mail or address must contain.
    #[serde(default)]
    find: String,
}

#[derive(Template)]
#[template(path = "console/pair/list.html")]
struct PairsPage<'a> {
    rows: Vec<Row>,
    find: &'a str,
    /// Behind which number to go on, where there are more.
    next: Option<u64>,
    is_first: bool,
    default_ttl: Span,
    proof: Option<String>,
    once: String,
    fields: &'a Fields,
}

struct Row {
    number: u64,
    name: String,
    email: Option<String>,
    is_agents: bool,
    spots: Vec<Spot>,
    last_seen: Option<When>,
    /// Until when it stays where it is, having moved too often.
    frozen: Option<When>,
}

/// Where the page of a pair is.
pub(crate) fn path(number: u64) -> String {
    format!("{}/{number}", SECTION.path)
}

fn routes() -> Router<App> {
    Router::new()
        .route(SECTION.path, get(list).post(make))
        .merge(page::routes())
        .merge(change::routes())
        .merge(mail::routes())
}

async fn list(viewer: Viewer, Query(part): Query<Part>) -> Response {
    viewer.show("Pairs", &page(&viewer, &part, &Fields::default()))
}

async fn make(sent: Sent, turn: Turn) -> Result<Response, ApiError> {
    let mut fields = Fields::of(&sent);
    let name = fields.label();
    let email = fields.optional::<Email>("email", "the owner's mail address");
    let ttl = fields.ttl("ttl", "the time");
    let viewer = &sent.viewer;
    if let (Some(name), Some(contact_email), Some(ttl)) = (name, email, ttl) {
        let ttl = ttl.unwrap_or(viewer.app.settings().ttl);
        let NewPair { pair, bookmark, server_key } =
            NewPair::draw(viewer.app.engine(), viewer.org(), name, ttl);
        let (id, pair) = (pair.id, Pair { contact_email, ..pair });
        let (command, place) = (Command::CreatePair(pair), format!("{}/{id}", SECTION.path));
        if fields.accept(sent.submit_once(turn, command, place).await)?.is_some() {
            let shown = (Some(Bookmark(&bookmark)), Some(ServerKey(&server_key)));
            return secrets::show(viewer, id, shown);
        }
    }
    Ok(viewer.show_wrong("Pairs", &page(viewer, &Part::default(), &fields)))
}

fn page<'a>(viewer: &Viewer, part: &'a Part, fields: &'a Fields) -> PairsPage<'a> {
    let find = part.find.trim();
    let (rows, next) = rows(viewer, part.after, &find.to_lowercase());
    PairsPage {
        rows,
        find,
        next,
        is_first: part.after.is_none(),
        default_ttl: Span(viewer.app.settings().ttl.as_duration()),
        proof: viewer.proof(),
        once: viewer.once(),
        fields,
    }
}

/// A page of pairs, and behind which number the next one begins.
fn rows(viewer: &Viewer, after: Option<u64>, find: &str) -> (Vec<Row>, Option<u64>) {
    let (state, now) = (viewer.app.engine().state(), viewer.now());
    let Some(org) = state.org(viewer.org()) else { return (Vec::new(), None) };
    let agents: BTreeSet<PairId> = state.agents_of(viewer.org()).map(|agent| agent.pair).collect();
    let after = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = Vec::new();
    for (searched, (number, id)) in org.pairs.range((after, Bound::Unbounded)).enumerate() {
        if rows.len() == PAIRS_SHOWN_MAX || searched == PAIRS_SEARCHED_MAX {
            return (rows, Some(number - 1));
        }
        let Some(row) = state.pair(*id).filter(|row| row.is_live()) else { continue };
        let spots = spots(row, now);
        if is_found(row, &spots, find) {
            rows.push(Row {
                number: *number,
                name: row.record.name.to_string(),
                email: row.record.contact_email.as_ref().map(ToString::to_string),
                is_agents: agents.contains(id),
                spots,
                last_seen: row.last_seen().map(When),
                frozen: frozen_until(&viewer.app, row, now).map(When),
            });
        }
    }
    (rows, None)
}

fn is_found(row: &PairRow, spots: &[Spot], find: &str) -> bool {
    let holds = |text: &str| text.to_lowercase().contains(find);
    find.is_empty()
        || holds(row.record.name.as_str())
        || row.record.contact_email.as_ref().is_some_and(|email| holds(email.as_str()))
        || spots.iter().any(|spot| holds(&spot.address))
}
