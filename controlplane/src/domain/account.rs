//! How people get in: password, authenticator, recovery codes, and the bounds on guessing them.
//!
//! What is slow or secret is worked out before: a command brings the hash that a password was
//! found to match, and the step of the code that an authenticator showed. What is decided here is
//! whether they still count, in the same transaction that uses them up.

use std::fmt;
use std::time::Duration;

use postern_shared::ids::{OrgId, UserId};
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use serde::{Deserialize, Serialize};

use super::command::Decision;
use super::login::{self, Login};
use super::rejection::Rejection;
use super::state::State;
use super::{Change, Event};

/// What a user signs in with. Apart from the user, since it changes with every sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The user.
    pub user: UserId,
    /// The user's org.
    pub org: OrgId,
    /// What the password hashes to; none before the invitation is accepted.
    pub password: Option<PasswordHash>,
    /// The authenticator; there whenever the password is.
    pub authenticator: Option<Authenticator>,
    /// The recovery codes that are not used yet.
    pub recovery: Vec<RecoveryHash>,
    /// Tries from browsers that the user never signed in with.
    pub strange_tries: Tries,
    /// Tries from browsers that the user has signed in with, and while signed in.
    pub known_tries: Tries,
    /// When the user was removed.
    pub removed_at: Option<Timestamp>,
}

/// What a password hashes to: argon2id in the PHC form. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(pub String);

/// A secret that must be read back, sealed for its one place. Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Vec<u8>);

/// What a recovery code hashes to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RecoveryHash(pub [u8; 32]);

/// What shows a user's one-time codes (RFC 6238: SHA-1, 30 s, 6 digits).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authenticator {
    /// The seed of the codes, sealed.
    pub seed: Sealed,
    /// The step of the newest code that was used: no code of this or an earlier step counts.
    pub last_step: u64,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
}

/// A second factor that was found to be right, and is to be used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Factor {
    /// A code of the authenticator.
    Code {
        /// The seed that it was checked against, as it is stored.
        seed: Sealed,
        /// The step that it belongs to.
        step: u64,
        /// The seed sealed anew, where it was sealed under an older key.
        resealed: Option<Sealed>,
    },
    /// A recovery code.
    Recovery(RecoveryHash),
}

/// Tries that have not led to anything.
///
/// Every try is counted before its outcome is known, and forgiven when it succeeds: so neither a
/// crash nor a crowd of simultaneous tries gets around the count. A try that is refused does not
/// count, so nobody can prolong a wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    count: u32,
    last_at: Option<Timestamp>,
}

/// Tries at once; each further one has to wait for longer.
pub const TRIES_FREE: u32 = 5;
/// The wait before the first try beyond those; it doubles with each.
const WAIT_FIRST_SECS: u64 = 60;
/// The longest wait: with it, 33 guesses a day reach an account at most (a test counts them).
const WAIT_SECS_MAX: u64 = 3_600;
/// After this long without a try, counting begins anew.
const TRIES_FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// How long a code of an authenticator is shown, in seconds.
pub const STEP_SECS: u64 = 30;
/// How many steps a code may be early or late.
pub const STEPS_SKEW: u64 = 1;
/// How many recovery codes there are.
pub const RECOVERY_CODES: usize = 10;

impl Account {
    /// The account of a user who was just invited.
    pub fn invited(user: UserId, org: OrgId) -> Account {
        Account {
            user,
            org,
            password: None,
            authenticator: None,
            recovery: Vec::new(),
            strange_tries: Tries::default(),
            known_tries: Tries::default(),
            removed_at: None,
        }
    }

    /// Says whether the user can sign in.
    pub fn is_active(&self) -> bool {
        self.removed_at.is_none() && self.password.is_some()
    }
}

impl Tries {
    /// The count with one more; refused while the wait after the last one lasts.
    pub fn count_in(self, now: Timestamp) -> Result<Tries, Rejection> {
        let Some(last_at) = self.last_at else { return Ok(Tries::first(now)) };
        if now < last_at.saturating_add(self.wait()) {
            return Err(Rejection::Conflict("too many tries; wait a while"));
        }
        if TRIES_FORGOTTEN_AFTER <= now.since(last_at) {
            return Ok(Tries::first(now));
        }
        Ok(Tries { count: self.count.saturating_add(1), last_at: Some(now) })
    }

    fn first(now: Timestamp) -> Tries {
        Tries { count: 1, last_at: Some(now) }
    }

    fn wait(self) -> Duration {
        let Some(beyond) = self.count.checked_sub(TRIES_FREE) else { return Duration::ZERO };
        let secs = WAIT_FIRST_SECS.saturating_mul(2_u64.saturating_pow(beyond));
        Duration::from_secs(secs.clamp(WAIT_FIRST_SECS, WAIT_SECS_MAX))
    }
}

/// The step that `now` is in.
pub fn step_at(now: Timestamp) -> u64 {
    now.unix_ms() / 1_000 / STEP_SECS
}

/// Counts a try, before anybody knows how it ends.
pub(super) fn count_try(
    state: &State,
    user: UserId,
    is_known: bool,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let mut account = active(state, user)?.clone();
    let tries = if is_known { &mut account.known_tries } else { &mut account.strange_tries };
    *tries = tries.count_in(now)?;
    Ok(Decision::new(Event::SignInTried { user }, [Change::PutAccount(account)]))
}

/// What a sign-in brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What the password was found to match.
    pub password: PasswordHash,
    /// The second factor.
    pub factor: Factor,
    /// Whether the browser is one that the user has signed in with.
    pub is_known: bool,
}

pub(super) fn sign_in(
    state: &State,
    credentials: &Credentials,
    new: &Login,
    replaces: Option<TokenHash>,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let account = active(state, new.user)?;
    require_password(account, &credentials.password)?;
    let mut account = consume(account, &credentials.factor, now)?;
    if credentials.is_known {
        account.known_tries = Tries::default();
    } else {
        account.strange_tries = Tries::default();
    }
    let mut changes = vec![Change::PutAccount(account)];
    changes.extend(login::open(state, new, replaces, now));
    let by_recovery_code = matches!(credentials.factor, Factor::Recovery(_));
    Ok(Decision::new(Event::SignedIn { user: new.user, by_recovery_code }, changes))
}

/// Gives the account a new password; every login but `kept` ends.
pub(super) fn set_password(
    state: &State,
    user: UserId,
    credentials: &Credentials,
    password: &PasswordHash,
    kept: TokenHash,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let account = active(state, user)?;
    require_password(account, &credentials.password)?;
    let account = consume_signed_in(account, &credentials.factor, now)?;
    let account = Account { password: Some(password.clone()), ..account };
    let mut changes = vec![Change::PutAccount(account)];
    changes.extend(login::close_all(state, user, Some(kept)));
    Ok(Decision::new(Event::PasswordSet { user, by_reset: false }, changes))
}

pub(super) fn replace_authenticator(
    state: &State,
    user: UserId,
    factor: &Factor,
    authenticator: &Authenticator,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let account = consume_signed_in(active(state, user)?, factor, now)?;
    let account = Account { authenticator: Some(authenticator.clone()), ..account };
    let event = Event::AuthenticatorReplaced { user };
    Ok(Decision::new(event, [Change::PutAccount(account)]))
}

pub(super) fn replace_recovery_codes(
    state: &State,
    user: UserId,
    factor: &Factor,
    codes: &[RecoveryHash],
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let account = consume_signed_in(active(state, user)?, factor, now)?;
    let account = Account { recovery: codes.to_vec(), ..account };
    let event = Event::RecoveryCodesReplaced { user };
    Ok(Decision::new(event, [Change::PutAccount(account)]))
}

/// The account of a user who can sign in.
pub(super) fn active(state: &State, user: UserId) -> Result<&Account, Rejection> {
    let account = state.account(user).filter(|account| account.is_active());
    account.ok_or(Rejection::NotFound)
}

/// Uses a second factor up, as somebody does who is signed in.
pub(super) fn consume_signed_in(
    account: &Account,
    factor: &Factor,
    now: Timestamp,
) -> Result<Account, Rejection> {
    Ok(Account { known_tries: Tries::default(), ..consume(account, factor, now)? })
}

/// Uses a second factor up: the account as it is since.
pub(super) fn consume(
    account: &Account,
    factor: &Factor,
    now: Timestamp,
) -> Result<Account, Rejection> {
    const USED: Rejection = Rejection::Conflict("the code was used already; take the next one");
    let mut account = account.clone();
    match factor {
        Factor::Code { seed, step, resealed } => {
            let authenticator = account.authenticator.as_mut();
            let authenticator = authenticator.filter(|current| current.seed == *seed);
            let authenticator = authenticator
                .ok_or(Rejection::Conflict("the authenticator was replaced; use the new one"))?;
            if STEPS_SKEW < step.abs_diff(step_at(now)) {
                return Err(Rejection::Conflict("the code is too old; take the next one"));
            }
            if *step <= authenticator.last_step {
                return Err(USED);
            }
            authenticator.last_step = *step;
            if let Some(resealed) = resealed {
                authenticator.seed = resealed.clone();
            }
        }
        Factor::Recovery(hash) => {
            let place = account.recovery.iter().position(|unused| unused == hash).ok_or(USED)?;
            account.recovery.remove(place);
        }
    }
    Ok(account)
}

/// Whoever proved to know a password proved it of the one that was stored then.
fn require_password(account: &Account, proved: &PasswordHash) -> Result<(), Rejection> {
    let is_current = account.password.as_ref() == Some(proved);
    is_current.then_some(()).ok_or(Rejection::Conflict("the password was changed; use the new one"))
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

impl fmt::Debug for RecoveryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_tries_makes_the_wait_shorter() {
        let wait = |count| Tries { count, last_at: None }.wait();

        assert!((0..200).all(|count| wait(count) <= wait(count + 1)));
        assert_eq!([wait(4), wait(5), wait(200)].map(|wait| wait.as_secs()), [0, 60, 3_600]);
    }
}
