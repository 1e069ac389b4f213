//! `/stream`: lists followed as they change, as server-sent events.

mod follower;
mod seats;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Uri;
use axum::response::Response;
use postern_shared::ids::GroupId;
use postern_shared::position::Follow;
use postern_shared::time::Timestamp;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::follower::{Have, Listener, answer};
pub(crate) use self::seats::{SeatHolder, Seats};
use super::auth::Reader;
use super::{Named, named};
use crate::app::App;
use crate::domain::State as Orgs;
use crate::feed::{Catch, is_ahead};
use crate::http::ApiError;

/// Most groups that one stream follows.
const GROUPS_MAX: usize = 256;

/// The query of a stream, for the API's document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "this describes what `read` reads")]
struct StreamQuery {
    /// A group by its id, or by its number in the org, once for each; behind an `@` what the follower
    /// has of it: `<group>@<epoch>.<revision>.<digest>`. Events name groups by their ids.
    #[param(min_items = 1, max_items = 256)]
    group: Vec<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(open))
}

/// Follows lists as they change, as server-sent events.
///
/// The events are `same`, `delta`, `snapshot` and `withdrawn`, each with an object as its data. A
/// comment every 15 seconds says that the stream lives; it ends after some hours, and at once when
/// the right to it does.
#[utoipa::path(
    get, path = "/api/v1/stream", operation_id = "followGroups", tag = "lists",
    params(StreamQuery),
    security(("key" = ["groups.read"]), ("agent" = [])),
    responses((status = 200, description = "The stream", body = String, content_type = "text/event-stream")),
)]
async fn open(
    State(app): State<App>,
    reader: Reader,
    request: Request,
) -> Result<Response, ApiError> {
    let follow = read(&app.engine().state(), &reader, request.uri())?;
    let holder = SeatHolder::Credential(reader.0.credential);
    let seat = app.seats().take(reader.org(), holder)?;
    begin_epoch_if_restored(&app, &reader, &follow).await;
    let drain = request.extensions().get().cloned();
    let have = follow.iter().map(|follow| {
        let position = follow.have.map(|have| (have.epoch, have.revision));
        (follow.group, position)
    });
    Ok(answer(app, reader, have.collect(), drain, seat))
}

/// Programs are told each change as it is, in the form that agents read.
impl Listener for Reader {
    fn is_let_in(&self, state: &Orgs, now: Timestamp) -> bool {
        self.check(state, now).is_ok()
    }

    fn counts_for(&self, state: &Orgs, now: Timestamp) -> Option<Duration> {
        Reader::counts_for(self, state, now)
    }

    fn may_read(&self, state: &Orgs, group: GroupId) -> bool {
        Reader::may_read(self, state, group)
    }

    fn welcome(&mut self, app: &App, group: GroupId, have: Have) -> Catch {
        let engine = app.engine();
        engine.feed().welcome(&engine.state(), engine.epoch(), group, have, engine.now())
    }

    fn catch_up(&mut self, app: &App, group: GroupId, have: Have) -> Catch {
        let engine = app.engine();
        engine.feed().catch_up(&engine.state(), engine.epoch(), group, have, engine.now())
    }

    async fn stirred(&mut self, _: &App) {
        std::future::pending().await
    }
}

/// Reads `group=…&group=…`, each a group with what the follower has of it.
fn read(state: &Orgs, reader: &Reader, uri: &Uri) -> Result<Vec<Follow>, ApiError> {
    let mut follow: BTreeMap<GroupId, Follow> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "group" {
            return Err(bad("the query has `group` only, once for each group".into()));
        }
        let one = read_one(state, reader, &value)?;
        if follow.insert(one.group, one).is_some() {
            return Err(bad(format!("the query names the group {} twice", one.group)));
        }
        if GROUPS_MAX < follow.len() {
            return Err(bad(format!("a stream follows {GROUPS_MAX} groups at most")));
        }
    }
    if follow.is_empty() {
        return Err(bad("name the groups to follow: `?group=<id or number>`".into()));
    }
    Ok(follow.into_values().collect())
}

/// Reads a group and what the follower has of it. A group that has only a number here must be one that
/// may be read: no event could name another.
fn read_one(state: &Orgs, reader: &Reader, text: &str) -> Result<Follow, ApiError> {
    let (name, have) = Follow::split(text)
        .map_err(|_| bad("`group`: behind the `@` belongs `epoch.revision.digest`".to_owned()))?;
    let group = match named(name) {
        Ok(Named::Id(group)) => group,
        Ok(Named::Number(number)) => {
            let group = state.org(reader.org()).and_then(|org| org.groups.get(&number).copied());
            let readable = group.filter(|group| reader.may_read(state, *group));
            readable.ok_or_else(|| bad(format!("`group`: you can read no group {number}")))?
        }
        Err(_) => {
            return Err(bad("`group`: write a group's id, or its number".to_owned()));
        }
    };
    Ok(Follow { group, have })
}

fn bad(detail: String) -> ApiError {
    ApiError::BadRequest { detail }
}

/// Begins a new epoch when a follower knows more of this one than the store does: then the store
/// is an older copy, whose revisions are given again for other lists.
async fn begin_epoch_if_restored(app: &App, reader: &Reader, follow: &[Follow]) {
    let engine = app.engine();
    let epoch = engine.epoch();
    let is_behind = {
        let state = engine.state();
        follow.iter().any(|follow| {
            let row = state.group(follow.group).filter(|_| reader.may_read(&state, follow.group));
            let ahead = |newest| follow.have.is_some_and(|have| is_ahead(have, epoch, newest));
            row.is_some_and(|row| ahead(row.list_revision))
        })
    };
    if is_behind && app.may_begin_epoch(engine.now()) {
        engine.replace_epoch(epoch).await;
    }
}
