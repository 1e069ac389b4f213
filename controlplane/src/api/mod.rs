//! Version 1 of the API, one file a resource.

mod account;
mod agents;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod cors;
mod document;
mod fields;
mod groups;
pub(crate) mod history;
pub(crate) mod ips;
mod members;
pub(crate) mod once;
mod pairs;
pub(crate) mod prefer;
pub(crate) mod refusal;
pub(crate) mod stream;

use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::{Extension, Router};
use postern_shared::ids::{GroupId, OrgId, PairId};
use postern_shared::position::Revision;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::domain::State;
use crate::http::etag::{EntityTag, require_match};
use crate::http::{ApiError, around};

/// The routes under `/api/v1`.
pub(crate) fn routes(app: &App) -> Router<App> {
    let authenticated = OpenApiRouter::new()
        .merge(account::routes())
        .merge(audit::routes())
        .merge(pairs::routes())
        .merge(groups::routes())
        .merge(members::routes())
        .merge(ips::routes())
        .merge(history::routes())
        .merge(stream::routes())
        .merge(agents::routes())
        .route_layer(around::layer(auth::Authentication(app.clone())));
    let documented = OpenApiRouter::with_openapi(document::beginning())
        .merge(authenticated)
        .merge(agents::enrolment_routes());
    let (router, mut generated) = documented.split_for_parts();
    let (document, of_itself) = document::routes().split_for_parts();
    generated.merge(of_itself);
    router.merge(document.layer(Extension(document::complete(generated))))
}

/// Finds a pair by its id or its number in the org. Another org's pair is as unknown as any.
pub(crate) fn pair_id(state: &State, org: OrgId, text: &str) -> Result<PairId, ApiError> {
    let id = match named(text)? {
        Named::Id(id) => Some(id),
        Named::Number(number) => state.org(org).and_then(|row| row.pairs.get(&number).copied()),
    };
    let id = id.filter(|id| state.live_pair(org, *id).is_ok());
    id.ok_or(ApiError::NotFound)
}

/// Finds a group by its id or its number in the org, as [`pair_id`] does.
pub(crate) fn group_id(state: &State, org: OrgId, text: &str) -> Result<GroupId, ApiError> {
    let id = match named(text)? {
        Named::Id(id) => Some(id),
        Named::Number(number) => state.org(org).and_then(|row| row.groups.get(&number).copied()),
    };
    let id = id.filter(|id| state.group_of(org, *id).is_ok());
    id.ok_or(ApiError::NotFound)
}

/// Finds a group as [`group_id`] does, and one that may be gone by its id: whether that was the org's,
/// the org's audit says.
pub(crate) fn known_group_id(state: &State, org: OrgId, text: &str) -> Option<GroupId> {
    group_id(state, org, text).ok().or_else(|| text.parse().ok())
}

enum Named<T> {
    Id(T),
    Number(u64),
}

fn named<T: FromStr>(text: &str) -> Result<Named<T>, ApiError> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Named::Number).map_err(|_| ApiError::NotFound);
    }
    text.parse().map(Named::Id).map_err(|_| ApiError::NotFound)
}

/// The version of an object: its id and the commit that last wrote it. What roves, such as a
/// pair's address, is no part of it, so that an edit is not refused because somebody moved.
pub(crate) fn version(id: &[u8; 16], revision: Revision) -> EntityTag {
    EntityTag::strong(&[id, &revision.0.to_be_bytes()])
}

/// The revision that an edit or a deletion is to be held to; none when the client does not care.
fn expected(
    headers: &HeaderMap,
    id: &[u8; 16],
    revision: Revision,
) -> Result<Option<Revision>, ApiError> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(None);
    }
    require_match(headers, &version(id, revision))?;
    Ok(Some(revision))
}
