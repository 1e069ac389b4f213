//! `/reset`: a link by mail, and the new password that it sets.
//!
//! Who asks is told the same and at once, whether or not there is such an account: who that may
//! be is looked up behind the answer. The link alone opens nothing: the second factor is asked
//! for as well, and without it the operator's `recover` is the way back in.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use postern_shared::token::TokenKind;

use super::form::{Form, Proof, proof};
use super::sign_in::{candidate, new_login};
use super::{HOME, RESET, cookie, link, note_failure, page, password, prove, see, ticket_of};
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{Actor, Command, Order, Purpose, Ticket, User};
use crate::engine::Refused;
use crate::http::ApiError;
use crate::http::limit::Caller;
use crate::mail::{Addressee, Letter};
use crate::server::ClientAddress;

/// What the links here may be for.
const PURPOSES: &[Purpose] = &[Purpose::Reset];
/// When to come back where too many are asking.
const BUSY_RETRY: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(RESET, get(ask).post(send))
        .route(&format!("{RESET}/{{ticket}}"), get(show).post(finish))
}

async fn ask(State(app): State<App>, headers: HeaderMap) -> Response {
    let bound = cookie::form(&headers).map_or_else(|| cookie::new_form(&app), ToOwned::to_owned);
    let mut response = page::ask_reset(&app, &proof(&bound));
    cookie::set_form(&mut response, &bound);
    response
}

async fn send(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    let bound = cookie::form(request.headers()).map(ToOwned::to_owned);
    let accepted = async {
        let (now, source) = (app.engine().now(), Caller::source(address));
        app.limiter().may_guess(source, now)?;
        let bound = bound.ok_or(ApiError::ForeignForm)?;
        let form = Form::read(&app, request, Proof::Cookie(&bound)).await?;
        // Each request may send a mail, so it is as dear as a failure.
        app.limiter().authentication_failed(source, now)?;
        let errand = Arc::clone(&app.people().errands).try_acquire_owned();
        let errand = errand.map_err(|_| ApiError::Unavailable {
            reason: "too many links are asked for".to_owned(),
            retry_after: BUSY_RETRY,
        })?;
        let (app, email) = (app.clone(), form.text("email").to_owned());
        let org = form.text("org").to_owned();
        tokio::spawn(async move {
            mail(&app, &email, &org, address).await;
            drop(errand);
        });
        Ok(())
    };
    match accepted.await {
        Ok(()) => page::reset_sent(),
        Err(error) => page::refused(error),
    }
}

/// Mails a link, if there is somebody to mail it to.
async fn mail(app: &App, email: &str, org: &str, address: IpAddr) {
    let Some(outbox) = app.people().outbox() else { return };
    let Some((user, _)) = candidate(&app.engine().state(), email, org) else { return };
    let token = app.engine().chance().token(TokenKind::Ticket);
    let ticket = Ticket {
        hash: token.hash(),
        user: user.id,
        org: user.org,
        purpose: Purpose::Reset,
        created_at: app.engine().now(),
    };
    let command = Command::RequestReset(ticket);
    let order = Order { actor: Actor::Unknown, source: Some(address), command };
    match app.engine().submit(order).await {
        Ok(_) => {}
        // Nobody who can sign in, or one who was sent a link just now.
        Err(Refused::Rejected(_)) => return,
        Err(error) => {
            tracing::warn!(%error, "a link to reset a password was not made");
            return;
        }
    }
    let minutes = Purpose::Reset.life().as_secs() / 60;
    let url = link(&app.settings().public_url.to_string(), Purpose::Reset, &token);
    let letter = Letter {
        addressee: Addressee::User(user.id),
        to: user.email.clone(),
        subject: "Your new password".to_owned(),
        body: format!(
            "Somebody, most likely you, asked for a new password on Postern from {address}.\n\n\
             Set it here, within {minutes} minutes, with a code of your authenticator at hand:\n\n\
             {url}\n\n\
             The link works once. If it was not you, you need do nothing.\n"
        )
        .into(),
        secret: Some(token.hash()),
    };
    if let Err(error) = outbox.send(letter) {
        tracing::warn!(%error, user = %user.id, "a link to reset a password was not mailed");
    }
}

async fn show(
    State(app): State<App>,
    Path(text): Path<String>,
    ClientAddress(address): ClientAddress,
) -> Response {
    match ticket_of(&app, &text, PURPOSES, address) {
        Ok((_, user)) => page::finish_reset(&user.email, None),
        Err(error) => page::refused_link(error),
    }
}

async fn finish(
    State(app): State<App>,
    Path(text): Path<String>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let read = async {
        let (ticket, user) = ticket_of(&app, &text, PURPOSES, address)?;
        let form = Form::read(&app, request, Proof::Address).await?;
        Ok((ticket, user, form))
    };
    let (ticket, user, form) = match read.await {
        Ok(read) => read,
        Err(error) => return page::refused_link(error),
    };
    if let Err(wrong) = password::check_both(&form, &user.email) {
        return page::finish_reset(&user.email, Some(wrong));
    }
    match carry_out(&app, &headers, (&ticket, &user, &form), address).await {
        Ok(Some(response)) => response,
        Ok(None) => {
            note_failure(&app, address);
            let wrong = "The code is wrong or was used already, or there were too many tries: take \
                         the next one, or a recovery code, and wait a while after several.";
            page::finish_reset(&user.email, Some(wrong.to_owned()))
        }
        Err(error) => page::refused_link(error),
    }
}

/// Sets the new password; none where the second factor is wrong.
async fn carry_out(
    app: &App,
    headers: &HeaderMap,
    (ticket, user, form): (&Ticket, &User, &Form),
    address: IpAddr,
) -> Result<Option<Response>, ApiError> {
    let order = |actor, command| Order { actor, source: Some(address), command };
    let counted = Command::CountTry { user: user.id, is_known: true };
    match app.engine().submit(order(Actor::Unknown, counted)).await {
        Ok(_) => {}
        Err(Refused::Rejected(_)) => return Ok(None),
        Err(error) => return Err(refused(error)),
    }
    let account = app.engine().state().account(user.id).cloned().ok_or(ApiError::NotFound)?;
    let hasher = &app.people().hasher;
    let written = form.text("code");
    if prove::factor(app, &account, written, app.engine().now()).is_none() {
        return Ok(None);
    }
    let password = hasher.hash(form.secret("password"), app.engine().chance()).await?;
    let now = app.engine().now();
    let Some(factor) = prove::factor(app, &account, written, now) else { return Ok(None) };
    let login = new_login(app, user, headers, address, now);
    let command = Command::FinishReset {
        ticket: ticket.hash,
        password: password.clone(),
        factor,
        login: Box::new(login.login),
    };
    match app.engine().submit(order(Actor::User(user.id), command)).await {
        Ok(_) => {
            let mut response = see(HOME);
            cookie::set_login(&mut response, &login.token);
            cookie::set_known(app, &mut response, user.id, &password);
            Ok(Some(response))
        }
        // The link was used meanwhile, or the code was.
        Err(Refused::Rejected(_)) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}
