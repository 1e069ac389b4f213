//! Tickets: the single-use secrets of links that let people in, the first time or again.

use std::time::Duration;

use postern_shared::ids::{OrgId, UserId};
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use serde::{Deserialize, Serialize};

use super::account::{self, Account, Authenticator, Factor, PasswordHash, RecoveryHash, Tries};
use super::command::Decision;
use super::login::{self, Login};
use super::org::{self, Role, User};
use super::rejection::Rejection;
use super::state::{State, fold};
use super::{Change, Event};

/// A single-use secret for one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The hash of the secret; it also names the ticket.
    pub hash: TokenHash,
    /// Whom it lets in.
    pub user: UserId,
    /// The user's org.
    pub org: OrgId,
    /// What it is good for.
    pub purpose: Purpose,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a ticket is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// Sets the first password and enrols the first authenticator.
    Invitation,
    /// Sets another password; the second factor is asked for as well.
    Reset,
    /// Sets another password and enrols another authenticator; given by the operator only.
    Recovery,
}

/// Most users that an org may have, removed ones not counted.
const USERS_MAX: usize = 10_000;
/// How long a link to reset a password is not sent again.
const RESET_REST: Duration = Duration::from_secs(5 * 60);

impl Purpose {
    /// How long a ticket is good.
    pub const fn life(self) -> Duration {
        match self {
            Purpose::Invitation => Duration::from_secs(48 * 3_600),
            Purpose::Reset | Purpose::Recovery => Duration::from_secs(3_600),
        }
    }
}

impl Ticket {
    /// When it ends.
    pub fn expires_at(&self) -> Timestamp {
        self.created_at.saturating_add(self.purpose.life())
    }
}

impl State {
    /// The ticket of a secret, if it is still good.
    pub fn open_ticket(&self, hash: &TokenHash, now: Timestamp) -> Option<&Ticket> {
        let ticket = self.tickets.get(hash).map(|row| &row.record);
        ticket.filter(|ticket| now < ticket.expires_at())
    }

    /// The tickets of a user, good or not.
    pub fn tickets_of(&self, user: UserId) -> impl Iterator<Item = &Ticket> {
        let hashes = self.users.get(&user).into_iter().flat_map(|row| &row.tickets);
        hashes.filter_map(|hash| self.tickets.get(hash)).map(|row| &row.record)
    }
}

/// What accepting an invitation sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The password.
    pub password: PasswordHash,
    /// The authenticator, whose first code was shown.
    pub authenticator: Authenticator,
    /// The recovery codes.
    pub recovery: Vec<RecoveryHash>,
    /// The browser that is signed in by it.
    pub login: Login,
}

/// Invites a user; one who was invited and has not accepted yet is invited anew.
pub(super) fn invite(state: &State, user: &User, ticket: &Ticket) -> Result<Decision, Rejection> {
    let room = state.org_row(user.org)?;
    let event = |user: &User| Event::UserInvited {
        user: user.id,
        email: user.email.clone(),
        role: user.role,
    };
    if let Some(found) = state.user_by_email(user.org, &user.email) {
        if state.account(found.id).is_some_and(Account::is_active) {
            return Err(Rejection::Conflict(
                "somebody with this mail address is in the org already",
            ));
        }
        let invited = User { role: user.role, ..found.clone() };
        if invited.role != Role::Admin {
            org::require_another_admin(state, found)?;
        }
        let ticket = Ticket { user: found.id, ..ticket.clone() };
        let mut changes = vec![Change::PutUser(invited.clone())];
        changes.extend(replace(state, &ticket));
        return Ok(Decision::new(event(&invited), changes));
    }
    if USERS_MAX <= room.users.len() {
        return Err(Rejection::Limit { what: "users of an org", max: USERS_MAX });
    }
    let mut changes = create(user).to_vec();
    changes.push(Change::PutTicket(ticket.clone()));
    Ok(Decision::new(event(user), changes))
}

/// The changes that make a user.
pub(super) fn create(user: &User) -> [Change; 3] {
    [
        Change::PutUser(user.clone()),
        Change::PutAccount(Account::invited(user.id, user.org)),
        Change::TakeEmail(user.org, fold(&user.email), user.id),
    ]
}

/// Gives a user who can sign in a way to set another password. Too soon after the last one,
/// nothing happens.
pub(super) fn request_reset(
    state: &State,
    ticket: &Ticket,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    account::active(state, ticket.user)?;
    let mut resets = state.tickets_of(ticket.user).filter(|old| old.purpose == Purpose::Reset);
    if resets.any(|old| now.since(old.created_at) < RESET_REST) {
        return Err(Rejection::Conflict("a link was sent just now; wait for the mail"));
    }
    Ok(Decision::new(Event::ResetRequested { user: ticket.user }, replace(state, ticket)))
}

/// Gives a user the way back in when password and authenticator are lost. Nothing else changes
/// before it is used.
pub(super) fn recover(state: &State, ticket: &Ticket) -> Result<Decision, Rejection> {
    let user = state.live_user(ticket.org, ticket.user)?;
    let event = Event::RecoveryIssued { user: user.id, email: user.email.clone() };
    Ok(Decision::new(event, replace(state, ticket)))
}

/// Uses an invitation or a recovery up: from now on the user can sign in, with what is set here
/// and with nothing else.
pub(super) fn accept(
    state: &State,
    hash: TokenHash,
    welcome: &Welcome,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let ticket = state.open_ticket(&hash, now).ok_or(Rejection::NotFound)?;
    match ticket.purpose {
        Purpose::Invitation | Purpose::Recovery => {}
        Purpose::Reset => return Err(Rejection::NotFound),
    }
    let user = state.live_user(ticket.org, ticket.user)?;
    let account = Account {
        password: Some(welcome.password.clone()),
        authenticator: Some(welcome.authenticator.clone()),
        recovery: welcome.recovery.clone(),
        ..Account::invited(user.id, user.org)
    };
    let mut changes = vec![Change::PutAccount(account)];
    changes.extend(let_in(state, user.id, &welcome.login));
    let event = Event::UserAccepted { user: user.id, email: user.email.clone() };
    Ok(Decision::new(event, changes))
}

/// Uses a reset up. Whoever has the mail and the second factor is let in at once, and past the
/// wait that strangers' tries have caused.
pub(super) fn finish_reset(
    state: &State,
    hash: TokenHash,
    password: &PasswordHash,
    factor: &Factor,
    new: &Login,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let ticket = state.open_ticket(&hash, now).ok_or(Rejection::NotFound)?;
    if ticket.purpose != Purpose::Reset {
        return Err(Rejection::NotFound);
    }
    let user = ticket.user;
    let account = account::consume_signed_in(account::active(state, user)?, factor, now)?;
    let account =
        Account { password: Some(password.clone()), strange_tries: Tries::default(), ..account };
    let mut changes = vec![Change::PutAccount(account)];
    changes.extend(let_in(state, user, new));
    Ok(Decision::new(Event::PasswordSet { user, by_reset: true }, changes))
}

/// The changes that leave a user with one login and no ticket.
fn let_in(state: &State, user: UserId, new: &Login) -> Vec<Change> {
    let mut changes = tear_all(state, user);
    changes.extend(login::close_all(state, user, None));
    changes.push(Change::PutLogin(new.clone()));
    changes
}

/// The changes that end all tickets of a user.
pub(super) fn tear_all(state: &State, user: UserId) -> Vec<Change> {
    state.tickets_of(user).map(|ticket| Change::DeleteTicket(ticket.hash)).collect()
}

/// The changes that put a ticket in the place of those of its purpose.
fn replace(state: &State, ticket: &Ticket) -> Vec<Change> {
    let old = state.tickets_of(ticket.user).filter(|old| old.purpose == ticket.purpose);
    let mut changes: Vec<Change> = old.map(|old| Change::DeleteTicket(old.hash)).collect();
    changes.push(Change::PutTicket(ticket.clone()));
    changes
}
