//! The pages that a bookmark shows: no script, nothing from elsewhere.

use std::net::IpAddr;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use postern_shared::ids::PairId;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::Confirmation;

use crate::app::App;
use crate::beacon::report::Reported;
use crate::domain::Label;
use crate::http::ApiError;
use crate::page::{STYLE, show, show_error};
use crate::server::Peer;

/// How long the page's button waits for hosts to confirm, in seconds.
const BUTTON_WAIT_SECS: u64 = 5;

#[derive(Template)]
#[template(path = "bookmark.html")]
struct BookmarkPage<'a> {
    style: &'a str,
    name: &'a str,
    address: IpAddr,
    /// How the address was found out.
    seen: String,
    /// Until when it is known already.
    known_until: Option<Timestamp>,
    wait: u64,
}

#[derive(Template)]
#[template(path = "reported.html")]
struct ReportedPage<'a> {
    style: &'a str,
    name: &'a str,
    address: IpAddr,
    expires_at: Timestamp,
    confirmation: Confirmation,
    wait: u64,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    style: &'a str,
    detail: String,
}

/// Shows the caller's address and a button that reports it.
pub(super) fn bookmark(app: &App, pair: PairId, address: IpAddr, peer: Option<&Peer>) -> Response {
    let (name, known_until) = {
        let (now, state) = (app.engine().now(), app.engine().state());
        let Some(row) = state.pair(pair).filter(|row| row.is_live()) else {
            return refused(ApiError::NotFound);
        };
        let until = row.stale_at(address).filter(|until| now < *until);
        (row.record.name.to_string(), until)
    };
    let page = BookmarkPage {
        style: STYLE,
        name: &name,
        address,
        seen: seen_by(app, address, peer),
        known_until,
        wait: BUTTON_WAIT_SECS,
    };
    show(StatusCode::OK, &page)
}

/// Shows what a report led to.
pub(super) fn reported(
    app: &App,
    reported: &Reported,
    confirmation: Confirmation,
    address: IpAddr,
) -> Response {
    let name = app.engine().state().pair(reported.pair).map(|row| row.record.name.clone());
    let page = ReportedPage {
        style: STYLE,
        name: name.as_ref().map_or("", Label::as_str),
        address,
        expires_at: reported.expires_at,
        confirmation,
        wait: BUTTON_WAIT_SECS,
    };
    show(StatusCode::OK, &page)
}

/// Shows why nothing was done; the header fields of the error stay.
pub(super) fn refused(error: ApiError) -> Response {
    let page = RefusedPage { style: STYLE, detail: error.to_string() };
    show_error(error, &page)
}

/// Says how the address was found out.
fn seen_by(app: &App, address: IpAddr, peer: Option<&Peer>) -> String {
    match peer {
        Some(Peer::Tcp { address: socket, .. }) if socket.ip().to_canonical() != address => {
            let header = app.settings().proxies.header.name();
            let proxy = socket.ip().to_canonical();
            format!("as told in the header {header} by {proxy}, a proxy that is trusted here")
        }
        Some(Peer::Tcp { .. } | Peer::Unix { .. }) | None => {
            "as seen at the other end of your connection".to_owned()
        }
    }
}
