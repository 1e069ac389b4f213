//! `/console/audit/allowed`: who was let in by a group at a time.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use postern_shared::format::flat;
use postern_shared::ids::GroupId;
use postern_shared::time::{Expiry, Timestamp};
use serde::Deserialize;

use super::time;
use crate::api::history::past;
use crate::api::known_group_id;
use crate::console::frame::told;
use crate::console::gate::Viewer;
use crate::console::show::When;
use crate::domain::{Past, State};
use crate::http::ApiError;

/// Most groups that are offered while somebody types; any other can be typed as well.
const GROUPS_OFFERED_MAX: usize = 200;
/// What is told where a text names no group.
pub(super) const NO_GROUP: &str = "write the number of a group, or the id of one that is gone";
/// Most networks that are shown; an export has all that is needed to work out the rest.
const ENTRIES_MAX: usize = 1_000;

#[derive(Default, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    group: String,
    #[serde(default)]
    at: String,
}

#[derive(Template)]
#[template(path = "console/audit/allowed.html")]
struct AllowedPage<'a> {
    wrong: Vec<String>,
    groups: Vec<(u64, String)>,
    asked_group: &'a str,
    asked_at: String,
    answer: Option<Answer>,
}

struct Answer {
    name: String,
    existed: bool,
    at: When,
    entries: Vec<Line>,
    /// How many there were beside those.
    more: usize,
}

struct Line {
    network: String,
    until: Option<When>,
    through: String,
}

pub(super) async fn show(viewer: Viewer, Query(asked): Query<Asked>) -> Result<Response, ApiError> {
    let mut wrong = Vec::new();
    let at = time("the time", &asked.at, &mut wrong);
    if at.is_none() && wrong.is_empty() {
        wrong.push("write the time, in UTC, such as 2026-01-31T12:00:00Z".to_owned());
    }
    if at.is_some_and(|at| viewer.now() < at) {
        wrong.push(format!("the time lies in the future; it is {}", viewer.now()));
    }
    let group = find(&viewer, &asked.group);
    if group.is_none() {
        wrong.push(NO_GROUP.to_owned());
    }
    let answer = match (at, group) {
        (Some(at), Some(group)) if wrong.is_empty() => {
            match past(&viewer.app, viewer.org(), group, at).await {
                Ok(past) => Some(answer(past, at)),
                Err(error @ ApiError::Conflict { .. }) => {
                    wrong.extend(told(&error));
                    None
                }
                Err(error) => return Err(error),
            }
        }
        _ => None,
    };
    let groups = groups(&viewer.app.engine().state(), &viewer);
    let has_wrong = !wrong.is_empty();
    let asked_at = at.map_or_else(|| asked.at.clone(), |at| at.to_string().replace('Z', ""));
    let page = AllowedPage { wrong, groups, asked_group: &asked.group, asked_at, answer };
    let title = "Who was let in";
    if has_wrong { Ok(viewer.show_wrong(title, &page)) } else { Ok(viewer.show(title, &page)) }
}

/// The group of a number, or of the id of one that may be gone.
pub(super) fn find(viewer: &Viewer, text: &str) -> Option<GroupId> {
    known_group_id(&viewer.app.engine().state(), viewer.org(), text.trim())
}

/// The groups to choose from.
pub(super) fn groups(state: &State, viewer: &Viewer) -> Vec<(u64, String)> {
    let groups = state.org(viewer.org()).into_iter().flat_map(|org| org.groups.values());
    let rows = groups.filter_map(|id| state.group(*id));
    let named = rows.map(|row| (row.record.number, row.record.name.to_string()));
    named.take(GROUPS_OFFERED_MAX).collect()
}

/// A time as a browser's field takes it.
pub(super) fn written(at: Timestamp) -> String {
    at.to_string().chars().take("2026-01-31T12:00".len()).collect()
}

fn answer(past: Past, at: Timestamp) -> Answer {
    let more = past.entries.len().saturating_sub(ENTRIES_MAX);
    let entries = past.entries.into_iter().take(ENTRIES_MAX).map(|entry| {
        let through: Vec<String> = entry.sources.into_iter().map(|source| source.name).collect();
        Line {
            network: flat(entry.network),
            until: match entry.expires {
                Expiry::At(until) => Some(When(until)),
                Expiry::Never => None,
            },
            through: through.join(", "),
        }
    });
    Answer {
        name: past.name.to_string(),
        existed: !past.is_deleted,
        at: When(at),
        entries: entries.collect(),
        more,
    }
}
