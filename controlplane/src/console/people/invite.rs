//! Inviting: by mail, or with a link that is shown once where none goes out.

use askama::Template;
use axum::extract::Path;
use axum::response::Response;
use postern_shared::ids::UserId;
use postern_shared::token::TokenKind;
use secrecy::{ExposeSecret as _, SecretString};

use super::{SECTION, page, person};
use crate::api::once::Turn;
use crate::console::fields::Fields;
use crate::console::gate::Sent;
use crate::console::show::When;
use crate::domain::{Account, Command, Email, Purpose, Role, Ticket, User};
use crate::http::ApiError;
use crate::people::{link, mail_invitation};

#[derive(Template)]
#[template(path = "console/people/invited.html")]
struct InvitedPage<'a> {
    email: &'a str,
    role: &'static str,
    until: When,
    /// The link, where it was not mailed, and why it was not.
    link: Option<SecretString>,
    unsent: Option<String>,
}

pub(super) async fn invite(sent: Sent, turn: Turn) -> Result<Response, ApiError> {
    let mut fields = Fields::of(&sent);
    let email: Option<Email> = fields.required("email", "the mail address");
    let role = read_role(&mut fields);
    if let (Some(email), Some(role)) = (email, role)
        && let Some(page) = carry_out(&sent, turn, &mut fields, (email, role)).await?
    {
        return Ok(page);
    }
    Ok(sent.viewer.show_wrong("People", &page(&sent.viewer, None, &fields)))
}

/// Invites somebody anew who has not accepted yet: the earlier link is worth nothing then.
pub(super) async fn again(
    sent: Sent,
    Path(id): Path<String>,
    turn: Result<Turn, Response>,
) -> Result<Response, ApiError> {
    let user = person::find(&sent.viewer, &id)?;
    let turn = match turn {
        Ok(turn) => turn,
        Err(page) => return Ok(page),
    };
    let mut fields = Fields::of(&sent);
    let invited = (user.email.clone(), user.role);
    if let Some(page) = carry_out(&sent, turn, &mut fields, invited).await? {
        return Ok(page);
    }
    Ok(sent.viewer.show_wrong(user.email.as_str(), &person::page(&sent.viewer, &user, &fields)))
}

pub(super) fn read_role(fields: &mut Fields) -> Option<Role> {
    let role = fields.value("role").parse::<Role>();
    role.map_err(|_| fields.refuse("choose what the person may do: admin or member")).ok()
}

async fn carry_out(
    sent: &Sent,
    turn: Turn,
    fields: &mut Fields,
    (email, role): (Email, Role),
) -> Result<Option<Response>, ApiError> {
    let app = &sent.viewer.app;
    let (chance, now, org) = (app.engine().chance(), sent.viewer.now(), sent.viewer.org());
    let id = UserId::from_random(chance.id());
    let token = chance.token(TokenKind::Ticket);
    let purpose = Purpose::Invitation;
    let user = User { id, org, email: email.clone(), role, created_at: now };
    let ticket = Ticket { hash: token.hash(), user: id, org, purpose, created_at: now };
    let until = When(ticket.expires_at());
    let command = Command::InviteUser { user, ticket };
    let command = match role {
        Role::Admin => sent.with_factor(fields, command).await?,
        Role::Member => Some(command),
    };
    let Some(command) = command else { return Ok(None) };
    let place = SECTION.path.to_owned();
    if fields.accept(sent.submit_once(turn, command, place).await)?.is_none() {
        return Ok(None);
    }
    let (id, org) = {
        let state = app.engine().state();
        // One who was invited before keeps the id.
        let found = state.user_by_email(org, &email).map_or(id, |user| user.id);
        (found, state.org(org).map(|row| row.record.name.to_string()).unwrap_or_default())
    };
    let link = SecretString::from(link(&app.url(""), purpose, &token));
    let unsent = match app.people().outbox() {
        Some(outbox) => mail_invitation(outbox, id, &email, &org, &link).err(),
        None => None,
    };
    let is_mailed = app.people().outbox().is_some() && unsent.is_none();
    let page = InvitedPage {
        email: email.as_str(),
        role: role.name(),
        until,
        link: if is_mailed { None } else { Some(link) },
        unsent: unsent.map(|why| why.to_string()),
    };
    Ok(Some(sent.viewer.show("Invited", &page)))
}

impl InvitedPage<'_> {
    fn shown(&self) -> Option<&str> {
        self.link.as_ref().map(|link| link.expose_secret())
    }
}

/// Whether somebody has accepted an invitation.
pub(super) fn has_accepted(account: Option<&Account>) -> bool {
    account.is_some_and(Account::is_active)
}
