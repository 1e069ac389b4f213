//! What EC2 may answer, by what follows from it.

use std::error::Error;
use std::io;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use postern_shared::error::chain;

use super::action::Action;
use crate::target::TargetError;
use crate::target::marked::budget::Spent;

/// How long to wait where EC2 asks for patience: it never says how much.
const THROTTLED_WAIT: Duration = Duration::from_secs(5);
const MESSAGE_CHARS_MAX: usize = 300;

/// An answer that is no success.
#[derive(Debug, thiserror::Error)]
pub(super) enum AwsError {
    /// The rule is there already: for who wanted it to be, an answer.
    #[error("{action}: it is there already")]
    Duplicate { action: Action },
    /// The rule is not there: for who wanted it gone, an answer.
    #[error("{action}: it is not there")]
    Missing { action: Action },
    /// The last change is still under way.
    #[error("{action}: {message}")]
    Working { action: Action, message: String },
    /// Somebody else was quicker.
    #[error("{action}: {message}")]
    Conflict { action: Action, message: String },
    /// The security group or prefix list itself is not there.
    #[error("{message}; give the target another one, or take it out of the configuration")]
    Gone { message: String },
    /// The quota does not allow it.
    #[error("{action}: {message}")]
    Full { action: Action, message: String },
    /// The role does not allow it.
    #[error(
        "these credentials may not {needed}; allow it as the policies in deploy/aws do: {message}"
    )]
    Denied { needed: String, message: String },
    /// There are no credentials, or none that are good.
    #[error("the credentials for AWS are expired or wrong, renew them: {message}")]
    Credentials { message: String },
    /// EC2 asks for patience, even after the SDK has shown some.
    #[error("{action}: EC2 asks to slow down")]
    Throttled { action: Action },
    /// We made as many calls as we may.
    #[error(transparent)]
    Spent(#[from] Spent),
    /// EC2 does not take it, and will not take it the next time.
    #[error("{action}: {code}: {message}")]
    Refused { action: Action, code: String, message: String },
    /// No answer that says anything; the change may have been made.
    #[error("{action}: {message}")]
    Unclear { action: Action, message: String },
}

impl AwsError {
    /// Reads what the SDK made of the answer.
    pub(super) fn new<E>(action: Action, error: SdkError<E, HttpResponse>) -> AwsError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        if let Some(spent) = find::<Spent>(&error) {
            return AwsError::Spent(spent.clone());
        }
        let (Some(code), message) = (error.code(), error.message()) else {
            let status = error.raw_response().map(|raw| format!("HTTP {}: ", raw.status()));
            let message = shorten(&format!("{}{}", status.unwrap_or_default(), chain(&error)));
            return match find::<CredentialsError>(&error) {
                Some(_) => AwsError::Credentials { message },
                None => AwsError::Unclear { action, message },
            };
        };
        let is_server_error =
            error.raw_response().is_some_and(|raw| raw.status().is_server_error());
        AwsError::by_code(action, code, shorten(message.unwrap_or_default()), is_server_error)
    }

    fn by_code(action: Action, code: &str, message: String, is_server_error: bool) -> AwsError {
        match code {
            "InvalidPermission.Duplicate" => AwsError::Duplicate { action },
            "InvalidPermission.NotFound" | "InvalidSecurityGroupRuleId.NotFound" => {
                AwsError::Missing { action }
            }
            "PrefixListVersionMismatch" => AwsError::Conflict { action, message },
            "IncorrectState" | "ConcurrentMutationLimitExceeded" => {
                AwsError::Working { action, message }
            }
            "InvalidGroup.NotFound"
            | "InvalidPrefixListID.NotFound"
            | "InvalidPrefixListId.NotFound" => AwsError::Gone { message },
            "RulesPerSecurityGroupLimitExceeded" | "PrefixListMaxEntriesExceeded" => {
                AwsError::Full { action, message }
            }
            "UnauthorizedOperation" | "AccessDenied" => {
                AwsError::Denied { needed: needed(action), message }
            }
            "AuthFailure"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "RequestExpired"
            | "SignatureDoesNotMatch" => AwsError::Credentials { message },
            "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "SlowDown" => {
                AwsError::Throttled { action }
            }
            code if is_server_error => {
                AwsError::Unclear { action, message: format!("{code}: {message}") }
            }
            code => AwsError::Refused { action, code: code.to_owned(), message },
        }
    }
}

impl From<AwsError> for TargetError {
    fn from(error: AwsError) -> TargetError {
        match error {
            AwsError::Throttled { .. } => TargetError::Throttled { wait: THROTTLED_WAIT },
            AwsError::Spent(Spent { wait, .. }) => TargetError::Throttled { wait },
            AwsError::Duplicate { .. }
            | AwsError::Missing { .. }
            | AwsError::Working { .. }
            | AwsError::Conflict { .. } => TargetError::Changed,
            AwsError::Gone { .. }
            | AwsError::Full { .. }
            | AwsError::Denied { .. }
            | AwsError::Refused { .. } => TargetError::Rejected { reason: error.to_string() },
            AwsError::Credentials { .. } | AwsError::Unclear { .. } => TargetError::Unreachable {
                step: error.to_string(),
                source: io::Error::other("EC2 did not do what it was asked"),
            },
        }
    }
}

/// All that a call needs to be allowed; EC2 does not always say which of it is missing.
fn needed(action: Action) -> String {
    match action {
        Action::AuthorizeSecurityGroupIngress => format!("{action} and {}", Action::CreateTags),
        Action::DescribeSecurityGroupRules
        | Action::CreateTags
        | Action::RevokeSecurityGroupIngress
        | Action::UpdateSecurityGroupRuleDescriptionsIngress
        | Action::DescribeManagedPrefixLists
        | Action::GetManagedPrefixListEntries
        | Action::ModifyManagedPrefixList => action.to_string(),
    }
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut below = Some(error);
    while let Some(error) = below {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        below = error.source();
    }
    None
}

fn shorten(message: &str) -> String {
    message.chars().take(MESSAGE_CHARS_MAX).collect()
}
