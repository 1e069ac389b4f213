//! `/pairs`: roving persons, devices and servers.

use std::net::IpAddr;
use std::ops::Bound;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use postern_shared::ids::{GroupId, PairId};
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::token::{Token, TokenKind};
use serde::Serialize;

use super::auth::{Holder, PairsRead, PairsWrite};
use super::fields::Fields;
use super::refusal::refused;
use super::{behind, expected, pair_id, version};
use crate::app::App;
use crate::domain::{Command, Email, Pair, PairEdit, PairRow, State as Orgs};
use crate::http::paging::{Cursor, PageRequest};
use crate::http::{Answer, ApiError};

#[derive(Serialize)]
struct PairView<'a> {
    id: PairId,
    number: u64,
    name: &'a str,
    contact_email: Option<&'a str>,
    /// Seconds that a reported address counts.
    ttl: Ttl,
    reports_by_get: bool,
    /// Where it is; nothing stale.
    addresses: Vec<AddressView>,
    last_seen_at: Option<Timestamp>,
    groups: Vec<GroupId>,
    created_at: Timestamp,
}

#[derive(Serialize)]
struct AddressView {
    address: IpAddr,
    reported_at: Timestamp,
    expires_at: Timestamp,
}

/// A new pair with its secrets, which are never told again.
#[derive(Serialize)]
struct NewPair<'a> {
    #[serde(flatten)]
    pair: PairView<'a>,
    bookmark: &'a str,
    bookmark_url: String,
    server_key: &'a str,
    server_url: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/pairs", get(list).post(create))
        .route("/pairs/{id}", get(show).patch(edit).delete(delete))
}

async fn list(
    State(app): State<App>,
    holder: Holder<PairsRead>,
    page: PageRequest,
) -> Result<Answer, ApiError> {
    let after =
        behind(&page)?.map_or(Bound::Unbounded, |key| Bound::Excluded(u64::from_be_bytes(key)));
    let (state, now) = (app.engine().state(), app.engine().now());
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let rest = org.pairs.range((after, Bound::Unbounded));
    let rest = rest.filter_map(|(_, id)| state.pair(*id).filter(|row| row.is_live()));
    let (rows, next) = page.cut(rest, |last| Cursor::behind(&last.record.number.to_be_bytes()));
    let views: Vec<PairView<'_>> = rows.into_iter().map(|row| view(row, now)).collect();
    Ok(Answer::page(&views, next))
}

async fn create(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    mut body: Fields,
) -> Result<Answer, ApiError> {
    let name = body.required("name");
    let contact_email: Option<Option<Email>> = body.nullable("contact_email");
    let ttl = body.optional("ttl");
    let reports_by_get = body.optional("reports_by_get");
    body.finish()?;
    let name = name.ok_or_else(|| ApiError::field("/name", "is missing"))?;

    let chance = app.engine().chance();
    let bookmark = chance.token(TokenKind::Bookmark);
    let server_key = chance.token(TokenKind::Server);
    let pair = Pair {
        id: PairId::from_random(chance.id()),
        org: holder.org,
        number: 0, // given by the decision
        name,
        contact_email: contact_email.flatten(),
        ttl: ttl.unwrap_or(app.settings().ttl),
        bookmark: bookmark.hash(),
        server_key: server_key.hash(),
        reports_by_get: reports_by_get.unwrap_or(false),
        created_at: app.engine().now(),
        deleted_at: None,
    };
    let id = pair.id;
    app.engine().submit(holder.order(Command::CreatePair(pair))).await.map_err(refused)?;

    let state = app.engine().state();
    let row = state.live_pair(holder.org, id).map_err(|_| ApiError::NotFound)?;
    let (bookmark_url, server_url) = (bookmark_url(&app, &bookmark), server_url(&app, &server_key));
    let new = NewPair {
        pair: view(row, app.engine().now()),
        bookmark: bookmark.expose(),
        bookmark_url,
        server_key: server_key.expose(),
        server_url,
    };
    let etag = version(id.as_bytes(), row.revision);
    Ok(Answer::created(&format!("/api/v1/pairs/{id}"), &new).with_etag(&etag))
}

async fn show(
    State(app): State<App>,
    holder: Holder<PairsRead>,
    Path(id): Path<String>,
) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let id = pair_id(&state, holder.org, &id)?;
    answer(&app, &state, id)
}

async fn edit(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut body: Fields,
) -> Result<Answer, ApiError> {
    let (pair, expected) = target(&app, &holder, &id, &headers)?;
    let edit = PairEdit {
        name: body.optional("name"),
        contact_email: body.nullable("contact_email"),
        ttl: body.optional("ttl"),
        reports_by_get: body.optional("reports_by_get"),
    };
    body.finish()?;

    let command = Command::EditPair { org: holder.org, pair, edit, expected };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;

    answer(&app, &app.engine().state(), pair)
}

async fn delete(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (pair, expected) = target(&app, &holder, &id, &headers)?;
    let command = Command::DeletePair { org: holder.org, pair, expected };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The pair that a change is about, and the version that it is held to.
fn target(
    app: &App,
    holder: &Holder<PairsWrite>,
    id: &str,
    headers: &HeaderMap,
) -> Result<(PairId, Option<postern_shared::position::Revision>), ApiError> {
    let state = app.engine().state();
    let id = pair_id(&state, holder.org, id)?;
    let row = state.live_pair(holder.org, id).map_err(|_| ApiError::NotFound)?;
    Ok((id, expected(headers, id.as_bytes(), row.revision)?))
}

fn answer(app: &App, state: &Orgs, id: PairId) -> Result<Answer, ApiError> {
    let row = state.pair(id).filter(|row| row.is_live()).ok_or(ApiError::NotFound)?;
    let etag = version(id.as_bytes(), row.revision);
    Ok(Answer::ok(&view(row, app.engine().now())).with_etag(&etag))
}

fn view(row: &PairRow, now: Timestamp) -> PairView<'_> {
    let pair = &row.record;
    let spots = row.report.into_iter().flat_map(|report| report.networks());
    let addresses = spots.map(|(network, reported_at)| AddressView {
        address: network.address(),
        reported_at,
        expires_at: reported_at.saturating_add(pair.ttl.as_duration()),
    });
    PairView {
        id: pair.id,
        number: pair.number,
        name: pair.name.as_str(),
        contact_email: pair.contact_email.as_ref().map(Email::as_str),
        ttl: pair.ttl,
        reports_by_get: pair.reports_by_get,
        addresses: addresses.filter(|spot| now < spot.expires_at).collect(),
        last_seen_at: row.last_seen(),
        groups: row.memberships.keys().copied().collect(),
        created_at: pair.created_at,
    }
}

fn bookmark_url(app: &App, bookmark: &Token) -> String {
    app.url(&format!("/b/{}", bookmark.expose()))
}

fn server_url(app: &App, server_key: &Token) -> String {
    app.url(&format!("/serverquery/?key={}", server_key.expose()))
}
