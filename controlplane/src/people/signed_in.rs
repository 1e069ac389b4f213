//! Who is signed in.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use postern_shared::ids::{OrgId, UserId};
use postern_shared::token::TokenHash;
use secrecy::{ExposeSecret as _, SecretString};

use super::form::{self, Form, Proof};
use super::{SIGN_IN, cookie, see};
use crate::api::once::Sent;
use crate::app::App;
use crate::domain::{Actor, Command, Email, Order, Role};
use crate::http::ApiError;
use crate::http::limit::{Caller, Tier};
use crate::server::ClientAddress;

/// A user who is signed in; without one, a request is led to the page that signs in.
#[derive(Debug, Clone)]
pub(crate) struct SignedIn {
    pub(crate) user: UserId,
    pub(crate) org: OrgId,
    pub(crate) role: Role,
    pub(crate) email: Email,
    /// The login, by the hash of its secret.
    pub(crate) login: TokenHash,
    pub(crate) address: IpAddr,
    /// The secret of the login, which forms are bound to.
    secret: SecretString,
}

/// The same for a page that asks by itself again and again: that is no use of the login, which ends
/// when nobody sits there any more.
#[derive(Debug, Clone)]
pub(crate) struct Watching(pub(crate) SignedIn);

impl SignedIn {
    /// Puts the user's name under a command.
    pub(crate) fn order(&self, command: Command) -> Order {
        Order { actor: Actor::User(self.user), source: Some(self.address), command }
    }

    /// What every form of the user's pages carries in its field `proof`.
    pub(crate) fn proof(&self) -> String {
        form::proof(self.secret.expose_secret())
    }

    /// Looks whether a form of the user's pages, which gave it this name, was sent before.
    pub(crate) fn sent(&self, app: &App, name: &str, what: &[&[u8]]) -> Result<Sent, ApiError> {
        Sent::of(app, self.secret.expose_secret(), name, what)
    }

    /// Reads a form that one of the user's pages has sent, and takes it from the user's budget.
    pub(crate) async fn form(&self, app: &App, request: Request) -> Result<Form, ApiError> {
        let now = app.engine().now();
        app.limiter().take(Tier::Write, Caller::record(self.user.as_bytes()), now)?;
        Form::read(app, request, Proof::Cookie(self.secret.expose_secret())).await
    }
}

/// Finds out who is signed in, if anybody is; whether the login's use is to be made durable stands
/// beside it.
fn find(parts: &Parts, app: &App, is_use: bool) -> Result<Option<(SignedIn, bool)>, ApiError> {
    let caller = parts.extensions.get::<ClientAddress>().copied();
    let Some(ClientAddress(address)) = caller else {
        return Err(ApiError::internal("the request came over no network"));
    };
    let Some(token) = cookie::login(&parts.headers) else { return Ok(None) };
    let (now, login) = (app.engine().now(), token.hash());
    let state = app.engine().state();
    let Some((row, user)) = state.signed_in(&login, now) else { return Ok(None) };
    if is_use {
        row.seen(now);
    }
    let signed_in = SignedIn {
        user: user.id,
        org: user.org,
        role: user.role,
        email: user.email.clone(),
        login,
        address,
        secret: token.expose().into(),
    };
    Ok(Some((signed_in, is_use && row.wants_renewal(now))))
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<SignedIn, Response> {
        let found = find(parts, app, true).map_err(ApiError::into_response)?;
        let (signed_in, wants_renewal) = found.ok_or_else(|| see(SIGN_IN))?;
        if wants_renewal {
            // Without it the login only ends sooner after a restart.
            let login = signed_in.login;
            drop(app.engine().submit(signed_in.order(Command::RenewLogin { login })).await);
        }
        Ok(signed_in)
    }
}

impl FromRequestParts<App> for Watching {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Watching, Response> {
        let found = find(parts, app, false).map_err(ApiError::into_response)?;
        found.map(|(signed_in, _)| Watching(signed_in)).ok_or_else(|| see(SIGN_IN))
    }
}
