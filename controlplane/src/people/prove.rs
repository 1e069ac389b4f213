//! Second factors that are shown, and found to be right.

use postern_shared::time::Timestamp;
use secrecy::ExposeSecret as _;

use super::SignedIn;
use super::codes::{self, Written};
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{Account, Command, Factor};
use crate::engine::Refused;
use crate::http::ApiError;

/// Finds what a second factor is worth, without using it up: that is for the order that it goes
/// with. None where it is wrong.
pub(super) fn factor(
    app: &App,
    account: &Account,
    written: &str,
    now: Timestamp,
) -> Option<Factor> {
    match codes::read(written)? {
        Written::Recovery(hash) => {
            account.recovery.contains(&hash).then_some(Factor::Recovery(hash))
        }
        Written::Code(code) => {
            let stored = &account.authenticator.as_ref()?.seed;
            let (people, place) = (app.people(), codes::seed_place(&account.user));
            let opened = people.sealer.open(place, stored).and_then(|seed| {
                let renewed = people.sealer.renew(place, stored, app.engine().chance())?;
                Ok((seed, renewed))
            });
            match opened {
                Ok((seed, resealed)) => {
                    let step = codes::step_of(&seed, code.expose_secret(), now)?;
                    Some(Factor::Code { seed: stored.clone(), step, resealed })
                }
                Err(error) => {
                    tracing::error!(%error, user = %account.user, "cannot check a code");
                    None
                }
            }
        }
    }
}

/// Finds what a second factor is worth that a signed-in user shows, for an order that asks for one
/// such as [`Command::MintKeyAs`]. The try is counted first. None where it is wrong, or where
/// there were too many tries.
pub(crate) async fn fresh_factor(
    app: &App,
    signed_in: &SignedIn,
    written: &str,
) -> Result<Option<Factor>, ApiError> {
    let command = Command::CountTry { user: signed_in.user, is_known: true };
    match app.engine().submit(signed_in.order(command)).await {
        Ok(_) => {}
        Err(Refused::Rejected(_)) => return Ok(None),
        Err(error) => return Err(refused(error)),
    }
    let now = app.engine().now();
    let account = app.engine().state().account(signed_in.user).cloned();
    Ok(account.and_then(|account| factor(app, &account, written, now)))
}
