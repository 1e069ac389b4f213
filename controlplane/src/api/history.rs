//! `/groups/{id}/history?at=…`: what a group allowed at a time, and through whom.
//!
//! A resource of its own beside `/ips`: it answers for groups that are gone as well, out of the
//! audit and not the memory, and nothing about it is ever new, so that it has no use for waiting,
//! formats or entity tags.

use axum::extract::{Path, Query, State};
use postern_shared::digest::Digest;
use postern_shared::format::flat;
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{Entry, Envelope, ListedEntry};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{GroupsRead, Holder};
use super::document::GroupPath;
use super::{audit, group_id};
use crate::app::App;
use crate::domain::{History, Past};
use crate::http::{Answer, ApiError};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// The time that is asked about: any that has passed.
    at: Timestamp,
}

/// What was allowed at `at`.
#[derive(Serialize, ToSchema)]
struct GroupHistory {
    group: GroupId,
    /// Its name at the time.
    name: String,
    /// Whether the group was there at the time, and not deleted before it.
    existed: bool,
    at: Timestamp,
    /// The networks alone; a host without its prefix length.
    ips: Vec<String>,
    entries: Vec<ListedEntry>,
    /// The digest of the entries, as agents had it at the time.
    digest: Digest,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Tells what a group allowed at a time that has passed, and through whom.
///
/// Out of the audit, so that it is answered for groups that are gone as well.
#[utoipa::path(
    get, path = "/api/v1/groups/{id}/history", operation_id = "getGroupHistory", tag = "lists",
    params(GroupPath, Asked),
    security(("key" = ["groups.read"])),
    responses((status = 200, description = "What was allowed", body = Envelope<GroupHistory>)),
)]
async fn show(
    State(app): State<App>,
    holder: Holder<GroupsRead>,
    Path(id): Path<String>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Answer, ApiError> {
    let Query(Asked { at }) =
        asked.map_err(|error| ApiError::BadRequest { detail: error.body_text() })?;
    let now = app.engine().now();
    if now < at {
        let detail = format!("`at` lies in the future; it is {now}");
        return Err(ApiError::BadRequest { detail });
    }
    let group = group_or_id(&app, &holder, &id)?;
    Ok(Answer::ok(&view(group, at, past(&app, holder.org, group, at).await?)))
}

/// What a group of an org allowed at a time that has passed, gone or not: out of the org's audit.
pub(crate) async fn past(
    app: &App,
    org: OrgId,
    group: GroupId,
    at: Timestamp,
) -> Result<Past, ApiError> {
    let known = app.engine().state().group_of(org, group).map(|row| row.record.name.clone()).ok();
    let found = app.engine().read_audit(move |audit| {
        let mut history = History::new(group, at);
        audit.replay(org, |record| history.take(record))?;
        Ok((history.is_partial(), history.finish(), audit.begin()?))
    });
    let (is_partial, past, begin) = found.await.map_err(audit::unreadable)?;
    if let Some(begin) = begin {
        let made = app.engine().state().group_of(org, group).map(|row| row.record.created_at).ok();
        let is_unknown =
            past.is_none() && (is_partial || made.is_some_and(|made| made <= begin.at));
        if at < begin.at || is_unknown {
            let detail = format!(
                "what this group allowed is not known: the audit was pruned, and what happened \
                 until {} is gone; ask for a later time, or for a group that was made later",
                begin.at
            );
            return Err(ApiError::Conflict { detail });
        }
    }
    match (past, known) {
        (Some(past), _) => Ok(past),
        // It was made later than that.
        (None, Some(name)) => Ok(Past { name, is_deleted: true, entries: Vec::new() }),
        (None, None) => Err(ApiError::NotFound),
    }
}

/// The group of an id or a number. Groups that are gone have their id only, and any id may be one:
/// whether it was the caller's, the caller's audit says.
fn group_or_id(app: &App, holder: &Holder<GroupsRead>, id: &str) -> Result<GroupId, ApiError> {
    let named = group_id(&app.engine().state(), holder.org, id);
    named.or_else(|error| id.parse().map_err(|_| error))
}

fn view(group: GroupId, at: Timestamp, past: Past) -> GroupHistory {
    let digest = past
        .entries
        .iter()
        .fold(Digest::default(), |digest, entry| digest.with(entry.network, entry.expires));
    let entries: Vec<ListedEntry> = past
        .entries
        .into_iter()
        .map(|entry| {
            let listed = Entry { cidr: entry.network, expires_at: entry.expires };
            ListedEntry::new(listed, entry.sources)
        })
        .collect();
    GroupHistory {
        group,
        name: past.name.to_string(),
        existed: !past.is_deleted,
        at,
        ips: entries.iter().map(|entry| flat(entry.cidr)).collect(),
        entries,
        digest,
    }
}
