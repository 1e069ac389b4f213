//! The two URLs of IPAuth, for its published scripts: a change of the host name is enough.
//!
//! Those scripts take `"ipaddress":"` out of compact JSON, cut what follows down to digits and
//! dots, and put it into a firewall. So the field holds IPv4 or is not there: an IPv6 address
//! would be cut down to a stranger's IPv4 address. Where there is no address to tell, the answer
//! is an error: `curl -f` fails, the script ends, and its firewall stays as it is. Nothing that
//! could be answered would make such a script close a door; closing is what the agent is for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use postern_shared::token::{Token, TokenKind};
use serde::{Deserialize, Serialize};

use crate::api::auth::{find, refuse_secret};
use crate::app::App;
use crate::beacon::{find_bookmark, guarded, is_prefetch, report, secret, wants_page};
use crate::domain::{PairRow, Secret};
use crate::http::ApiError;
use crate::http::limit::{Caller, Tier};
use crate::server::ClientAddress;

/// What the scripts read. The order of the fields is theirs.
#[derive(Serialize)]
struct Found {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipaddress: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipaddress6: Option<Ipv6Addr>,
}

#[derive(Deserialize)]
struct Secrets {
    key: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/serverquery/", get(query))
        .route("/serverquery", get(query))
        .route("/whitelist/", get(report_by_get))
        .route("/whitelist", get(report_by_get))
}

/// Tells one host where one pair is.
async fn query(
    State(app): State<App>,
    ClientAddress(source): ClientAddress,
    secrets: Result<Query<Secrets>, axum::extract::rejection::QueryRejection>,
) -> Response {
    guarded(
        match secrets
            .map_err(|_| no_key())
            .and_then(|Query(Secrets { key })| read(&app, &key, source))
        {
            Ok(found) => found.into_response(),
            Err(error) => error.into_response(),
        },
    )
}

fn read(app: &App, key: &str, source: IpAddr) -> Result<Found, ApiError> {
    let now = app.engine().now();
    let failed = |error| refuse_secret(app, None, source, now, error);
    let token: Token = secret(key, TokenKind::Server).map_err(failed)?;
    let state = app.engine().state();
    let row = match find(&state, &token) {
        Some(Secret::Server(pair)) => state.pair(pair).filter(|row| row.is_live()),
        Some(Secret::Key(_) | Secret::Bookmark(_) | Secret::Enrolment(_) | Secret::Agent(_))
        | None => None,
    };
    let row = row.ok_or_else(|| failed(ApiError::NotFound))?;
    app.limiter().take(Tier::Read, Caller::record(row.record.id.as_bytes()), now)?;
    let is_fresh = |address: IpAddr| row.stale_at(address).is_some_and(|stale_at| now < stale_at);
    let found = Found::of(row, is_fresh);
    if found.ipaddress.is_none() && found.ipaddress6.is_none() {
        let detail = "the pair has no current address: it has not reported in time".to_owned();
        return Err(ApiError::Conflict { detail });
    }
    Ok(found)
}

/// Reports by GET, for pairs that allow it: whatever fetches the URL, reports. HEAD never does.
async fn report_by_get(
    State(app): State<App>,
    ClientAddress(source): ClientAddress,
    method: Method,
    headers: HeaderMap,
    secrets: Result<Query<Secrets>, axum::extract::rejection::QueryRejection>,
) -> Response {
    if is_prefetch(&headers) || method != Method::GET {
        return guarded(StatusCode::NO_CONTENT);
    }
    let key = match secrets {
        Ok(Query(Secrets { key })) => key,
        Err(_) => return guarded(no_key()),
    };
    guarded(match reported(&app, &key, source, wants_page(&headers)).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    })
}

async fn reported(
    app: &App,
    key: &str,
    source: IpAddr,
    is_browser: bool,
) -> Result<Response, ApiError> {
    let bookmark = find_bookmark(app, key, source)?;
    let by_get =
        app.engine().state().pair(bookmark.pair).is_some_and(|row| row.record.reports_by_get);
    if by_get {
        let reported = report(app, &bookmark, source, None).await?;
        let (ipaddress, ipaddress6) = (reported.ipv4, reported.ipv6);
        return Ok(Found { status: "success", ipaddress, ipaddress6 }.into_response());
    }
    if is_browser && let Ok(page) = HeaderValue::try_from(format!("/b/{key}")) {
        return Ok((StatusCode::SEE_OTHER, [(LOCATION, page)]).into_response());
    }
    let detail = "this pair does not report by GET; send POST to /b/ and the key, or have an \
                  admin turn `reports_by_get` on";
    Err(ApiError::Conflict { detail: detail.to_owned() })
}

fn no_key() -> ApiError {
    ApiError::BadRequest { detail: "the URL must end in `?key=` and a secret".to_owned() }
}

impl Found {
    fn of(row: &PairRow, is_fresh: impl Fn(IpAddr) -> bool) -> Found {
        let ipv4 = row.report.and_then(|report| report.ipv4).map(|spot| spot.address);
        let ipv6 = row.report.and_then(|report| report.ipv6).map(|spot| spot.address);
        Found {
            status: "success",
            ipaddress: ipv4.filter(|address| is_fresh((*address).into())),
            ipaddress6: ipv6.filter(|address| is_fresh((*address).into())),
        }
    }

    fn into_response(self) -> Response {
        // serde_json writes compact JSON: a space after a colon, and the scripts read nothing.
        match serde_json::to_string(&self) {
            Ok(json) => {
                let media_type = HeaderValue::from_static("application/json");
                ([(CONTENT_TYPE, media_type)], json).into_response()
            }
            Err(error) => ApiError::internal(error).into_response(),
        }
    }
}
