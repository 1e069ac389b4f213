//! `/account`: who the caller is, and the keys of its org. Keys are minted elsewhere.

use std::ops::Bound;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{delete, get};
use postern_shared::ids::{KeyId, OrgId};
use postern_shared::scope::ScopeSet;
use postern_shared::time::{Expiry, Timestamp};
use serde::Serialize;

use super::auth::{AccountRead, AccountWrite, Holder};
use super::behind;
use super::refusal::refused;
use crate::app::App;
use crate::domain::{Command, Credential, Key, Origin};
use crate::http::paging::{Cursor, PageRequest};
use crate::http::{Answer, ApiError};

#[derive(Serialize)]
struct Account<'a> {
    org: OrgView<'a>,
    key: KeyView<'a>,
    counts: Counts,
}

#[derive(Serialize)]
struct OrgView<'a> {
    id: OrgId,
    name: &'a str,
    created_at: Timestamp,
}

/// A key without its secret.
#[derive(Serialize)]
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

#[derive(Serialize)]
struct Counts {
    users: usize,
    keys: usize,
    pairs: usize,
    groups: usize,
    agents: usize,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/account", get(show))
        .route("/account/keys", get(list))
        .route("/account/keys/{id}", delete(revoke))
}

async fn show(State(app): State<App>, holder: Holder<AccountRead>) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let key = state.key(holder.key).ok_or(ApiError::NotFound)?;
    let is_live = |id: &&KeyId| state.key(**id).is_some_and(|key| key.revoked_at.is_none());
    let agents = state.agents_of(holder.org);
    let account = Account {
        org: OrgView {
            id: org.record.id,
            name: org.record.name.as_str(),
            created_at: org.record.created_at,
        },
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

async fn list(
    State(app): State<App>,
    holder: Holder<AccountRead>,
    page: PageRequest,
) -> Result<Answer, ApiError> {
    let after = behind::<16>(&page)?;
    // Ids are ordered as their bytes are, and one made of an id's bytes is that id.
    let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(KeyId::from_random(key)));
    let state = app.engine().state();
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let rest = org.keys.range((after, Bound::Unbounded)).filter_map(|id| state.key(*id));
    let (keys, next) = page.cut(rest, |last| Cursor::behind(last.id.as_bytes()));
    let views: Vec<KeyView<'_>> = keys.into_iter().map(|key| view(&app, key)).collect();
    Ok(Answer::page(&views, next))
}

async fn revoke(
    State(app): State<App>,
    holder: Holder<AccountWrite>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let key = id.parse().map_err(|_| ApiError::NotFound)?;
    let command = Command::RevokeKey { org: holder.org, key };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
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
