//! `/sign-in` and `/sign-out`.
//!
//! Mail address, password and second factor come in one form, so that nobody learns which of them
//! was wrong. Unknown accounts, wrong secrets, used codes and accounts whose tries are used up are
//! all answered alike, after the same work.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use postern_shared::ids::UserId;
use postern_shared::time::Timestamp;
use postern_shared::token::{Token, TokenHash, TokenKind};

use super::form::{Form, Proof, proof};
use super::{HOME, SIGN_IN, SignedIn, browser, cookie, note_failure, page, prove, see};
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{
    Account, Actor, Command, Credentials, Email, Login, Order, PasswordHash, Refusal,
    State as Orgs, User,
};
use crate::engine::Refused;
use crate::http::ApiError;
use crate::http::limit::Caller;
use crate::server::ClientAddress;

pub(super) fn routes() -> Router<App> {
    Router::new().route(SIGN_IN, get(show).post(sign_in)).route("/sign-out", post(sign_out))
}

/// A login with the secret that the browser gets, before it is durable.
pub(super) struct NewLogin {
    pub(super) token: Token,
    pub(super) login: Login,
}

/// Why nobody was signed in.
enum Failed {
    /// Some of it was wrong; which is not told.
    Wrong,
    Error(ApiError),
}

async fn show(State(app): State<App>, headers: HeaderMap) -> Response {
    fill_in(&app, &headers, "", false)
}

/// Shows the form, bound to a cookie of this browser.
fn fill_in(app: &App, headers: &HeaderMap, email: &str, is_wrong: bool) -> Response {
    let bound = cookie::form(headers).map_or_else(|| cookie::new_form(app), ToOwned::to_owned);
    let mut response = page::sign_in(app, email, &proof(&bound), is_wrong);
    cookie::set_form(&mut response, &bound);
    response
}

async fn sign_in(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let form = match read(&app, request, &headers, address).await {
        Ok(form) => form,
        Err(error) => return page::refused(error),
    };
    match attempt(&app, &headers, &form, address).await {
        Ok((token, user, password)) => {
            let mut response = see(HOME);
            cookie::set_login(&mut response, &token);
            cookie::set_known(&app, &mut response, user, &password);
            response
        }
        Err(Failed::Wrong) => {
            note_failure(&app, address);
            metrics::counter!("postern_sign_ins_total", "outcome" => "refused").increment(1);
            fill_in(&app, &headers, form.text("email"), true)
        }
        Err(Failed::Error(error)) => page::refused(error),
    }
}

async fn read(
    app: &App,
    request: Request,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Form, ApiError> {
    app.limiter().may_guess(Caller::source(address), app.engine().now())?;
    let bound = cookie::form(headers).ok_or(ApiError::ForeignForm)?;
    Form::read(app, request, Proof::Cookie(bound)).await
}

/// Tries to sign in. The try is counted while the password is hashed: it takes the time that
/// hashing takes whether or not there is an account whose tries can be counted.
async fn attempt(
    app: &App,
    headers: &HeaderMap,
    form: &Form,
    address: IpAddr,
) -> Result<(Token, UserId, PasswordHash), Failed> {
    let found = candidate(&app.engine().state(), form.text("email"), form.text("org"));
    let stored = found.as_ref().and_then(|(_, account)| account.password.clone());
    let user = found.as_ref().map(|(user, _)| user.id);
    let has_password = stored.is_some();
    let is_known = user.is_some_and(|user| cookie::is_known(app, headers, user, stored.as_ref()));
    let order = |command| Order { actor: Actor::Unknown, source: Some(address), command };
    // For nobody, the same way through the writer.
    let counted = user.unwrap_or_else(|| UserId::from_random(app.engine().chance().id()));
    let counted = app.engine().submit(order(Command::CountTry { user: counted, is_known }));
    let verified = app.people().hasher.verify(form.secret("password"), stored.clone());
    let (counted, verified) = tokio::join!(counted, verified);
    let is_counted = match counted {
        Ok(_) => true,
        Err(Refused::Rejected(_)) => false,
        Err(error) => return Err(Failed::Error(refused(error))),
    };
    if !is_counted {
        // Nobody's, or one of too many: the record of a try is not written, so it is counted.
        let who = found.as_ref().map(|(user, _)| (user.org, Actor::Unknown));
        let refusal = if has_password { Refusal::RateLimited } else { Refusal::WrongSecret };
        app.count_refusal(who, refusal, address);
    }
    let is_right = verified.map_err(Failed::Error)? && is_counted;
    let now = app.engine().now();
    let account = found.as_ref().map(|(_, account)| account);
    let factor = account.and_then(|account| prove::factor(app, account, form.text("code"), now));
    let (true, Some((user, _)), Some(password), Some(factor)) = (is_right, found, stored, factor)
    else {
        return Err(Failed::Wrong);
    };

    let NewLogin { token, login } = new_login(app, &user, headers, address, now);
    let credentials = Box::new(Credentials { password: password.clone(), factor, is_known });
    let replaces = cookie::login_hash(headers);
    let command = Command::SignIn { credentials, login: Box::new(login), replaces };
    let order = Order { actor: Actor::User(user.id), ..order(command) };
    match app.engine().submit(order).await {
        Ok(_) => {
            metrics::counter!("postern_sign_ins_total", "outcome" => "done").increment(1);
            tracing::info!(user = %user.id, %address, "signed in");
            Ok((token, user.id, password))
        }
        Err(Refused::Rejected(_)) => Err(Failed::Wrong),
        Err(error) => Err(Failed::Error(refused(error))),
    }
}

/// The one user that is meant. A mail address may be in several orgs; then the org has to be
/// named.
pub(super) fn candidate(state: &Orgs, email: &str, org: &str) -> Option<(User, Account)> {
    let email: Email = email.trim().parse().ok()?;
    let org = org.trim();
    let is_meant = |user: &&User| {
        let name = state.org(user.org).map(|row| row.record.name.as_str());
        org.is_empty() || name == Some(org)
    };
    let mut users = state.users_by_email(&email).filter(is_meant);
    let (user, None) = (users.next()?, users.next()) else { return None };
    Some((user.clone(), state.account(user.id)?.clone()))
}

/// Draws a login.
pub(super) fn new_login(
    app: &App,
    user: &User,
    headers: &HeaderMap,
    address: IpAddr,
    now: Timestamp,
) -> NewLogin {
    let token = app.engine().chance().token(TokenKind::Login);
    let login = Login {
        hash: token.hash(),
        user: user.id,
        org: user.org,
        created_at: now,
        used_at: now,
        address,
        browser: browser(headers),
    };
    NewLogin { token, login }
}

async fn sign_out(State(app): State<App>, signed_in: SignedIn, request: Request) -> Response {
    let ended = async {
        signed_in.form(&app, request).await?;
        let command = Command::SignOut { user: signed_in.user, login: signed_in.login };
        app.engine().submit(signed_in.order(command)).await.map_err(refused)
    };
    match ended.await {
        Ok(_) => {
            let mut response = see(SIGN_IN);
            cookie::clear_login(&mut response);
            response
        }
        Err(error) => page::refused(error),
    }
}

/// Reads the hash of a login as [`hash_text`] writes it.
pub(super) fn read_hash<'a>(
    mut hashes: impl Iterator<Item = &'a TokenHash>,
    text: &str,
) -> Option<TokenHash> {
    hashes.find(|hash| hash_text(hash) == text).copied()
}

/// The name of a login in a form: half of its hash is enough to tell it from others.
pub(super) fn hash_text(hash: &TokenHash) -> String {
    hash.as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
