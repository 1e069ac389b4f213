//! `/console/people/{id}`: one person, as an admin sees and changes it.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use postern_shared::ids::UserId;

use super::invite::{has_accepted, read_role};
use super::{SECTION, fate};
use crate::console::confirm::Question;
use crate::console::fields::Fields;
use crate::console::gate::{Sent, Viewer};
use crate::console::show::When;
use crate::domain::{Command, Role, User};
use crate::http::ApiError;
use crate::people::see;

#[derive(Template)]
#[template(path = "console/people/person.html")]
pub(super) struct PersonPage<'a> {
    id: UserId,
    email: String,
    role: Role,
    is_active: bool,
    is_viewer: bool,
    created_at: When,
    recovery_left: usize,
    logins: Vec<Login>,
    mail: Option<String>,
    proof: Option<String>,
    once: String,
    fields: &'a Fields,
}

struct Login {
    browser: String,
    address: String,
    began_at: When,
    used_at: When,
}

pub(super) async fn show(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let user = find(&viewer, &id)?;
    let fields = Fields::default();
    Ok(viewer.show(user.email.as_str(), &page(&viewer, &user, &fields)))
}

pub(super) async fn set_role(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let user = find(&sent.viewer, &id)?;
    let mut fields = Fields::of(&sent);
    if let Some(role) = read_role(&mut fields) {
        let command = Command::SetRole { org: user.org, user: user.id, role };
        let command = match role {
            Role::Admin => sent.with_factor(&mut fields, command).await?,
            Role::Member => Some(command),
        };
        if let Some(command) = command
            && fields.accept(sent.submit(command).await)?.is_some()
        {
            return Ok(see(&format!("{}/{}", SECTION.path, user.id)));
        }
    }
    Ok(sent.viewer.show_wrong(user.email.as_str(), &page(&sent.viewer, &user, &fields)))
}

pub(super) async fn ask(viewer: Viewer, Path(id): Path<String>) -> Result<Response, ApiError> {
    let user = find(&viewer, &id)?;
    let page = format!("{}/{}", SECTION.path, user.id);
    let lines = [
        format!("{} is signed out everywhere and cannot sign in any more.", user.email),
        "Password, authenticator and links are gone; keys and pairs that the person made stay. \
         The name stays in the audit."
            .to_owned(),
    ];
    viewer.ask(
        &format!("Remove {}?", user.email),
        Question {
            lines: &lines,
            action: &format!("{page}/remove"),
            button: "Remove the person",
            back: &page,
            proof: String::new(),
        },
    )
}

pub(super) async fn remove(sent: Sent, Path(id): Path<String>) -> Result<Response, ApiError> {
    let user = find(&sent.viewer, &id)?;
    let mut fields = Fields::of(&sent);
    let command = Command::RemoveUser { org: user.org, user: user.id };
    if fields.accept(sent.submit(command).await)?.is_some() {
        return Ok(see(SECTION.path));
    }
    Ok(sent.viewer.show_wrong(user.email.as_str(), &page(&sent.viewer, &user, &fields)))
}

/// The person of an id who is in the org: for admins.
pub(super) fn find(viewer: &Viewer, id: &str) -> Result<User, ApiError> {
    viewer.require_admin()?;
    let id: UserId = id.parse().map_err(|_| ApiError::NotFound)?;
    let state = viewer.app.engine().state();
    state.live_user(viewer.org(), id).cloned().map_err(|_| ApiError::NotFound)
}

pub(super) fn page<'a>(viewer: &Viewer, user: &User, fields: &'a Fields) -> PersonPage<'a> {
    let app = &viewer.app;
    let mail = app.people().outbox().and_then(|outbox| outbox.fate(user.id));
    let state = app.engine().state();
    let account = state.account(user.id);
    let logins = state.logins_of(user.id, viewer.now()).into_iter().map(|row| Login {
        browser: match row.record.browser.as_str() {
            "" => "a browser without a name".to_owned(),
            name => name.to_owned(),
        },
        address: row.record.address.to_canonical().to_string(),
        began_at: When(row.record.created_at),
        used_at: When(row.used_at()),
    });
    PersonPage {
        id: user.id,
        email: user.email.to_string(),
        role: user.role,
        is_active: has_accepted(account),
        is_viewer: user.id == viewer.signed_in.user,
        created_at: When(user.created_at),
        recovery_left: account.map_or(0, |account| account.recovery.len()),
        logins: logins.collect(),
        mail: mail.map(|mail| fate(&mail)),
        proof: viewer.proof(),
        once: viewer.once(),
        fields,
    }
}
