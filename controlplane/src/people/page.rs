//! The pages for people.

use askama::Template;
use axum::http::header::REFERRER_POLICY;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::sign_in::hash_text;
use super::welcome::Offered;
use super::{SignedIn, codes, private};
use crate::app::App;
use crate::domain::{Email, User};
use crate::http::ApiError;
use crate::page::{STYLE, draw_qr, minute, show, show_error};

#[derive(Template)]
#[template(path = "people/sign_in.html")]
struct SignInPage<'a> {
    style: &'a str,
    proof: &'a str,
    email: &'a str,
    /// Whether there is more than one org, so that it may have to be named.
    asks_org: bool,
    is_wrong: bool,
}

#[derive(Template)]
#[template(path = "people/welcome.html")]
struct WelcomePage<'a> {
    style: &'a str,
    org: &'a str,
    email: &'a str,
    offered: &'a OfferedView<'a>,
    wrong: Option<String>,
}

/// An authenticator's seed, as a picture and as text.
struct OfferedView<'a> {
    sealed: &'a str,
    text: SecretString,
    /// The modules of a QR code, as the path of a picture.
    path: String,
    /// How many modules it is wide, its quiet zone included.
    width: usize,
}

#[derive(Template)]
#[template(path = "people/recovery_codes.html")]
struct RecoveryCodesPage<'a> {
    style: &'a str,
    codes: Vec<&'a str>,
    is_welcome: bool,
}

#[derive(Template)]
#[template(path = "people/ask_reset.html")]
struct AskResetPage<'a> {
    style: &'a str,
    proof: &'a str,
    asks_org: bool,
    sends_mail: bool,
}

#[derive(Template)]
#[template(path = "people/reset_sent.html")]
struct ResetSentPage<'a> {
    style: &'a str,
}

#[derive(Template)]
#[template(path = "people/finish_reset.html")]
struct FinishResetPage<'a> {
    style: &'a str,
    email: &'a str,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "people/account.html")]
struct AccountPage<'a> {
    style: &'a str,
    proof: String,
    email: &'a str,
    org: String,
    role: &'a str,
    recovery_left: usize,
    logins: Vec<LoginView>,
}

struct LoginView {
    name: String,
    browser: String,
    /// The same as it calls itself.
    agent: String,
    address: String,
    used_at: Timestamp,
    used: String,
    ends_at: Timestamp,
    ends: String,
    is_this: bool,
}

#[derive(Template)]
#[template(path = "people/ask_password.html")]
struct AskPasswordPage<'a> {
    style: &'a str,
    proof: String,
    email: &'a str,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "people/ask_authenticator.html")]
struct AskAuthenticatorPage<'a> {
    style: &'a str,
    proof: String,
    offered: &'a OfferedView<'a>,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "people/ask_codes.html")]
struct AskCodesPage<'a> {
    style: &'a str,
    proof: String,
    left: usize,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "people/refused.html")]
struct RefusedPage<'a> {
    style: &'a str,
    detail: String,
}

pub(super) fn sign_in(app: &App, email: &str, proof: &str, is_wrong: bool) -> Response {
    let asks_org = asks_org(app);
    let page = SignInPage { style: STYLE, proof, email, asks_org, is_wrong };
    private(show(if is_wrong { StatusCode::FORBIDDEN } else { StatusCode::OK }, &page))
}

pub(super) fn welcome(
    app: &App,
    user: &User,
    offered: &Offered,
    wrong: Option<String>,
) -> Response {
    let org = org_name(app, user.org);
    let offered = &view(offered, &org, &user.email);
    let status = status(wrong.as_ref());
    let email = user.email.as_str();
    secret_address(show(status, &WelcomePage { style: STYLE, org: &org, email, offered, wrong }))
}

pub(super) fn recovery_codes(codes: &[SecretString], is_welcome: bool) -> Response {
    let codes = codes.iter().map(|code| code.expose_secret()).collect();
    let page = RecoveryCodesPage { style: STYLE, codes, is_welcome };
    secret_address(show(StatusCode::OK, &page))
}

pub(super) fn ask_reset(app: &App, proof: &str) -> Response {
    let (asks_org, sends_mail) = (asks_org(app), app.people().outbox().is_some());
    private(show(StatusCode::OK, &AskResetPage { style: STYLE, proof, asks_org, sends_mail }))
}

pub(super) fn reset_sent() -> Response {
    private(show(StatusCode::OK, &ResetSentPage { style: STYLE }))
}

pub(super) fn finish_reset(email: &Email, wrong: Option<String>) -> Response {
    let status = status(wrong.as_ref());
    secret_address(show(status, &FinishResetPage { style: STYLE, email: email.as_str(), wrong }))
}

pub(super) fn account(app: &App, signed_in: &SignedIn) -> Response {
    let org = org_name(app, signed_in.org);
    let (now, state) = (app.engine().now(), app.engine().state());
    let logins = state.logins_of(signed_in.user, now);
    let logins = logins.into_iter().map(|row| LoginView {
        name: hash_text(&row.record.hash),
        browser: known_as(&row.record.browser),
        agent: row.record.browser.clone(),
        address: row.record.address.to_canonical().to_string(),
        used_at: row.used_at(),
        used: minute(row.used_at()),
        ends_at: row.ends_at(),
        ends: minute(row.ends_at()),
        is_this: row.record.hash == signed_in.login,
    });
    let page = AccountPage {
        style: STYLE,
        proof: signed_in.proof(),
        email: signed_in.email.as_str(),
        org,
        role: signed_in.role.name(),
        recovery_left: state.account(signed_in.user).map_or(0, |account| account.recovery.len()),
        logins: logins.collect(),
    };
    private(show(StatusCode::OK, &page))
}

pub(super) fn ask_password(signed_in: &SignedIn, wrong: Option<String>) -> Response {
    let status = status(wrong.as_ref());
    let (proof, email) = (signed_in.proof(), signed_in.email.as_str());
    private(show(status, &AskPasswordPage { style: STYLE, proof, email, wrong }))
}

pub(super) fn ask_authenticator(
    app: &App,
    signed_in: &SignedIn,
    offered: &Offered,
    wrong: Option<String>,
) -> Response {
    let org = org_name(app, signed_in.org);
    let offered = &view(offered, &org, &signed_in.email);
    let (status, proof) = (status(wrong.as_ref()), signed_in.proof());
    private(show(status, &AskAuthenticatorPage { style: STYLE, proof, offered, wrong }))
}

pub(super) fn ask_codes(app: &App, signed_in: &SignedIn, wrong: Option<String>) -> Response {
    let account = app.engine().state().account(signed_in.user).cloned();
    let left = account.map_or(0, |account| account.recovery.len());
    let (status, proof) = (status(wrong.as_ref()), signed_in.proof());
    private(show(status, &AskCodesPage { style: STYLE, proof, left, wrong }))
}

/// Shows why nothing was done. A fault on our side is told by its request id, which only a
/// problem carries.
pub(super) fn refused(error: ApiError) -> Response {
    if error.status() == StatusCode::INTERNAL_SERVER_ERROR {
        return error.into_response();
    }
    let detail = if error.status().is_client_error() {
        error.to_string()
    } else {
        "the control plane cannot do it just now; try again in a minute".to_owned()
    };
    private(show_error(error, &RefusedPage { style: STYLE, detail }))
}

/// The same for a page whose address is a secret.
pub(super) fn refused_link(error: ApiError) -> Response {
    if error.status() != StatusCode::NOT_FOUND {
        return secret_address(refused(error));
    }
    let detail = "this link was used already, has ended, or never was one; ask for another";
    let page = RefusedPage { style: STYLE, detail: detail.to_owned() };
    secret_address(show_error(error, &page))
}

/// Keeps the address of a page to itself.
fn secret_address(response: Response) -> Response {
    let mut response = private(response);
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn status(wrong: Option<&String>) -> StatusCode {
    if wrong.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK }
}

/// Whether the org may have to be named.
fn asks_org(app: &App) -> bool {
    1 < app.engine().state().orgs().count()
}

fn org_name(app: &App, org: OrgId) -> String {
    let state = app.engine().state();
    state.org(org).map(|row| row.record.name.to_string()).unwrap_or_default()
}

fn view<'a>(offered: &'a Offered, org: &str, email: &Email) -> OfferedView<'a> {
    let url = codes::seed_url(&offered.seed, org, email.as_str());
    let (path, width) = draw_qr(url.expose_secret());
    OfferedView { sealed: &offered.sealed, text: codes::seed_text(&offered.seed), path, width }
}

/// What people know a browser as, of what it calls itself: "Firefox on Windows" for all of
/// "Mozilla/5.0 …". What calls itself something else is known as that.
fn known_as(agent: &str) -> String {
    // Those that call themselves by the name of another, too, come first.
    const BROWSERS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const SYSTEMS: [(&str, &str); 7] = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("CrOS", "ChromeOS"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let find = |names: &[(&str, &'static str)]| {
        names.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
    };
    match (agent, find(&BROWSERS), find(&SYSTEMS)) {
        ("", ..) => "a browser without a name".to_owned(),
        (agent, Some(browser), Some(system)) if agent.starts_with("Mozilla/5.0 (") => {
            format!("{browser} on {system}")
        }
        (agent, ..) => agent.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_known_by_their_usual_names() {
        for (agent, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0",
                "Firefox on macOS",
            ),
            ("Lynx <b>", "Lynx <b>"),
            ("my Firefox/1 on Linux", "my Firefox/1 on Linux"),
            ("", "a browser without a name"),
        ] {
            assert_eq!(known_as(agent), name);
        }
    }
}
