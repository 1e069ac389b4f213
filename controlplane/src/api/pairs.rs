//! `/pairs`: roving persons, devices and servers.

use std::net::IpAddr;
use std::ops::Bound;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use postern_shared::ids::{GroupId, PairId};
use postern_shared::openapi::label;
use postern_shared::time::{Timestamp, Ttl};
use postern_shared::token::{Token, TokenKind};
use postern_shared::wire::v1::Envelope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Holder, PairsRead, PairsWrite};
use super::document::{IfMatch, OnceHeader, PagesOfPairs, PairPath, nullable_email};
use super::fields::Fields;
use super::once::{Asked, Nothing, Told};
use super::refusal::refused;
use super::{expected, pair_id, version};
use crate::app::App;
use crate::domain::{Change, Command, Email, Pair, PairEdit, PairRow, State as Orgs};
use crate::drafts;
use crate::http::paging::{Cursor, List, PageRequest};
use crate::http::{Answer, ApiError};

#[derive(Serialize, ToSchema)]
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

#[derive(Serialize, ToSchema)]
struct AddressView {
    #[schema(value_type = String)]
    address: IpAddr,
    reported_at: Timestamp,
    expires_at: Timestamp,
}

/// A new pair with its secrets, which are never told again.
#[derive(Serialize, ToSchema)]
struct NewPair<'a> {
    #[serde(flatten)]
    pair: PairView<'a>,
    bookmark: &'a str,
    bookmark_url: String,
    server_key: &'a str,
    server_url: String,
}

/// A pair with its new bookmark, which is never told again.
#[derive(Serialize, ToSchema)]
struct NewBookmark<'a> {
    #[serde(flatten)]
    pair: PairView<'a>,
    bookmark: &'a str,
    bookmark_url: String,
}

/// A pair with its new server key, which is never told again.
#[derive(Serialize, ToSchema)]
struct NewServerKey<'a> {
    #[serde(flatten)]
    pair: PairView<'a>,
    server_key: &'a str,
    server_url: String,
}

/// What a new pair is made of.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct PairToCreate {
    #[schema(schema_with = label)]
    name: String,
    #[schema(schema_with = nullable_email)]
    contact_email: Option<String>,
    /// Seconds that a reported address counts; as the operator configured unless given.
    #[schema(nullable = false)]
    ttl: Option<Ttl>,
    /// Whether a plain GET of the predecessor's URL reports, too.
    #[schema(nullable = false)]
    reports_by_get: Option<bool>,
}

/// What to change of a pair.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "read field by field, so that every mistake is told; this describes it"
)]
struct PairToEdit {
    #[schema(schema_with = label, required = false)]
    name: Option<String>,
    #[schema(schema_with = nullable_email, required = false)]
    contact_email: Option<String>,
    /// Seconds that a reported address counts.
    #[schema(nullable = false)]
    ttl: Option<Ttl>,
    /// Whether a plain GET of the predecessor's URL reports, too.
    #[schema(nullable = false)]
    reports_by_get: Option<bool>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, edit, delete))
        .routes(routes!(close))
        .routes(routes!(rotate_bookmark))
        .routes(routes!(rotate_server_key))
}

/// Lists the pairs, in the order of their numbers.
#[utoipa::path(
    get, path = "/api/v1/pairs", operation_id = "listPairs", tag = "pairs",
    params(PagesOfPairs),
    security(("key" = ["pairs.read"])),
    responses((status = 200, description = "A page of pairs", body = Envelope<Vec<PairView<'static>>>)),
)]
async fn list(
    State(app): State<App>,
    holder: Holder<PairsRead>,
    page: PageRequest,
) -> Result<Answer, ApiError> {
    let after = page
        .behind(List::Pairs)?
        .map_or(Bound::Unbounded, |key| Bound::Excluded(u64::from_be_bytes(key)));
    let (state, now) = (app.engine().state(), app.engine().now());
    let org = state.org(holder.org).ok_or(ApiError::NotFound)?;
    let rest = org.pairs.range((after, Bound::Unbounded));
    let rest = rest.filter_map(|(_, id)| state.pair(*id).filter(|row| row.is_live()));
    let (rows, next) =
        page.cut(rest, |last| Cursor::behind(List::Pairs, &last.record.number.to_be_bytes()));
    let views: Vec<PairView<'_>> = rows.into_iter().map(|row| shown(row, now)).collect();
    Ok(Answer::page(&views, next))
}

/// Makes a pair and tells its secrets, once.
#[utoipa::path(
    post, path = "/api/v1/pairs", operation_id = "createPair", tag = "pairs",
    params(OnceHeader),
    request_body = PairToCreate,
    security(("key" = ["pairs.write"])),
    responses((status = 201, description = "The new pair with its secrets", body = Envelope<NewPair<'static>>, headers(("Location" = String, description = "The path of the new object"), ("ETag" = String, description = "The version of the object")))),
)]
async fn create(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Asked { attempt, mut body }: Asked<Fields>,
) -> Result<Answer, ApiError> {
    let name = body.required("name");
    let contact_email: Option<Option<Email>> = body.nullable("contact_email");
    let ttl = body.optional("ttl");
    let reports_by_get = body.optional("reports_by_get");
    body.finish()?;
    let name = name.ok_or_else(|| ApiError::field("/name", "is missing"))?;

    let ttl = ttl.unwrap_or(app.settings().ttl);
    let drawn = drafts::NewPair::draw(app.engine(), holder.org, name, ttl);
    let drafts::NewPair { pair, bookmark, server_key } = drawn;
    let pair = Pair {
        contact_email: contact_email.flatten(),
        reports_by_get: reports_by_get.unwrap_or(false),
        ..pair
    };
    let (bookmark_url, server_url) = (bookmark_url(&app, &bookmark), server_url(&app, &server_key));
    let tell = move |_: &Orgs, changes: &[Change]| {
        let pair = changed(changes)?;
        let new = NewPair {
            pair: view(pair, Whereabouts::NOWHERE),
            bookmark: bookmark.expose(),
            bookmark_url: bookmark_url.clone(),
            server_key: server_key.expose(),
            server_url: server_url.clone(),
        };
        Told::created(format!("/api/v1/pairs/{}", pair.id), pair.id.as_bytes(), &new)
    };
    attempt.carry_out(&app, holder.order(Command::CreatePair(pair)), tell).await
}

/// Shows a pair and where it is.
#[utoipa::path(
    get, path = "/api/v1/pairs/{id}", operation_id = "getPair", tag = "pairs",
    params(PairPath),
    security(("key" = ["pairs.read"])),
    responses((status = 200, description = "The pair", body = Envelope<PairView<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn show(
    State(app): State<App>,
    holder: Holder<PairsRead>,
    Path(id): Path<String>,
) -> Result<Answer, ApiError> {
    let state = app.engine().state();
    let id = pair_id(&state, holder.org, &id)?;
    answer(&app, &state, id)
}

/// Edits a pair; what is left out stays.
#[utoipa::path(
    patch, path = "/api/v1/pairs/{id}", operation_id = "editPair", tag = "pairs",
    params(PairPath, IfMatch),
    request_body = PairToEdit,
    security(("key" = ["pairs.write"])),
    responses((status = 200, description = "The pair as it is since", body = Envelope<PairView<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn edit(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut body: Fields,
) -> Result<Answer, ApiError> {
    let edit = PairEdit {
        name: body.optional("name"),
        contact_email: body.nullable("contact_email"),
        ttl: body.optional("ttl"),
        reports_by_get: body.optional("reports_by_get"),
    };
    body.finish()?;

    let (pair, expected) = target(&app, &holder, &id, &headers)?;
    let command = Command::EditPair { org: holder.org, pair, edit, expected };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;

    answer(&app, &app.engine().state(), pair)
}

/// Deletes a pair: its secrets die and its address closes at once; its name stays in the audit.
#[utoipa::path(
    delete, path = "/api/v1/pairs/{id}", operation_id = "deletePair", tag = "pairs",
    params(PairPath, IfMatch),
    security(("key" = ["pairs.write"])),
    responses((status = 204, description = "The pair is gone")),
)]
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

/// Closes what a pair has reported, at once, until it reports again.
///
/// Its bookmark stays good: where that may be in wrong hands, give it another one instead.
#[utoipa::path(
    delete, path = "/api/v1/pairs/{id}/addresses", operation_id = "closePair", tag = "pairs",
    params(PairPath),
    security(("key" = ["pairs.write"])),
    responses((status = 204, description = "The pair is nowhere, as far as any list says")),
)]
async fn close(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let pair = pair_id(&app.engine().state(), holder.org, &id)?;
    let command = Command::CloseAddresses { org: holder.org, pair };
    app.engine().submit(holder.order(command)).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a pair another bookmark and tells it, once.
///
/// The old bookmark dies at once, and the address on file closes: whoever held the old one may have
/// chosen it.
#[utoipa::path(
    post, path = "/api/v1/pairs/{id}/bookmark", operation_id = "rotateBookmark", tag = "pairs",
    params(OnceHeader, PairPath, IfMatch),
    security(("key" = ["pairs.write"])),
    responses((status = 200, description = "The pair with its new bookmark", body = Envelope<NewBookmark<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn rotate_bookmark(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Asked { attempt, body: Nothing }: Asked<Nothing>,
) -> Result<Answer, ApiError> {
    let (pair, expected) = target(&app, &holder, &id, &headers)?;
    let bookmark = app.engine().chance().token(TokenKind::Bookmark);
    let (url, hash) = (bookmark_url(&app, &bookmark), bookmark.hash());
    let tell = move |state: &Orgs, changes: &[Change]| {
        let whereabouts = Whereabouts::of(row(state, pair)?);
        let whereabouts = Whereabouts { addresses: Vec::new(), ..whereabouts };
        let new = NewBookmark {
            pair: view(changed(changes)?, whereabouts),
            bookmark: bookmark.expose(),
            bookmark_url: url.clone(),
        };
        Told::ok(pair.as_bytes(), &new)
    };
    let command = Command::RotateBookmark { org: holder.org, pair, hash, expected };
    attempt.carry_out(&app, holder.order(command), tell).await
}

/// Gives a pair another server key and tells it, once.
///
/// The old server key dies at once. It only reads, so nothing closes.
#[utoipa::path(
    post, path = "/api/v1/pairs/{id}/server_key", operation_id = "rotateServerKey", tag = "pairs",
    params(OnceHeader, PairPath, IfMatch),
    security(("key" = ["pairs.write"])),
    responses((status = 200, description = "The pair with its new server key", body = Envelope<NewServerKey<'static>>, headers(("ETag" = String, description = "The version of the object")))),
)]
async fn rotate_server_key(
    State(app): State<App>,
    holder: Holder<PairsWrite>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Asked { attempt, body: Nothing }: Asked<Nothing>,
) -> Result<Answer, ApiError> {
    let (pair, expected) = target(&app, &holder, &id, &headers)?;
    let server_key = app.engine().chance().token(TokenKind::Server);
    let (url, hash, now) = (server_url(&app, &server_key), server_key.hash(), app.engine().now());
    let tell = move |state: &Orgs, changes: &[Change]| {
        let new = NewServerKey {
            pair: view(changed(changes)?, Whereabouts::of(row(state, pair)?).at(now)),
            server_key: server_key.expose(),
            server_url: url.clone(),
        };
        Told::ok(pair.as_bytes(), &new)
    };
    let command = Command::RotateServerKey { org: holder.org, pair, hash, expected };
    attempt.carry_out(&app, holder.order(command), tell).await
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
    let row = row(state, id)?;
    let etag = version(id.as_bytes(), row.revision);
    Ok(Answer::ok(&shown(row, app.engine().now())).with_etag(&etag))
}

/// Where a pair is, and what it belongs to.
struct Whereabouts {
    addresses: Vec<AddressView>,
    last_seen_at: Option<Timestamp>,
    groups: Vec<GroupId>,
}

impl Whereabouts {
    const NOWHERE: Whereabouts =
        Whereabouts { addresses: Vec::new(), last_seen_at: None, groups: Vec::new() };

    fn of(row: &PairRow) -> Whereabouts {
        let ttl = row.record.ttl.as_duration();
        let spots = row.report.into_iter().flat_map(|report| report.networks());
        let addresses = spots.map(|(network, reported_at)| AddressView {
            address: network.address(),
            reported_at,
            expires_at: reported_at.saturating_add(ttl),
        });
        Whereabouts {
            addresses: addresses.collect(),
            last_seen_at: row.last_seen(),
            groups: row.memberships.keys().copied().collect(),
        }
    }

    /// Without what is stale at `now`.
    fn at(mut self, now: Timestamp) -> Whereabouts {
        self.addresses.retain(|spot| now < spot.expires_at);
        self
    }
}

fn view(pair: &Pair, whereabouts: Whereabouts) -> PairView<'_> {
    let Whereabouts { addresses, last_seen_at, groups } = whereabouts;
    PairView {
        id: pair.id,
        number: pair.number,
        name: pair.name.as_str(),
        contact_email: pair.contact_email.as_ref().map(Email::as_str),
        ttl: pair.ttl,
        reports_by_get: pair.reports_by_get,
        addresses,
        last_seen_at,
        groups,
        created_at: pair.created_at,
    }
}

/// A pair as it is now.
fn shown(row: &PairRow, now: Timestamp) -> PairView<'_> {
    view(&row.record, Whereabouts::of(row).at(now))
}

/// The pair that an order makes or changes.
fn changed(changes: &[Change]) -> Result<&Pair, ApiError> {
    let pair = changes
        .iter()
        .find_map(|change| if let Change::PutPair(pair) = change { Some(pair) } else { None });
    pair.ok_or_else(|| ApiError::internal("the order changed no pair"))
}

fn row(state: &Orgs, id: PairId) -> Result<&PairRow, ApiError> {
    state.pair(id).filter(|row| row.is_live()).ok_or(ApiError::NotFound)
}

fn bookmark_url(app: &App, bookmark: &Token) -> String {
    app.url(&format!("/b/{}", bookmark.expose()))
}

fn server_url(app: &App, server_key: &Token) -> String {
    app.url(&format!("/serverquery/?key={}", server_key.expose()))
}
