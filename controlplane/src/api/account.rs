//! `/account`: who the caller is, and the keys of its org. Keys are minted elsewhere.

use std::net::IpAddr;
use std::ops::Bound;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use postern_shared::ids::{AgentId, KeyId, OrgId};
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::Envelope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{AccountRead, AccountWrite, Anyone, Holder};
use super::document::{IfMatch, KeyPath, PagesOfKeys};
use super::fields::Fields;
use super::refusal::refused;
use super::{expected, version};
use crate::app::App;
use crate::domain::{Command, Credential, Key, Org, Origin, Row, State as Orgs};
use crate::http::paging::{Cursor, List, PageRequest};
use crate::http::{Answer, ApiError};

/// What every secret in force may know of itself.
#[derive(Serialize, ToSchema)]
struct Whoami<'a> {
    org: OrgView<'a>,
    /// From which the call came.
    #[schema(value_type = String)]
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<AgentName<'a>>,
}

#[derive(Serialize, ToSchema)]
struct AgentName<'a> {
    id: AgentId,
    name: &'a str,
}

#[derive(Serialize, ToSchema)]
struct Account<'a> {
    org: OrgView<'a>,
    /// From which the call came.
    #[schema(value_type = String)]
    address: IpAddr,
    key: KeyView<'a>,
    counts: Counts,
}

#[derive(Serialize, ToSchema)]
struct OrgView<'a> {
    id: OrgId,
    name: &'a str,
    created_at: Timestamp,
}

/// A key without its secret.
#[derive(Serialize, ToSchema)]
struct KeyView<'a> {
    id: KeyId,
    name: &'a str,
    scopes: ScopeSet,
    origins: Vec<String>,
    created_at: Timestamp,
    expires_at: Expiry,
    revoked_at: Option<Timestamp>,
    /// Since the daemon started.
    last_used_at: Option<Timestamp>,
}

/// What a key is to keep.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct KeyToNarrow {
    /// All that it keeps, and no scope that it does not have; all unless given.
    #[schema(nullable = false)]
    scopes: Option<ScopeSet>,
    /// From where it works: networks within those that it has, and pairs as they are written in a
    /// key; all unless given.
    #[schema(nullable = false)]
    origins: Option<Vec<String>>,
}

#[derive(Serialize, ToSchema)]
struct Counts {
    users: usize,
    keys: usize,
    pairs: usize,
    groups: usize,
    agents: usize,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(whoami))
        .routes(routes!(show))
        .routes(routes!(list))
        .routes(routes!(show_key, narrow, revoke))
}

/// Tells a key or an agent who it is and what it may do.
#[utoipa::path(
    get, path = "/api/v1/whoami", operation_id = "whoami", tag = "account",
    security(("key" = []), ("agent" = [])),
    responses((status = 200, description = "The caller", body = Envelope<Whoami<'static>>)),
)]
async fn whoami(State(app): State<App>, Anyone(access): Anyone) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let (Credential::Key(org, _) | Credential::Agent(org, _)) = access.credential;
    let (key, agent) = match access.credential {
        Credential::Key(_, id) => (state.key(id).map(|key| view(&app, key)), None),
        Credential::Agent(_, id) => (None, state.agent(id)),
    };
    Ok(Answer::ok(&Whoami {
        org: org_view(&state, org)?,
        address: access.address,
        key,
        agent: agent.map(|agent| AgentName { id: agent.id, name: agent.name.as_str() }),
    }))
}

/// Shows the org of the key, the key itself, and how much there is.
#[utoipa::path(
    get, path = "/api/v1/account", operation_id = "getAccount", tag = "account",
    security(("key" = ["account.read"])),
    responses((status = 200, description = "The account", body = Envelope<Account<'static>>)),
)]
async fn show(State(app): State<App>, holder: Holder<AccountRead>) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let key = state.key(holder.key).ok_or(ApiError::NotFound)?;
    let is_live = |id: &&KeyId| state.key(**id).is_some_and(|key| key.revoked_at.is_none());
    let agents = state.agents_of(holder.org);
    let account = Account {
        org: org_view(&state, holder.org)?,
        address: holder.address,
        key: view(&app, key),
        counts: Counts {
            users: org.users.len(),
            keys: org.keys.iter().filter(is_live).count(),
            pairs: org.pairs_live,
            groups: org.groups.len(),
            agents: agents.filter(|agent| agent.revoked_at.is_none()).count(),
        },
    };
    Ok(Answer::ok(&account))
}

/// Lists the API keys of the org without their secrets, revoked ones included.
#[utoipa::path(
    get, path = "/api/v1/account/keys", operation_id = "listKeys", tag = "account",
    params(PagesOfKeys),
    security(("key" = ["account.read"])),
    responses((status = 200, description = "A page of keys", body = Envelope<Vec<KeyView<'static>>>)),
)]
async fn list(
    State(app): State<App>,
    holder: Holder<AccountRead>,
    page: PageRequest,
) -> Result<Answer, ApiError> {
    let after = page.behind::<16>(List::Keys)?;
    // Ids are ordered as their bytes are, and one made of an id's bytes is that id.
    let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(KeyId::from_random(key)));
    let state = app.engine().state();
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let rest = org.keys.range((after, Bound::Unbounded)).filter_map(|id| state.key(*id));
    let (keys, next) = page.cut(rest, |last| Cursor::behind(List::Keys, last.id.as_bytes()));
    let views: Vec<KeyView<'_>> = keys.into_iter().map(|key| view(&app, key)).collect();
    Ok(Answer::page(&views, next))
}

/// Shows an API key without its secret.
#[utoipa::path(
    get, path = "/api/v1/account/keys/{id}", operation_id = "getKey", tag = "account",
    params(KeyPath),
    security(("key" = ["account.read"])),
    responses((status = 200, description = "The key", body = Envelope<KeyView<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn show_key(
    State(app): State<App>,
    holder: Holder<AccountRead>,
    Path(id): Path<String>,
) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let row = find(&state, holder.org, &id)?;
    let etag = version(row.record.id.as_bytes(), row.revision);
    Ok(Answer::ok(&view(&app, &row.record)).with_etag(&etag))
}

/// Takes scopes and origins away from an API key, at once and where it holds a stream open, too.
///
/// What the key has afterwards lies within what it had; for more, another one is minted, which no
/// operation of this API does. A key cannot take the place from itself from which it calls.
#[utoipa::path(
    patch, path = "/api/v1/account/keys/{id}", operation_id = "narrowKey", tag = "account",
    params(KeyPath, IfMatch),
    security(("key" = ["account.write"])),
    request_body = KeyToNarrow,
    responses((status = 200, description = "The key as it is now", body = Envelope<KeyView<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn narrow(
    State(app): State<App>,
    holder: Holder<AccountWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut body: Fields,
) -> Result<Answer, ApiError> {
    let (scopes, origins) = (body.optional("scopes"), body.optional("origins"));
    body.finish()?;

    let command = {
        let state = app.engine().state();
        let Row { record, revision } = find(&state, holder.org, &id)?;
        let expected = expected(&headers, record.id.as_bytes(), *revision)?;
        let Key { org, id: key, .. } = *record;
        let scopes = scopes.unwrap_or(record.scopes);
        let origins = origins.unwrap_or_else(|| record.origins.clone());
        Command::NarrowKey { org, key, scopes, origins, expected }
    };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;

    let state = app.engine().state();
    let row = find(&state, holder.org, &id)?;
    let etag = version(row.record.id.as_bytes(), row.revision);
    Ok(Answer::ok(&view(&app, &row.record)).with_etag(&etag))
}

/// Revokes an API key: it is worth nothing at once, and its streams end.
#[utoipa::path(
    delete, path = "/api/v1/account/keys/{id}", operation_id = "revokeKey", tag = "account",
    params(KeyPath, IfMatch),
    security(("key" = ["account.write"])),
    responses((status = 204, description = "The key is revoked")),
)]
async fn revoke(
    State(app): State<App>,
    holder: Holder<AccountWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let key = {
        let state = app.engine().state();
        let row = find(&state, holder.org, &id)?;
        // A key only ever loses: whatever it has lost since is lost by its revocation as well.
        expected(&headers, row.record.id.as_bytes(), row.revision)?;
        row.record.id
    };
    let command = Command::RevokeKey { org: holder.org, key };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Finds a key of the org, revoked or not.
fn find<'a>(state: &'a Orgs, org: OrgId, text: &str) -> Result<&'a Row<Key>, ApiError> {
    let row = text.parse().ok().and_then(|id| state.key_row(id));
    row.filter(|row| row.record.org == org).ok_or(ApiError::NotFound)
}

fn org_view(state: &Orgs, org: OrgId) -> Result<OrgView<'_>, ApiError> {
    let Org { id, name, created_at, .. } = &state.org(org).ok_or(ApiError::NotFound)?.record;
    Ok(OrgView { id: *id, name: name.as_str(), created_at: *created_at })
}

fn view<'a>(app: &App, key: &'a Key) -> KeyView<'a> {
    let origin = |origin: &Origin| match origin {
        Origin::Network(network) => network.to_string(),
        Origin::Pair(pair) => format!("pair:{pair}"),
    };
    KeyView {
        id: key.id,
        name: key.name.as_str(),
        scopes: key.scopes,
        origins: key.origins.iter().map(origin).collect(),
        created_at: key.created_at,
        expires_at: key.expires,
        revoked_at: key.revoked_at,
        last_used_at: app.last_used().at(Credential::Key(key.org, key.id)),
    }
}
