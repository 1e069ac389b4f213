//! People: signing in and out, invitations, resets, and what a signed-in user changes alone.
//!
//! Every page works without script. GET shows and changes nothing; POST acts, and is taken only
//! from a page of ours (`Form`). Whoever is to be signed in for a route asks for `SignedIn`.

mod account;
mod codes;
mod cookie;
mod form;
mod page;
mod password;
mod prove;
mod reset;
mod sign_in;
mod signed_in;
mod welcome;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, USER_AGENT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use postern_shared::token::{Token, TokenKind};
use tokio::sync::Semaphore;

use self::password::Hasher;
use crate::api::auth::refuse_secret;
use crate::app::App;
use crate::domain::{BROWSER_CHARS_MAX, Purpose, Ticket, User, acts};
use crate::http::ApiError;
use crate::http::limit::Caller;
use crate::mail::Outbox;
use crate::seal::Sealer;

pub(crate) use self::form::Form;
pub(crate) use self::prove::fresh_factor;
pub(crate) use self::signed_in::{SignedIn, Watching};
pub use self::welcome::{link, mail_invitation};

/// Where the page that signs in is.
pub(crate) const SIGN_IN: &str = "/sign-in";
/// Where somebody who has signed in begins.
pub(crate) const HOME: &str = "/console";
/// Where the own account is.
pub(crate) const ACCOUNT: &str = "/account";
/// Where links with a ticket lead that invites or recovers, and one that resets.
const WELCOME: &str = "/welcome";
const RESET: &str = "/reset";

/// Errands that go on behind an answer, such as looking up whom to mail.
const ERRANDS_MAX: usize = 64;

/// What letting people in takes.
pub struct People {
    sealer: Sealer,
    hasher: Hasher,
    outbox: Option<Outbox>,
    errands: Arc<Semaphore>,
}

impl People {
    /// Makes it of what seals, and of what sends mail, where anything does.
    pub fn new(sealer: Sealer, outbox: Option<Outbox>) -> People {
        let errands = Arc::new(Semaphore::new(ERRANDS_MAX));
        People { sealer, hasher: Hasher::new(), outbox, errands }
    }

    /// What seals cookies and secrets that must be read back.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What sends mail, where anything does.
    pub(crate) fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }
}

impl fmt::Debug for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("People").finish_non_exhaustive()
    }
}

/// The routes of the pages for people.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .merge(sign_in::routes())
        .merge(welcome::routes())
        .merge(reset::routes())
        .merge(account::routes())
}

/// Counts a wrong guess against its source. The next one is told of the wait; this one has its own
/// answer.
fn note_failure(app: &App, address: IpAddr) {
    drop(app.limiter().authentication_failed(Caller::source(address), app.engine().now()));
}

/// Finds the ticket of a link, and whose it is. A wrong one counts as a failed authentication of
/// its source.
fn ticket_of(
    app: &App,
    text: &str,
    purposes: &[Purpose],
    address: IpAddr,
) -> Result<(Ticket, User), ApiError> {
    let now = app.engine().now();
    let token = text.parse::<Token>().ok().filter(|token| token.kind() == TokenKind::Ticket);
    let state = app.engine().state();
    let found = token.and_then(|token| state.open_ticket(&token.hash(), now));
    let found = found.filter(|ticket| purposes.contains(&ticket.purpose)).and_then(|ticket| {
        let user = state.live_user(ticket.org, ticket.user).ok()?;
        Some((ticket.clone(), user.clone()))
    });
    found.ok_or_else(|| refuse_secret(app, None, address, now, ApiError::NotFound))
}

/// What a browser calls itself, without what would act where it is shown.
fn browser(headers: &HeaderMap) -> String {
    let name = headers.get(USER_AGENT).map(|value| value.as_bytes());
    let name = String::from_utf8_lossy(name.unwrap_or_default());
    let shown = name.chars().filter(|c| !acts(*c));
    shown.take(BROWSER_CHARS_MAX).collect()
}

/// Keeps a page out of caches. Its address goes to pages of ours only: a browser that tells no
/// page where a form comes from could not prove that it comes from here.
pub(crate) fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Leads a browser on, so that a reload sends no form twice.
pub(crate) fn see(path: &str) -> Response {
    let location = HeaderValue::from_str(path).expect("paths of ours are plain text");
    private((StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response())
}
