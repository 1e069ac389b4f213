//! The pages that a bookmark shows: nothing from elsewhere, and all of it works without script.

use std::net::IpAddr;

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use postern_shared::ids::PairId;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::Confirmation;

use crate::app::App;
use crate::beacon::frozen_until;
use crate::beacon::report::Reported;
use crate::config::{PublicUrl, WebOrigin};
use crate::domain::Label;
use crate::http::ApiError;
use crate::page::{STYLE, Script, show_error, show_with};
use crate::server::Peer;

/// How long the page's button waits for hosts to confirm, in seconds.
const BUTTON_WAIT_SECS: u64 = 5;

/// Shows at once what the hosts confirm, and reports from a device that is remembered.
const SCRIPT: &str = include_str!("../../templates/bookmark.js");

/// What both pages go on with.
struct Form {
    script: &'static str,
    /// Where the address of the other family is seen, where that has a name.
    other: Option<WebOrigin>,
    is_remembered: bool,
    /// Whether the address is on file already.
    is_known: bool,
    wait: u64,
}

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
    /// Until when no other address is taken.
    frozen_until: Option<Timestamp>,
    form: Form,
}

#[derive(Template)]
#[template(path = "reported.html")]
struct ReportedPage<'a> {
    style: &'a str,
    name: &'a str,
    address: IpAddr,
    expires_at: Timestamp,
    confirmation: Confirmation,
    form: Form,
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage<'a> {
    style: &'a str,
    detail: String,
}

/// Shows the caller's address and a button that reports it.
pub(super) fn bookmark(
    app: &App,
    pair: PairId,
    address: IpAddr,
    peer: Option<&Peer>,
    is_remembered: bool,
) -> Response {
    let (name, known_until, frozen_until) = {
        let (now, state) = (app.engine().now(), app.engine().state());
        let Some(row) = state.pair(pair).filter(|row| row.is_live()) else {
            return refused(ApiError::NotFound);
        };
        let until = row.stale_at(address).filter(|until| now < *until);
        (row.record.name.to_string(), until, frozen_until(app, row, now))
    };
    let page = BookmarkPage {
        style: STYLE,
        name: &name,
        address,
        seen: seen_by(app, address, peer),
        known_until,
        frozen_until,
        form: form(app, address, is_remembered, known_until.is_some()),
    };
    show_with(&script(&page.form), StatusCode::OK, &page)
}

/// Shows what a report led to.
pub(super) fn reported(
    app: &App,
    reported: &Reported,
    confirmation: Confirmation,
    address: IpAddr,
    is_remembered: bool,
) -> Response {
    let name = app.engine().state().pair(reported.pair).map(|row| row.record.name.clone());
    let page = ReportedPage {
        style: STYLE,
        name: name.as_ref().map_or("", Label::as_str),
        address,
        expires_at: reported.expires_at,
        confirmation,
        form: form(app, address, is_remembered, true),
    };
    show_with(&script(&page.form), StatusCode::OK, &page)
}

/// Shows why nothing was done; the header fields of the error stay.
pub(super) fn refused(error: ApiError) -> Response {
    let detail = if let ApiError::Invalid { errors } = &error {
        errors.iter().map(|one| one.detail.as_str()).collect::<Vec<_>>().join("; ")
    } else {
        error.to_string()
    };
    let page = RefusedPage { style: STYLE, detail };
    show_error(error, &page)
}

fn form(app: &App, address: IpAddr, is_remembered: bool, is_known: bool) -> Form {
    let other = app.settings().family_urls.other_than(address).map(PublicUrl::origin);
    Form { script: SCRIPT, other, is_remembered, is_known, wait: BUTTON_WAIT_SECS }
}

fn script(form: &Form) -> Script<'_> {
    Script { text: form.script, peer: form.other.as_ref() }
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
