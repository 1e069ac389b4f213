//! Logins: the browsers in which a user is signed in.

use std::net::IpAddr;
use std::time::Duration;

use postern_shared::ids::{OrgId, UserId};
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use serde::{Deserialize, Serialize};

use super::command::Decision;
use super::org::User;
use super::rejection::Rejection;
use super::state::{LoginRow, State};
use super::{Change, Event};

/// One browser in which a user is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The hash of the secret in the browser's cookie; it also names the login.
    pub hash: TokenHash,
    /// Who is signed in.
    pub user: UserId,
    /// The user's org.
    pub org: OrgId,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, as far as that is durable.
    pub used_at: Timestamp,
    /// From where it began.
    pub address: IpAddr,
    /// What the browser called itself, cut to what can be shown.
    pub browser: String,
}

/// Longest name of a browser that is kept, in characters.
pub const BROWSER_CHARS_MAX: usize = 200;
/// How long a login lasts that nobody uses.
pub const LOGIN_IDLE: Duration = Duration::from_secs(12 * 3_600);
/// How long a login lasts in any case.
pub const LOGIN_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Most logins of one user; the one that was unused for longest makes room.
const LOGINS_MAX: usize = 16;
/// A use is made durable when the last durable one is longer ago than this part of [`LOGIN_IDLE`].
const DURABLE_PARTS: u32 = 16;

impl LoginRow {
    /// When the login ends unless it is used again.
    pub fn ends_at(&self) -> Timestamp {
        let idle = self.used_at().saturating_add(LOGIN_IDLE);
        idle.min(self.record.created_at.saturating_add(LOGIN_LIFE))
    }

    /// Says whether a use of it now has to be made durable.
    pub fn wants_renewal(&self, now: Timestamp) -> bool {
        LOGIN_IDLE / DURABLE_PARTS <= now.since(self.record.used_at)
    }
}

impl State {
    /// The login of a secret, and who is signed in with it; none when it has ended.
    pub fn signed_in(&self, hash: &TokenHash, now: Timestamp) -> Option<(&LoginRow, &User)> {
        let row = self.logins.get(hash).filter(|row| now < row.ends_at())?;
        let user = self.user(row.record.user)?;
        let is_active = self.account(user.id).is_some_and(super::Account::is_active);
        is_active.then_some((row, user))
    }

    /// The logins of a user that have not ended, the newest first.
    pub fn logins_of(&self, user: UserId, now: Timestamp) -> Vec<&LoginRow> {
        let mut logins: Vec<&LoginRow> =
            self.all_logins_of(user).filter(|row| now < row.ends_at()).collect();
        logins.sort_by_key(|row| std::cmp::Reverse((row.used_at(), row.record.hash)));
        logins
    }

    fn all_logins_of(&self, user: UserId) -> impl Iterator<Item = &LoginRow> {
        let hashes = self.users.get(&user).into_iter().flat_map(|row| &row.logins);
        hashes.filter_map(|hash| self.logins.get(hash))
    }
}

/// The changes that begin a login: those that have ended go, the one it replaces, and those too
/// many.
pub(super) fn open(
    state: &State,
    new: &Login,
    replaces: Option<TokenHash>,
    now: Timestamp,
) -> Vec<Change> {
    let mut live = state.logins_of(new.user, now);
    live.retain(|row| Some(row.record.hash) != replaces);
    live.truncate(LOGINS_MAX - 1);
    let kept = |row: &LoginRow| live.iter().any(|live| live.record.hash == row.record.hash);
    let gone = state.all_logins_of(new.user).filter(|row| !kept(row));
    let mut changes: Vec<Change> = gone.map(|row| Change::DeleteLogin(row.record.hash)).collect();
    changes.push(Change::PutLogin(new.clone()));
    changes
}

/// The changes that end all logins of a user but one.
pub(super) fn close_all(state: &State, user: UserId, kept: Option<TokenHash>) -> Vec<Change> {
    let gone = state.all_logins_of(user).filter(|row| Some(row.record.hash) != kept);
    gone.map(|row| Change::DeleteLogin(row.record.hash)).collect()
}

/// Ends one login of a user; one that is not there is no error.
pub(super) fn sign_out(state: &State, user: UserId, hash: TokenHash) -> Decision {
    match state.logins.get(&hash).filter(|row| row.record.user == user) {
        Some(_) => Decision::new(Event::SignedOut { user, logins: 1 }, [Change::DeleteLogin(hash)]),
        None => Decision::nothing(),
    }
}

pub(super) fn sign_out_all(state: &State, user: UserId) -> Decision {
    let changes = close_all(state, user, None);
    match u32::try_from(changes.len()).unwrap_or(u32::MAX) {
        0 => Decision::nothing(),
        logins => Decision::new(Event::SignedOut { user, logins }, changes),
    }
}

/// Makes the last use durable. Nothing that anybody does: there is no record of it.
pub(super) fn renew(state: &State, hash: TokenHash, now: Timestamp) -> Result<Decision, Rejection> {
    let (row, _) = state.signed_in(&hash, now).ok_or(Rejection::NotFound)?;
    if !row.wants_renewal(now) {
        return Ok(Decision::nothing());
    }
    let used = Login { used_at: now, ..row.record.clone() };
    Ok(Decision { events: Vec::new(), changes: vec![Change::PutLogin(used)] })
}
