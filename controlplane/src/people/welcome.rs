//! `/welcome/{ticket}`: where an invitation is accepted, and a lost way in is set up anew.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_shared::ids::UserId;
use postern_shared::token::Token;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::form::{Form, Proof};
use super::sign_in::{NewLogin, new_login};
use super::{RESET, WELCOME, codes, cookie, page, password, ticket_of};
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{
    Actor, Authenticator, Command, Email, Order, PasswordHash, Purpose, Sealed, Ticket, User,
    Welcome,
};
use crate::http::ApiError;
use crate::mail::{Addressee, Letter, Outbox, OutboxFull};
use crate::seal::Place;
use crate::server::ClientAddress;

const PURPOSES: &[Purpose] = &[Purpose::Invitation, Purpose::Recovery];

/// A seed that a page offers, not stored anywhere: the form brings it back, sealed.
pub(super) struct Offered {
    pub(super) seed: SecretSlice<u8>,
    pub(super) sealed: String,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route(&format!("{WELCOME}/{{ticket}}"), get(show).post(accept))
}

/// The link of a ticket, below `url`.
pub fn link(url: &str, purpose: Purpose, token: &Token) -> String {
    let path = match purpose {
        Purpose::Invitation | Purpose::Recovery => WELCOME,
        Purpose::Reset => RESET,
    };
    format!("{url}{path}/{}", token.expose())
}

/// Mails an invitation, whose secret is the end of its link.
pub fn mail_invitation(
    outbox: &Outbox,
    user: UserId,
    to: &Email,
    org: &str,
    link: &SecretString,
) -> Result<(), OutboxFull> {
    let hours = Purpose::Invitation.life().as_secs() / 3_600;
    let (_, secret) = link.expose_secret().rsplit_once('/').unwrap_or_default();
    outbox.send(Letter {
        addressee: Addressee::User(user),
        to: to.clone(),
        subject: format!("You are invited to {org}"),
        body: format!(
            "You are invited to {org} on Postern.\n\n\
             Set your password and your authenticator here, within {hours} hours:\n\n\
             {}\n\n\
             The link works once. If you expect no invitation, you need do nothing.\n",
            link.expose_secret()
        )
        .into(),
        secret: secret.parse().ok().map(|token: Token| token.hash()),
    })
}

async fn show(
    State(app): State<App>,
    Path(text): Path<String>,
    ClientAddress(address): ClientAddress,
) -> Response {
    match ticket_of(&app, &text, PURPOSES, address) {
        Ok((ticket, user)) => page::welcome(&app, &user, &offer(&app, place(&ticket)), None),
        Err(error) => page::refused_link(error),
    }
}

async fn accept(
    State(app): State<App>,
    Path(text): Path<String>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let read = async {
        let (ticket, user) = ticket_of(&app, &text, PURPOSES, address)?;
        let form = Form::read(&app, request, Proof::Address).await?;
        let offered = opened(&app, place(&ticket), form.text("seed"))?;
        Ok((ticket, form, user, offered))
    };
    let (ticket, form, user, offered) = match read.await {
        Ok(read) => read,
        Err(error) => return page::refused_link(error),
    };
    let step = match checked(&app, &form, &user.email, &offered) {
        Ok(step) => step,
        Err(wrong) => return page::welcome(&app, &user, &offered, Some(wrong)),
    };
    let accepted = carry_out(&app, &headers, (&ticket, &form, &user), (&offered, step), address);
    match accepted.await {
        Ok((login, password, codes)) => {
            let mut response = page::recovery_codes(&codes, true);
            cookie::set_login(&mut response, &login.token);
            cookie::set_known(&app, &mut response, user.id, &password);
            response
        }
        Err(error) => page::refused_link(error),
    }
}

async fn carry_out(
    app: &App,
    headers: &HeaderMap,
    (ticket, form, user): (&Ticket, &Form, &User),
    (offered, step): (&Offered, u64),
    address: IpAddr,
) -> Result<(NewLogin, PasswordHash, Vec<SecretString>), ApiError> {
    let chance = app.engine().chance();
    let password = app.people().hasher.hash(form.secret("password"), chance).await?;
    let now = app.engine().now();
    let (codes, recovery) = codes::new_recovery_codes(chance);
    let login = new_login(app, user, headers, address, now);
    let welcome = Welcome {
        password: password.clone(),
        authenticator: enrolled(app, user.id, offered, step),
        recovery,
        login: login.login.clone(),
    };
    let command = Command::AcceptInvitation { ticket: ticket.hash, welcome: Box::new(welcome) };
    let order = Order { actor: Actor::User(user.id), source: Some(address), command };
    app.engine().submit(order).await.map_err(refused)?;
    tracing::info!(user = %user.id, %address, "an invitation was accepted");
    Ok((login, password, codes))
}

/// The step of the first code, or what is wrong with the form.
fn checked(app: &App, form: &Form, email: &Email, offered: &Offered) -> Result<u64, String> {
    password::check_both(form, email)?;
    first_step(app, offered, form.text("code"))
}

/// The step of the first code of a new authenticator, which is used up with it.
pub(super) fn first_step(app: &App, offered: &Offered, code: &str) -> Result<u64, String> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    let step = codes::step_of(&offered.seed, &code, app.engine().now());
    step.ok_or_else(|| {
        "The code is not the one that the authenticator should show now. Scan the picture and \
         write the newest code; the clock of the device must be right."
            .to_owned()
    })
}

/// The authenticator of an offered seed, sealed for its user.
pub(super) fn enrolled(app: &App, user: UserId, offered: &Offered, step: u64) -> Authenticator {
    let (people, chance) = (app.people(), app.engine().chance());
    let seed = offered.seed.expose_secret();
    Authenticator {
        seed: people.sealer.seal(codes::seed_place(&user), seed, chance),
        last_step: step,
        enrolled_at: app.engine().now(),
    }
}

/// Draws a seed for a page to offer.
pub(super) fn offer(app: &App, place: Place<'_>) -> Offered {
    let chance = app.engine().chance();
    let seed = codes::new_seed(chance);
    let sealed = app.people().sealer.seal(place, seed.expose_secret(), chance);
    Offered { sealed: URL_SAFE_NO_PAD.encode(sealed.0), seed }
}

/// Takes a seed back that a page has offered: this page, and no seed that somebody made up.
pub(super) fn opened(app: &App, place: Place<'_>, text: &str) -> Result<Offered, ApiError> {
    let sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| ApiError::ForeignForm)?;
    let seed = app.people().sealer.open(place, &Sealed(sealed));
    let seed = seed.map_err(|_| ApiError::ForeignForm)?;
    Ok(Offered { seed, sealed: text.to_owned() })
}

fn place(ticket: &Ticket) -> Place<'_> {
    Place { table: "tickets", row: ticket.hash.as_bytes(), purpose: "new authenticator" }
}
