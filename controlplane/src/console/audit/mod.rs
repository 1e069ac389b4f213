//! `/console/audit`: what happened, who did it and from where; for admins.

mod allowed;
mod chain;
mod words;

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::get;
use postern_shared::ids::GroupId;
use postern_shared::time::Timestamp;
use serde::Deserialize;

use super::Section;
use super::gate::Viewer;
use super::show::When;
use crate::api::audit::unreadable;
use crate::app::App;
use crate::audit::{Actors, Filter, Kind, KindError, Place, SignedHead};
use crate::domain::{ActorKind, State};
use crate::http::ApiError;

pub(super) const SECTION: Section = Section { path: "/console/audit", name: "Audit", routes };

/// Records of one page.
const RECORDS_MAX: usize = 100;
/// Most people that are offered while somebody types; any other can be typed as well.
const PEOPLE_OFFERED_MAX: usize = 200;
/// Most of a text that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 40;

/// The query, as forms and links write it: a field that is empty is not there.
#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    since: String,
    #[serde(default)]
    until: String,
    #[serde(default)]
    kind: String,
    /// Who did it: what [`Actors`] reads, or the mail address of a person.
    #[serde(default)]
    actor: String,
    /// A group by its number, or by its id.
    #[serde(default)]
    group: String,
    #[serde(default)]
    after: String,
}

#[derive(Template)]
#[template(path = "console/audit/list.html")]
struct AuditPage<'a> {
    lines: Vec<Line>,
    /// The query of the next page.
    next: Option<String>,
    asked: &'a Asked,
    wrong: Vec<String>,
    kinds: Vec<(&'static str, String)>,
    head: Option<Head>,
    actors: Vec<String>,
    groups: Vec<(u64, String)>,
    /// What the form beside it is filled in with.
    asked_group: &'a str,
    asked_at: String,
}

/// A record, in words.
struct Line {
    id: String,
    at: When,
    who: String,
    from: String,
    what: String,
}

/// How far the chain is signed.
struct Head {
    number: u64,
    at: When,
    key: String,
}

fn routes() -> Router<App> {
    Router::new()
        .route(SECTION.path, get(list))
        .route("/console/audit/allowed", get(allowed::show))
        .route("/console/audit/verify", get(chain::verify))
        .route("/console/audit/export", get(chain::export))
}

async fn list(viewer: Viewer, Query(asked): Query<Asked>) -> Result<Response, ApiError> {
    let mut wrong = Vec::new();
    let filter = Filter {
        since: time("the first time", &asked.since, &mut wrong),
        until: time("the last time", &asked.until, &mut wrong),
        kind: kind(&asked.kind, &mut wrong),
        actor: actors(&viewer, &asked.actor, &mut wrong),
        group: group(&viewer, &asked.group, &mut wrong),
    };
    let after: Option<Place> = match asked.after.as_str() {
        "" => None,
        text => text.parse().map_err(|error| wrong.push(format!("{error}"))).ok(),
    };
    let (org, has_wrong) = (viewer.org(), !wrong.is_empty());
    let read = viewer.app.engine().read_audit(move |audit| {
        let page = if has_wrong {
            Default::default()
        } else {
            audit.page(org, &filter, after, RECORDS_MAX)?
        };
        Ok((page, audit.heads()?))
    });
    let (found, heads) = read.await.map_err(unreadable)?;
    let next = found.next.map(|place| next(&asked, place));
    let page = {
        let state = viewer.app.engine().state();
        let line = |entry: &crate::audit::Entry| Line {
            id: entry.place.to_string(),
            at: When(entry.record.at),
            who: words::who(&state, &entry.record),
            from: entry
                .record
                .source
                .map(|from| from.to_canonical().to_string())
                .unwrap_or_default(),
            what: words::what(&state, &entry.record.event),
        };
        let own = viewer.app.engine().audit_key();
        let is_own = |head: &SignedHead| own.is_none_or(|own| own == head.key);
        let head = heads.into_iter().filter(is_own).max_by_key(|head| head.number);
        AuditPage {
            lines: found.entries.iter().map(line).collect(),
            next,
            asked: &asked,
            wrong,
            kinds: words::kinds(),
            head: head.map(|head| Head {
                number: head.number,
                at: When(head.at),
                key: head.key.to_string(),
            }),
            actors: offered(&state, &viewer),
            groups: allowed::groups(&state, &viewer),
            asked_group: "",
            asked_at: allowed::written(viewer.now()),
        }
    };
    if has_wrong { Ok(viewer.show_wrong("Audit", &page)) } else { Ok(viewer.show("Audit", &page)) }
}

/// The query of the page behind `place`.
fn next(asked: &Asked, place: Place) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in [
        ("since", &asked.since),
        ("until", &asked.until),
        ("kind", &asked.kind),
        ("actor", &asked.actor),
        ("group", &asked.group),
    ] {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    query.append_pair("after", &place.to_string()).finish()
}

/// Reads which kind is asked for.
fn kind(text: &str, wrong: &mut Vec<String>) -> Option<Kind> {
    if text.is_empty() {
        return None;
    }
    text.parse().map_err(|error: KindError| wrong.push(error.to_string())).ok()
}

/// Reads who is asked for.
fn actors(viewer: &Viewer, text: &str, wrong: &mut Vec<String>) -> Option<Actors> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let person = || {
        let (state, email) = (viewer.app.engine().state(), text.parse().ok()?);
        let user = state.user_by_email(viewer.org(), &email)?;
        user.id.to_string().parse().ok()
    };
    let read = text.parse().ok().or_else(person);
    if read.is_none() {
        wrong.push(format!(
            "nobody here is `{}`; write the mail address of a person, an id, or one of {}",
            shortened(text),
            ActorKind::ALL.map(ActorKind::name).join(", ")
        ));
    }
    read
}

/// Reads which group is asked for.
fn group(viewer: &Viewer, text: &str, wrong: &mut Vec<String>) -> Option<GroupId> {
    if text.trim().is_empty() {
        return None;
    }
    let found = allowed::find(viewer, text);
    if found.is_none() {
        wrong.push(allowed::NO_GROUP.to_owned());
    }
    found
}

/// Who is offered while somebody types: kinds, and people by their mail addresses.
fn offered(state: &State, viewer: &Viewer) -> Vec<String> {
    let users = state.org(viewer.org()).into_iter().flat_map(|org| &org.users);
    let people = users.filter_map(|id| state.user(*id)).map(|user| user.email.to_string());
    let kinds = ActorKind::ALL.map(|kind| kind.name().to_owned()).into_iter();
    kinds.chain(people.take(PEOPLE_OFFERED_MAX)).collect()
}

/// What was asked for, as short as a message is.
fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// Reads a time: RFC 3339, or as the fields of browsers write it, which is UTC here.
fn time(called: &str, text: &str, wrong: &mut Vec<String>) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let ends = ["", "Z", ":00Z", "T00:00:00Z"];
    let read = ends.iter().find_map(|end| format!("{text}{end}").parse().ok());
    if read.is_none() {
        let shown = shortened(text);
        wrong.push(format!("{called} is `{shown}`; write it in UTC, such as 2026-01-31T12:00:00Z"));
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_browsers_and_people_write_them() {
        let noon: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let mut wrong = Vec::new();
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00",
            "2026-01-31T12:00:00",
            " 2026-01-31T13:00:00+01:00",
        ] {
            assert_eq!(time("it", text, &mut wrong), Some(noon), "{text}");
        }
        let midnight = "2026-01-31T00:00:00Z".parse().unwrap();
        assert_eq!(time("it", "2026-01-31", &mut wrong), Some(midnight));
        assert_eq!(time("it", "  ", &mut wrong), None);
        assert!(wrong.is_empty(), "{wrong:?}");
        for text in ["yesterday", "2026-13-01", "12:00", "1e99"] {
            assert_eq!(time("it", text, &mut wrong), None, "{text}");
        }
        assert_eq!(wrong.len(), 4);
    }
}
