//! What Cloudflare may answer, by what follows from it.

use std::io;
use std::time::Duration;

use serde::Deserialize;

use super::action::Action;
use crate::target::TargetError;
use crate::target::marked::budget::Spent;

const MESSAGE_CHARS_MAX: usize = 300;
/// Longest wait that is believed: who is over the limit is shut out for five minutes.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// The token is none, or is none any more.
const BAD_TOKEN: [u64; 5] = [1000, 6003, 6111, 9106, 9109];
/// The access rule is there already.
const DUPLICATE: u64 = 10_009;
/// The access rule is not there.
const NO_RULE: u64 = 10_001;
/// The account, zone or list is not there.
const NO_ROUTE: u64 = 7003;
/// The quota of access rules is used up.
const RULES_QUOTA: u64 = 81_019;

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloudflareError {
    /// The rule is there already, whosever it is.
    #[error("could not {action}: it is there already")]
    Duplicate { action: Action },
    /// What was named is not there: for who wanted it gone, an answer.
    #[error("could not {action}: {message}")]
    Missing { action: Action, message: String },
    /// The list, account or zone itself is not there.
    #[error("could not {action}: {message}")]
    Gone { action: Action, message: String },
    /// The quota does not allow it.
    #[error("could not {action}: {message}")]
    Full { action: Action, message: String },
    /// The token does not allow it.
    #[error(
        "this token may not {action}: give it `{}` for this account or zone, as deploy/cloudflare \
         does: {message}", action.permission()
    )]
    Denied { action: Action, message: String },
    /// The token is none that is good.
    #[error(
        "the token for Cloudflare is expired, revoked or wrong, put another in its file: {message}"
    )]
    Credentials { message: String },
    /// There is no token that we could read; Cloudflare was not asked.
    #[error("{message}")]
    NoToken { message: String },
    /// Cloudflare asks for patience, or another change of lists is under way.
    #[error("could not {action}: Cloudflare asks to wait {} s", wait.as_secs())]
    Throttled { action: Action, wait: Duration },
    /// We made as many calls as we may.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// A change of items came to a bad end; a part of it may have been made.
    #[error("a change of the list failed: {message}")]
    Failed { message: String },
    /// A change of items goes on for longer than we wait.
    #[error(
        "the change {operation} of the list has not come to an end in {} s; it is waited for",
        after.as_secs()
    )]
    Slow { operation: String, after: Duration },
    /// Cloudflare does not take it, and will not take it the next time.
    #[error("could not {action}: {code}: {message}")]
    Refused { action: Action, code: u64, message: String },
    /// No answer that says anything; the change may have been made.
    #[error("could not {action}: {message}")]
    Unclear { action: Action, message: String },
}

/// One of the errors in an answer.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u64,
    #[serde(default)]
    pub(super) message: String,
}

impl CloudflareError {
    /// Reads what an answer says that is no success; `wait` is how long to wait if it asks for that.
    pub(super) fn from_answer(
        action: Action,
        status: u16,
        errors: &[ApiError],
        wait: Duration,
    ) -> CloudflareError {
        let ApiError { code, message } = errors.first().cloned().unwrap_or_default();
        let message = shorten(&message);
        let has = |known: u64| errors.iter().any(|error| error.code == known);
        match status {
            429 => CloudflareError::Throttled { action, wait: wait.min(WAIT_MAX) },
            401 => CloudflareError::Credentials { message },
            403 if !says_expired(&message) => CloudflareError::Denied { action, message },
            400.. if BAD_TOKEN.iter().any(|bad| has(*bad)) => {
                CloudflareError::Credentials { message }
            }
            403 => CloudflareError::Credentials { message },
            500.. => {
                CloudflareError::Unclear { action, message: format!("HTTP {status} {message}") }
            }
            _ if has(DUPLICATE) => CloudflareError::Duplicate { action },
            _ if has(RULES_QUOTA) || says_full(&message) => {
                CloudflareError::Full { action, message }
            }
            _ if has(NO_ROUTE) => CloudflareError::gone(action, &message),
            _ if status == 404 || has(NO_RULE) => CloudflareError::not_there(action, message),
            _ => CloudflareError::Refused { action, code, message },
        }
    }

    fn not_there(action: Action, message: String) -> CloudflareError {
        match action {
            Action::GetLists
            | Action::GetItems
            | Action::CreateItems
            | Action::ListAccessRules(_)
            | Action::CreateAccessRule(_) => CloudflareError::gone(action, &message),
            Action::DeleteItems
            | Action::GetBulkOperation
            | Action::EditAccessRule(_)
            | Action::DeleteAccessRule(_) => CloudflareError::Missing { action, message },
        }
    }

    /// What the target stands on is not there.
    pub(super) fn gone(action: Action, message: &str) -> CloudflareError {
        let message = match action {
            Action::GetLists
            | Action::GetItems
            | Action::CreateItems
            | Action::DeleteItems
            | Action::GetBulkOperation => format!(
                "the list is not there ({message}); make one of kind `ip`, let the rules refer to \
                 it, and give its id and its account's to the target"
            ),
            Action::ListAccessRules(_)
            | Action::CreateAccessRule(_)
            | Action::EditAccessRule(_)
            | Action::DeleteAccessRule(_) => format!(
                "the account or zone is not there ({message}); give its id to the target, or take \
                 the target out of the configuration"
            ),
        };
        CloudflareError::Gone { action, message }
    }

    /// Says whether the same may succeed once we have looked again.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            CloudflareError::Missing { .. }
            | CloudflareError::Failed { .. }
            | CloudflareError::Refused { .. }
            | CloudflareError::Unclear { .. } => true,
            CloudflareError::Duplicate { .. }
            | CloudflareError::Gone { .. }
            | CloudflareError::Full { .. }
            | CloudflareError::Denied { .. }
            | CloudflareError::Credentials { .. }
            | CloudflareError::NoToken { .. }
            | CloudflareError::Throttled { .. }
            | CloudflareError::Spent(_)
            | CloudflareError::Slow { .. } => false,
        }
    }
}

impl From<CloudflareError> for TargetError {
    fn from(error: CloudflareError) -> TargetError {
        match error {
            CloudflareError::Throttled { wait, .. }
            | CloudflareError::Spent(Spent { wait, .. }) => TargetError::Throttled { wait },
            CloudflareError::Duplicate { .. } | CloudflareError::Missing { .. } => {
                TargetError::Changed
            }
            CloudflareError::Gone { .. }
            | CloudflareError::Full { .. }
            | CloudflareError::Denied { .. }
            | CloudflareError::Failed { .. }
            | CloudflareError::Refused { .. } => {
                TargetError::Rejected { reason: error.to_string() }
            }
            CloudflareError::NoToken { message } => TargetError::Unreachable {
                step: message,
                source: io::Error::other("Cloudflare was not asked"),
            },
            CloudflareError::Credentials { .. }
            | CloudflareError::Slow { .. }
            | CloudflareError::Unclear { .. } => TargetError::Unreachable {
                step: error.to_string(),
                source: io::Error::other("Cloudflare did not do what it was asked"),
            },
        }
    }
}

fn says_expired(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["expired", "invalid access token", "invalid api token"]
        .iter()
        .any(|said| message.contains(said))
}

fn says_full(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["quota", "maximum number", "limit exceeded"].iter().any(|said| message.contains(said))
}

/// Cuts a foreign text to what a log line can take, control characters left out.
pub(super) fn shorten(message: &str) -> String {
    message.chars().filter(|char| !char.is_control()).take(MESSAGE_CHARS_MAX).collect()
}
