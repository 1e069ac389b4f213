//! The way to the operations over the daemon's Unix socket. Who may connect there is the
//! listener's business: root and the daemon's own user.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use postern_shared::time::Timestamp;

use super::{Answer as Told, Operation, OperatorError, Plane, Request, UserLink, carry_out};
use crate::api::{audit, refusal};
use crate::engine::Engine;
use crate::http::json::StrictJson;
use crate::http::{Answer, ApiError};
use crate::mail::{Fate, Outbox};
use crate::people::mail_invitation;

/// Where requests are posted.
pub const PATH: &str = "/operator";

/// Tells how the plane is reached now: configuration and certificate can be reloaded.
pub type AskPlane = Arc<dyn Fn() -> Plane + Send + Sync>;

/// The routes of the control socket. Invitations are mailed through `outbox`.
pub fn router(engine: Engine, plane: AskPlane, outbox: Option<Outbox>) -> Router {
    Router::new().route(PATH, post(answer)).with_state((engine, plane, outbox))
}

async fn answer(
    State((engine, plane, outbox)): State<(Engine, AskPlane, Option<Outbox>)>,
    StrictJson(request): StrictJson<Request>,
) -> Result<Answer, ApiError> {
    let is_mailed = matches!(request.operation, Operation::InviteUser { mail: true, .. });
    if is_mailed && outbox.is_none() {
        return Err(OperatorError::NoMail(NOT_CONFIGURED).into());
    }
    let mut reply = carry_out(&engine, &plane(), request).await?;
    if let Some(outbox) = outbox {
        tell_fates(&outbox, &mut reply.answer);
        if is_mailed && let Told::UserInvited(invited) = &mut reply.answer {
            mail(&engine, &outbox, invited, reply.as_of);
        }
    }
    Ok(Answer::ok(&reply))
}

/// What is told where invitations cannot be mailed.
const NOT_CONFIGURED: &str =
    "no mail goes out: name a server under `mail` in the configuration, or hand the link on";

/// Mails an invitation, which is good and told in any case.
fn mail(engine: &Engine, outbox: &Outbox, invited: &mut UserLink, at: Timestamp) {
    let user = &mut invited.user;
    let org = {
        let state = engine.state();
        let org = state.user(user.id).and_then(|user| state.org(user.org));
        org.map(|row| row.record.name.to_string()).unwrap_or_default()
    };
    let link = invited.link.expose().to_owned().into();
    user.mail = Some(match mail_invitation(outbox, user.id, &user.email, &org, &link) {
        Ok(()) => Fate::Waiting { at },
        Err(error) => Fate::Failed { at, why: error.to_string() },
    });
}

/// Tells what became of the newest mails.
fn tell_fates(outbox: &Outbox, answer: &mut Told) {
    match answer {
        Told::Users(page) => {
            for user in &mut page.items {
                user.mail = outbox.fate(user.id);
            }
        }
        Told::UserInvited(UserLink { user, .. })
        | Told::UserRecovery(UserLink { user, .. })
        | Told::UserRoleSet(user) => user.mail = outbox.fate(user.id),
        Told::KeyMinted(_)
        | Told::Keys(_)
        | Told::PairAdded(_)
        | Told::Pairs(_)
        | Told::GroupAdded(_)
        | Told::Groups(_)
        | Told::Group(_)
        | Told::MemberAdded(_)
        | Told::Members(_)
        | Told::AgentInvited(_)
        | Told::Agents(_)
        | Told::AgentGroupsSet(_)
        | Told::Removed(_)
        | Told::PairClosed(_)
        | Told::KeyNarrowed(_)
        | Told::BookmarkRotated(_)
        | Told::ServerKeyRotated(_)
        | Told::LockedKeyMinted(_)
        | Told::Audit(_)
        | Told::AuditOpened(_)
        | Told::AuditPart(_)
        | Told::AuditStray(_) => {}
    }
}

impl From<OperatorError> for ApiError {
    fn from(error: OperatorError) -> ApiError {
        match error {
            OperatorError::Unknown { what, .. } | OperatorError::Ambiguous { what, .. } => {
                ApiError::field(format!("/{what}"), error.to_string())
            }
            OperatorError::WhichOrg { .. } => ApiError::field("/org", error.to_string()),
            OperatorError::NoMail(_) => ApiError::Conflict { detail: error.to_string() },
            OperatorError::NoOrg => ApiError::Conflict { detail: error.to_string() },
            OperatorError::Refused(refused) => refusal::refused(refused),
            OperatorError::Audit(error) => audit::unreadable(error),
        }
    }
}
