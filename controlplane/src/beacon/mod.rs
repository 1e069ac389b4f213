//! `/b/{bookmark}`: where a pair says that it is here now.
//!
//! GET shows a page and changes nothing; POST reports. The address is always the caller's own.

mod confirmation;
mod device;
mod freeze;
mod page;
mod report;
mod request;
mod status;

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, ORIGIN, REFERRER_POLICY, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use postern_shared::ids::{OrgId, PairId};
use postern_shared::token::{Token, TokenHash, TokenKind};

use crate::api::auth::{find, refuse_secret};
use crate::api::prefer;
use crate::app::App;
use crate::domain::{Actor, Secret};
use crate::http::{Answer, ApiError};
use crate::server::{ClientAddress, Peer};

pub(crate) use self::confirmation::Confirmations;
use self::device::Device;
pub(crate) use self::freeze::frozen_until;
pub(crate) use self::report::report;
pub(crate) use self::request::{is_prefetch, wants_page};

/// A bookmark that is in force, and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bookmark {
    pub(crate) pair: PairId,
    hash: TokenHash,
}

impl Bookmark {
    /// For whom the audit counts what is refused to it.
    fn who(&self, app: &App) -> Option<(OrgId, Actor)> {
        let org = app.engine().state().pair(self.pair)?.record.org;
        Some((org, Actor::Pair(self.pair)))
    }
}

/// The routes of bookmarks.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/b/{bookmark}", get(show).post(accept).options(methods))
        .route("/b/{bookmark}/state", get(watch))
}

async fn show(
    State(app): State<App>,
    Path(bookmark): Path<String>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    if is_prefetch(request.headers()) {
        return guarded(StatusCode::NO_CONTENT);
    }
    guarded(match find_bookmark(&app, &bookmark, address) {
        Ok(bookmark) => {
            let is_remembered = device::is_remembered(&app, request.headers(), &bookmark);
            let peer = request.extensions().get::<Peer>();
            page::bookmark(&app, bookmark.pair, address, peer, is_remembered)
        }
        Err(error) => refused(error, wants_page(request.headers())),
    })
}

/// Tells the page how far its report got; nothing is reported by asking.
async fn watch(
    State(app): State<App>,
    Path(bookmark): Path<String>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    if is_prefetch(request.headers()) {
        return guarded(StatusCode::NO_CONTENT);
    }
    let status = async {
        let bookmark = find_bookmark(&app, &bookmark, address)?;
        status::status(&app, &bookmark, address).await
    };
    guarded(match status.await {
        Ok(status) => Answer::ok(&status).into_response(),
        Err(error) => error.into_response(),
    })
}

async fn accept(
    State(app): State<App>,
    Path(bookmark): Path<String>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    if is_prefetch(request.headers()) {
        return guarded(StatusCode::NO_CONTENT);
    }
    let is_page = wants_page(request.headers());
    let reader = family_reader(&app, request.headers());
    let mut response = guarded(match answer(&app, &bookmark, address, request, is_page).await {
        Ok(response) => response,
        Err(error) => refused(error, is_page),
    });
    if let Some(origin) = reader {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

async fn methods() -> Response {
    guarded((StatusCode::NO_CONTENT, [(ALLOW, "GET, HEAD, POST, OPTIONS")]))
}

async fn answer(
    app: &App,
    text: &str,
    address: IpAddr,
    request: Request,
    is_page: bool,
) -> Result<Response, ApiError> {
    let bookmark = find_bookmark(app, text, address)?;
    let was_remembered = device::is_remembered(app, request.headers(), &bookmark);
    let is_from_page = request::is_from_page(request.headers());
    let preferred = prefer::wait(request.headers());
    let mut drain = request.extensions().get().cloned();
    let said = request::read(request).await?;

    let is_remembered = match said.device {
        None => was_remembered,
        Some(_) if !is_from_page => return Err(ApiError::ForeignForm),
        Some(Device::Itself) if !was_remembered => return Err(ApiError::ForeignForm),
        Some(Device::Itself | Device::Remember) => true,
        Some(Device::Forget) => false,
    };

    let reported = report(app, &bookmark, address, said.visit).await?;
    let wait = preferred.or(said.wait);
    let confirmation = reported.confirmation(app, wait, drain.as_mut()).await;

    let mut response = if is_page {
        page::reported(app, &reported, confirmation, address, is_remembered)
    } else {
        Answer::ok(&reported.answer(confirmation)).into_response()
    };
    if let Some(wait) = preferred {
        let (name, value) = prefer::applied(wait);
        response.headers_mut().insert(name, value);
    }
    let path = format!("/b/{text}");
    match said.device {
        Some(Device::Remember | Device::Itself) => {
            device::remember(app, &mut response, &bookmark, &path);
        }
        Some(Device::Forget) => device::forget(&mut response, &path),
        None => {}
    }
    Ok(response)
}

/// The plane's own page, which may read what its report by the name of the other family led to.
fn family_reader(app: &App, headers: &HeaderMap) -> Option<HeaderValue> {
    let settings = app.settings();
    let origin = headers.get(ORIGIN).filter(|_| settings.family_urls.any())?;
    let is_ours = settings.public_url.origin().as_str().as_bytes() == origin.as_bytes();
    is_ours.then(|| origin.clone())
}

/// Finds the pair of a bookmark. Who holds a mistyped one is told so: the checksum alone says it.
/// Unknown, deleted and never given are all the same.
pub(crate) fn find_bookmark(
    app: &App,
    bookmark: &str,
    source: IpAddr,
) -> Result<Bookmark, ApiError> {
    let now = app.engine().now();
    let failed = |who, error| refuse_secret(app, who, source, now, error);
    let token = secret(bookmark, TokenKind::Bookmark).map_err(|error| failed(None, error))?;
    let state = app.engine().state();
    let row = match find(&state, &token) {
        Some(Secret::Bookmark(pair)) => state.pair(pair),
        Some(Secret::Key(_) | Secret::Server(_) | Secret::Enrolment(_) | Secret::Agent(_))
        | None => None,
    };
    // Whose it was is for the audit alone.
    let who = row.map(|row| (row.record.org, Actor::Pair(row.record.id)));
    let live = row.filter(|row| row.is_live());
    let found = live.map(|row| Bookmark { pair: row.record.id, hash: token.hash() });
    found.ok_or_else(|| failed(who, ApiError::NotFound))
}

/// Reads a secret of one kind out of a URL.
pub(crate) fn secret(text: &str, kind: TokenKind) -> Result<Token, ApiError> {
    let bad = |detail: String| ApiError::BadRequest { detail };
    let token: Token = text.parse().map_err(|error| bad(format!("the URL is wrong: {error}")))?;
    if token.kind() == kind {
        return Ok(token);
    }
    let (given, wanted) = (token.kind().prefix(), kind.prefix());
    Err(bad(format!("the URL is wrong: it holds a {given} secret where a {wanted} secret belongs")))
}

/// A failure, as a page for people and as a problem for programs.
fn refused(error: ApiError, is_page: bool) -> Response {
    // A fault on our side is told by its request id, which only a problem carries.
    if is_page && error.status().is_client_error() {
        page::refused(error)
    } else {
        error.into_response()
    }
}

/// Keeps the URL, which is a secret, out of caches and other sites' logs.
pub(crate) fn guarded(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
