//! Users: invited, listed, removed, and let back in.

use std::ops::Bound;

use postern_shared::ids::UserId;
use postern_shared::time::Timestamp;
use postern_shared::token::{Token, TokenKind};

use super::answer::{Answer, Named, Page, Revealed, UserLink, UserState, UserView};
use super::pair::gone;
use super::request::Reference;
use super::{Desk, OperatorError, find};
use crate::domain::{Account, Command, Email, Purpose, Role, State, Ticket, User};
use crate::people::link;

impl Desk<'_> {
    pub(super) async fn invite_user(
        &self,
        email: Email,
        role: Role,
    ) -> Result<UserLink, OperatorError> {
        let id = UserId::from_random(self.engine.chance().id());
        let user = User { id, org: self.org, email, role, created_at: self.now() };
        let (token, ticket) = self.ticket(id, Purpose::Invitation);
        let command = Command::InviteUser { user: user.clone(), ticket: ticket.clone() };
        self.submit(command).await?;
        // One who was invited before keeps the id.
        let view = self.read(|state, _| {
            let found = state.user_by_email(self.org, &user.email).ok_or_else(gone)?;
            Ok(view(state, found, self.now()))
        })?;
        Ok(self.link(view, &token, &ticket))
    }

    pub(super) fn list_users(&self, after: Option<UserId>) -> Result<Answer, OperatorError> {
        self.read(|state, org| {
            let after = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rest = org.users.range((after, Bound::Unbounded));
            let users = rest.filter_map(|id| state.user(*id));
            let views = users.map(|user| view(state, user, self.now()));
            Ok(Answer::Users(Page::of(views, |view| view.id)))
        })
    }

    pub(super) async fn set_user_role(
        &self,
        user: &Reference,
        role: Role,
    ) -> Result<Answer, OperatorError> {
        let id = self.read(|state, org| find::user(state, org, user))?;
        self.submit(Command::SetRole { org: self.org, user: id, role }).await?;
        let found = |state: &State| {
            state.user(id).map(|user| view(state, user, self.now())).ok_or_else(gone)
        };
        self.read(|state, _| Ok(Answer::UserRoleSet(found(state)?)))
    }

    pub(super) async fn remove_user(&self, user: &Reference) -> Result<Answer, OperatorError> {
        let (id, email) = self.read(|state, org| {
            let id = find::user(state, org, user)?;
            Ok((id, state.user(id).map(|user| user.email.to_string()).unwrap_or_default()))
        })?;
        self.submit(Command::RemoveUser { org: self.org, user: id }).await?;
        Ok(Answer::Removed(Named { id: id.to_string(), name: email }))
    }

    pub(super) async fn recover_user(&self, user: &Reference) -> Result<Answer, OperatorError> {
        let id = self.read(|state, org| find::user(state, org, user))?;
        let (token, ticket) = self.ticket(id, Purpose::Recovery);
        self.submit(Command::Recover(ticket.clone())).await?;
        let view = self.read(|state, _| {
            state.user(id).map(|user| view(state, user, self.now())).ok_or_else(gone)
        })?;
        Ok(Answer::UserRecovery(self.link(view, &token, &ticket)))
    }

    fn ticket(&self, user: UserId, purpose: Purpose) -> (Token, Ticket) {
        let token = self.engine.chance().token(TokenKind::Ticket);
        let (hash, created_at) = (token.hash(), self.now());
        (token, Ticket { hash, user, org: self.org, purpose, created_at })
    }

    fn link(&self, user: UserView, token: &Token, ticket: &Ticket) -> UserLink {
        let link = Revealed::new(link(&self.plane.url, ticket.purpose, token));
        UserLink { user, link, expires_at: ticket.expires_at() }
    }
}

fn view(state: &State, user: &User, now: Timestamp) -> UserView {
    let account = state.account(user.id);
    let is_active = account.is_some_and(Account::is_active);
    UserView {
        id: user.id,
        email: user.email.clone(),
        role: user.role,
        state: if is_active { UserState::Active } else { UserState::Invited },
        created_at: user.created_at,
        logins: state.logins_of(user.id, now).len(),
        recovery_codes: account.map_or(0, |account| account.recovery.len()),
        mail: None,
    }
}
