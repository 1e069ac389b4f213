//! The invitation of a host: shown once, in the answer to the form.

use std::time::Duration;

use askama::Template;
use axum::response::Response;
use postern_shared::ids::EnrolmentId;
use postern_shared::token::TokenKind;

use super::{SECTION, page, ticked};
use crate::api::once::Turn;
use crate::console::fields::Fields;
use crate::console::gate::Sent;
use crate::console::show::When;
use crate::domain::{Command, Enrolment};
use crate::http::ApiError;

/// How long an invitation is good, where nobody says.
const VALID: Duration = Duration::from_secs(3_600);

#[derive(Template)]
#[template(path = "console/agent_invited.html")]
struct InvitedPage<'a> {
    name: &'a str,
    until: When,
    invitation: &'a str,
}

pub(super) async fn invite(sent: Sent, turn: Turn) -> Result<Response, ApiError> {
    let mut fields = Fields::of(&sent);
    let (name, valid) = (fields.label(), fields.ttl("valid", "the time for which it is good"));
    let groups = ticked(&sent, &fields);
    if groups.is_empty() {
        fields.refuse("tick at least one group that the host is to follow");
    }
    if let (Some(name), Some(valid), true) = (name, valid, fields.wrong().is_empty()) {
        let app = &sent.viewer.app;
        let (chance, now) = (app.engine().chance(), sent.viewer.now());
        let token = chance.token(TokenKind::Enrolment);
        let expires_at = now.saturating_add(valid.map_or(VALID, |valid| valid.as_duration()));
        let command = Command::InviteAgent(Enrolment {
            id: EnrolmentId::from_random(chance.id()),
            org: sent.viewer.org(),
            name: name.clone(),
            hash: token.hash(),
            groups,
            created_at: now,
            expires_at,
            used_at: None,
        });
        let place = SECTION.path.to_owned();
        if fields.accept(sent.submit_once(turn, command, place).await)?.is_some() {
            let invitation = app.plane().invitation(&token);
            let (name, until) = (name.as_str(), When(expires_at));
            let page = InvitedPage { name, until, invitation: &invitation };
            return Ok(sent.viewer.show("The host is invited", &page));
        }
    }
    Ok(sent.viewer.show_wrong("Hosts", &page(&sent.viewer, None, &fields)))
}
