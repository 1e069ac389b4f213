//! `/account`: what a signed-in user sees and changes of the own way in.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};

use super::form::Form;
use super::sign_in::read_hash;
use super::welcome::{enrolled, first_step, offer, opened};
use super::{ACCOUNT, SIGN_IN, SignedIn, codes, cookie, fresh_factor, page, password, see};
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{Command, Credentials, Factor};
use crate::engine::Refused;
use crate::http::ApiError;
use crate::seal::Place;

/// What is shown where a second factor does not count.
const WRONG_CODE: &str = "The code is wrong or was used already, or there were too many tries: \
                          take the next one, and wait a while after several.";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(ACCOUNT, get(show))
        .route("/account/logins/end", post(end_login))
        .route("/account/sign-out-everywhere", post(sign_out_everywhere))
        .route("/account/password", get(ask_password).post(set_password))
        .route("/account/authenticator", get(ask_authenticator).post(set_authenticator))
        .route("/account/recovery-codes", get(ask_codes).post(set_codes))
}

/// Why nothing was changed: shown in the form again, or in place of it.
enum Failed {
    Wrong(String),
    Error(ApiError),
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Failed {
        Failed::Error(error)
    }
}

async fn show(State(app): State<App>, signed_in: SignedIn) -> Response {
    page::account(&app, &signed_in)
}

async fn end_login(State(app): State<App>, signed_in: SignedIn, request: Request) -> Response {
    let ended = async {
        let form = signed_in.form(&app, request).await?;
        let login = {
            let state = app.engine().state();
            let logins = state.logins_of(signed_in.user, app.engine().now());
            read_hash(logins.iter().map(|row| &row.record.hash), form.text("login"))
        };
        // One that has ended since is as it was wanted.
        let Some(login) = login else { return Ok(false) };
        let command = Command::SignOut { user: signed_in.user, login };
        app.engine().submit(signed_in.order(command)).await.map_err(refused)?;
        Ok(login == signed_in.login)
    };
    match ended.await {
        Ok(true) => signed_out(),
        Ok(false) => see(ACCOUNT),
        Err(error) => page::refused(error),
    }
}

async fn sign_out_everywhere(
    State(app): State<App>,
    signed_in: SignedIn,
    request: Request,
) -> Response {
    let ended = async {
        signed_in.form(&app, request).await?;
        let command = Command::SignOutEverywhere { user: signed_in.user };
        app.engine().submit(signed_in.order(command)).await.map_err(refused)
    };
    match ended.await {
        Ok(_) => signed_out(),
        Err(error) => page::refused(error),
    }
}

fn signed_out() -> Response {
    let mut response = see(SIGN_IN);
    cookie::clear_login(&mut response);
    response
}

async fn ask_password(signed_in: SignedIn) -> Response {
    page::ask_password(&signed_in, None)
}

async fn set_password(State(app): State<App>, signed_in: SignedIn, request: Request) -> Response {
    let set = async {
        let form = signed_in.form(&app, request).await?;
        password::check_both(&form, &signed_in.email).map_err(Failed::Wrong)?;
        let stored =
            app.engine().state().account(signed_in.user).and_then(|it| it.password.clone());
        // First: without it, nobody learns whether a password is right.
        let factor = shown_factor(&app, &signed_in, &form).await?;
        let hasher = &app.people().hasher;
        let is_right = hasher.verify(form.secret("current"), stored.clone()).await?;
        let (true, Some(password)) = (is_right, stored) else {
            return Err(Failed::Wrong("The present password is not right.".to_owned()));
        };
        let new = hasher.hash(form.secret("password"), app.engine().chance()).await?;
        let credentials = Credentials { password, factor, is_known: true };
        let command = Command::SetPassword {
            user: signed_in.user,
            credentials: Box::new(credentials),
            password: new.clone(),
            kept: signed_in.login,
        };
        carry_out(&app, &signed_in, command).await?;
        Ok(new)
    };
    match set.await {
        Ok(new) => {
            let mut response = see(ACCOUNT);
            cookie::set_known(&app, &mut response, signed_in.user, &new);
            response
        }
        Err(Failed::Wrong(wrong)) => page::ask_password(&signed_in, Some(wrong)),
        Err(Failed::Error(error)) => page::refused(error),
    }
}

async fn ask_authenticator(State(app): State<App>, signed_in: SignedIn) -> Response {
    page::ask_authenticator(&app, &signed_in, &offer(&app, place(&signed_in)), None)
}

async fn set_authenticator(
    State(app): State<App>,
    signed_in: SignedIn,
    request: Request,
) -> Response {
    let read = async {
        let form = signed_in.form(&app, request).await?;
        let offered = opened(&app, place(&signed_in), form.text("seed"))?;
        Ok((form, offered))
    };
    let (form, offered) = match read.await {
        Ok(read) => read,
        Err(error) => return page::refused(error),
    };
    let set = async {
        let step = first_step(&app, &offered, form.text("new-code")).map_err(Failed::Wrong)?;
        let factor = shown_factor(&app, &signed_in, &form).await?;
        let command = Command::ReplaceAuthenticator {
            user: signed_in.user,
            factor,
            authenticator: enrolled(&app, signed_in.user, &offered, step),
        };
        carry_out(&app, &signed_in, command).await
    };
    match set.await {
        Ok(()) => see(ACCOUNT),
        Err(Failed::Wrong(wrong)) => {
            page::ask_authenticator(&app, &signed_in, &offered, Some(wrong))
        }
        Err(Failed::Error(error)) => page::refused(error),
    }
}

async fn ask_codes(State(app): State<App>, signed_in: SignedIn) -> Response {
    page::ask_codes(&app, &signed_in, None)
}

async fn set_codes(State(app): State<App>, signed_in: SignedIn, request: Request) -> Response {
    let set = async {
        let form = signed_in.form(&app, request).await?;
        let factor = shown_factor(&app, &signed_in, &form).await?;
        let (codes, hashes) = codes::new_recovery_codes(app.engine().chance());
        let user = signed_in.user;
        let command = Command::ReplaceRecoveryCodes { user, factor, codes: hashes };
        carry_out(&app, &signed_in, command).await?;
        Ok(codes)
    };
    match set.await {
        Ok(codes) => page::recovery_codes(&codes, false),
        Err(Failed::Wrong(wrong)) => page::ask_codes(&app, &signed_in, Some(wrong)),
        Err(Failed::Error(error)) => page::refused(error),
    }
}

/// Where the seed of a new authenticator is sealed for, while a page offers it.
fn place(signed_in: &SignedIn) -> Place<'_> {
    Place { table: "logins", row: signed_in.login.as_bytes(), purpose: "new authenticator" }
}

async fn shown_factor(app: &App, signed_in: &SignedIn, form: &Form) -> Result<Factor, Failed> {
    let factor = fresh_factor(app, signed_in, form.text("code")).await?;
    factor.ok_or_else(|| Failed::Wrong(WRONG_CODE.to_owned()))
}

async fn carry_out(app: &App, signed_in: &SignedIn, command: Command) -> Result<(), Failed> {
    match app.engine().submit(signed_in.order(command)).await {
        Ok(_) => Ok(()),
        Err(Refused::Rejected(_)) => Err(Failed::Wrong(WRONG_CODE.to_owned())),
        Err(error) => Err(Failed::Error(refused(error))),
    }
}
