//! Passwords: what they must be, and the slow hash that stands in their place.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Form;
use crate::chance::Chance;
use crate::domain::{Email, PasswordHash};
use crate::http::ApiError;

/// Memory of one hash, in KiB, and passes over it: the first choice of OWASP's "Password Storage
/// Cheat Sheet" (2025) for argon2id, with one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Bytes of a salt.
const SALT_BYTES: usize = 16;
/// Hashes at once: each takes a core and 19 MiB.
const HASHES_AT_ONCE_MAX: usize = 2;
/// Hashes that wait for their turn; who comes on top is told to come back.
const HASHES_WAITING_MAX: usize = 64;
/// When to come back.
const BUSY_RETRY: Duration = Duration::from_secs(2);

/// Shortest password, in characters: NIST SP 800-63B-4 asks for 8 where there is a second factor.
const PASSWORD_CHARS_MIN: usize = 12;
/// Longest, in characters.
const PASSWORD_CHARS_MAX: usize = 128;
/// Fewest different characters.
const DIFFERENT_CHARS_MIN: usize = 5;

/// The hash of no password, with the parameters of every other: what is verified for an account
/// that is not there, so that its answer takes as long.
const OF_NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$cG9zdGVybiBub2JvZHkhIQ\
                         $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes passwords, on threads that may block, a bounded number at once.
#[derive(Clone)]
pub(crate) struct Hasher {
    turns: Arc<Semaphore>,
    seats: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher {
            turns: Arc::new(Semaphore::new(HASHES_AT_ONCE_MAX)),
            seats: Arc::new(Semaphore::new(HASHES_AT_ONCE_MAX + HASHES_WAITING_MAX)),
        }
    }

    /// Hashes a new password.
    pub(crate) async fn hash(
        &self,
        password: SecretString,
        chance: &dyn Chance,
    ) -> Result<PasswordHash, ApiError> {
        let mut salt = [0; SALT_BYTES];
        chance.fill(&mut salt);
        self.work(move || {
            let password = password.expose_secret().as_bytes();
            let hash = argon2id().hash_password_with_salt(password, &salt);
            PasswordHash(hash.expect("password and salt are within argon2's limits").to_string())
        })
        .await
    }

    /// Says whether a password is the one that was hashed. Where there is none, it is not, after
    /// the same work.
    pub(crate) async fn verify(
        &self,
        password: SecretString,
        hash: Option<PasswordHash>,
    ) -> Result<bool, ApiError> {
        self.work(move || {
            let expected = hash.as_ref().map_or(OF_NOBODY, |hash| hash.0.as_str());
            let password = password.expose_secret().as_bytes();
            argon2id().verify_password(password, expected).is_ok() && hash.is_some()
        })
        .await
    }

    /// Does slow work when it is its turn.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let busy = || ApiError::Unavailable {
            reason: format!("{HASHES_WAITING_MAX} passwords wait to be hashed"),
            retry_after: BUSY_RETRY,
        };
        let _seat = self.seats.try_acquire().map_err(|_| busy())?;
        // The turn goes with the work: whoever leaves does not make room for one more at once.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(ApiError::internal)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(ApiError::internal)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// Says what is wrong with a new password, if anything is.
pub(crate) fn check(password: &str, email: &Email) -> Result<(), String> {
    let count = password.chars().count();
    if count < PASSWORD_CHARS_MIN {
        return Err(format!(
            "The password is too short: take {PASSWORD_CHARS_MIN} characters or more."
        ));
    }
    if PASSWORD_CHARS_MAX < count {
        return Err(format!(
            "The password is too long: take {PASSWORD_CHARS_MAX} characters at most."
        ));
    }
    let different: std::collections::BTreeSet<char> = password.chars().collect();
    if different.len() < DIFFERENT_CHARS_MIN {
        return Err("The password repeats too few characters to be hard to guess.".to_owned());
    }
    let (password, email) = (password.to_lowercase(), email.as_str().to_lowercase());
    let name = email.split('@').next().unwrap_or_default();
    if password == email || (4 <= name.len() && password.contains(name)) {
        return Err("The password must not contain your mail address.".to_owned());
    }
    Ok(())
}

/// Checks the two fields of a form for a new password.
pub(super) fn check_both(form: &Form, email: &Email) -> Result<(), String> {
    check(form.text("password"), email)?;
    if form.text("password") != form.text("again") {
        return Err("The two passwords are not the same.".to_owned());
    }
    Ok(())
}

fn argon2id() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.expect("the constants are within argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::SeededChance;

    const GOOD: &str = "correct horse battery";

    #[tokio::test]
    async fn a_password_is_told_from_others_by_its_hash_alone() {
        let hasher = Hasher::new();
        let hash = hasher.hash(GOOD.into(), &SeededChance::new(1)).await.unwrap();
        let verify = async |password: &str, hash: &PasswordHash| {
            hasher.verify(password.into(), Some(hash.clone())).await.unwrap()
        };

        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(verify(GOOD, &hash).await);
        assert!(!verify("correct horse batterz", &hash).await);
        assert!(!verify(GOOD, &PasswordHash("nonsense".to_owned())).await);
        assert!(!hasher.verify(GOOD.into(), None).await.unwrap());
        let again = hasher.hash(GOOD.into(), &SeededChance::new(2)).await.unwrap();
        assert_ne!(again, hash, "each has a salt of its own");
    }

    #[test]
    fn the_hash_of_nobody_costs_what_others_cost() {
        let parsed = argon2::password_hash::phc::PasswordHash::new(OF_NOBODY).unwrap();
        let params = Params::try_from(&parsed).unwrap();

        assert_eq!(
            (params.m_cost(), params.t_cost(), params.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
    }

    #[tokio::test]
    async fn a_crowd_is_told_to_come_back() {
        let hasher = Hasher::new();
        let crowd = HASHES_AT_ONCE_MAX + HASHES_WAITING_MAX;
        let _held = Arc::clone(&hasher.seats).acquire_many_owned(crowd as u32).await.unwrap();

        let refused = hasher.verify(GOOD.into(), None).await.unwrap_err();

        assert!(matches!(refused, ApiError::Unavailable { .. }), "{refused:?}");
    }

    #[test]
    fn weak_passwords_are_refused_in_words_that_help() {
        let email: Email = "zoe.smith@example.org".parse().unwrap();
        for (password, word) in [
            ("short", "short"),
            (&*"x".repeat(129), "long"),
            ("aaaaaaaaaaaaaa", "repeats"),
            ("Zoe.Smith@example.org", "mail address"),
            ("my zoe.smith password", "mail address"),
        ] {
            assert!(check(password, &email).unwrap_err().contains(word), "{password}");
        }
        for password in [GOOD, "пароль из слов", "🦀🐙🐠🐡🦑🦐🦞🐚🐬🐳🦈🐊"]
        {
            check(password, &email).expect(password);
        }
    }
}
