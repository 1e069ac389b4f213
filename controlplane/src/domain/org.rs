//! Tenants and the people in them.

use std::str::FromStr;

use postern_shared::ids::{OrgId, UserId};
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::command::Decision;
use super::rejection::Rejection;
use super::state::{State, fold};
use super::text::{Email, Label};
use super::{Change, Event, login, ticket};

/// A tenant. Every other record belongs to exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// The org.
    pub id: OrgId,
    /// Its name.
    pub name: Label,
    /// When it was made.
    pub created_at: Timestamp,
    /// The running number of the newest pair.
    pub pairs_numbered: u64,
    /// The running number of the newest group.
    pub groups_numbered: u64,
}

/// A person in an org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The person.
    pub id: UserId,
    /// The person's org.
    pub org: OrgId,
    /// Where the person gets mail, and the name to sign in with.
    pub email: Email,
    /// What the person may do.
    pub role: Role,
    /// When the person was added.
    pub created_at: Timestamp,
}

/// What a person may do in an org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, people included.
    Admin,
    /// Own pairs and what an admin gave.
    Member,
}

impl Role {
    /// The role's name.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Member => "member",
        }
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Role, &'static str> {
        let role = [Role::Admin, Role::Member].into_iter().find(|role| role.name() == text);
        role.ok_or("write admin or member")
    }
}

/// Gives a user another role. Who is no admin any more is signed out: what is open in a browser
/// was opened by an admin.
pub(super) fn set_role(
    state: &State,
    org: OrgId,
    id: UserId,
    role: Role,
) -> Result<Decision, Rejection> {
    let user = state.live_user(org, id)?;
    if user.role == role {
        return Ok(Decision::nothing());
    }
    let mut changes = vec![Change::PutUser(User { role, ..user.clone() })];
    if user.role == Role::Admin {
        require_another_admin(state, user)?;
        changes.extend(login::close_all(state, id, None));
    }
    let event = Event::UserRoleSet { user: id, email: user.email.clone(), role };
    Ok(Decision::new(event, changes))
}

/// Takes a user out of the org: logins, links, password and authenticator are gone, the record
/// stays as the name in the audit.
pub(super) fn remove(
    state: &State,
    org: OrgId,
    id: UserId,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let user = state.live_user(org, id)?;
    require_another_admin(state, user)?;
    let removed = Account { removed_at: Some(now), ..Account::invited(id, org) };
    let mut changes = vec![Change::PutAccount(removed)];
    changes.push(Change::FreeEmail(org, fold(&user.email)));
    changes.extend(login::close_all(state, id, None));
    changes.extend(ticket::tear_all(state, id));
    let event = Event::UserRemoved { user: id, email: user.email.clone() };
    Ok(Decision::new(event, changes))
}

/// Refuses what would leave an org without an admin; while one of them can sign in, without one
/// who can.
pub(super) fn require_another_admin(state: &State, user: &User) -> Result<(), Rejection> {
    if user.role != Role::Admin {
        return Ok(());
    }
    let is_active = |user: &User| state.account(user.id).is_some_and(Account::is_active);
    let must_be_active = is_active(user);
    let others = state.org_row(user.org)?.users.iter().filter_map(|id| state.user(*id));
    let is_other = |other: &User| other.id != user.id && other.role == Role::Admin;
    let mut admins = others.filter(|other| is_other(other));
    let is_enough = admins.any(|other| !must_be_active || is_active(other));
    is_enough.then_some(()).ok_or(Rejection::Conflict("the last admin of an org has to stay one"))
}
