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
/// One line for each place where credentials may be.
const PLACES_CHARS_MAX: usize = 1000;

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
    /// There are no credentials; EC2 was not asked.
    #[error(
        "no credentials for AWS were found; examples/agent-aws.yaml says where to put some: {message}"
    )]
    NoCredentials { message: String },
    /// There are some, and they give none for EC2, which was not asked.
    #[error("could not get credentials for AWS: {message}")]
    CredentialsFailed { message: String },
    /// The credentials are none that are good.
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
            return match (places_without_any(&error), find::<CredentialsError>(&error)) {
                (Some(message), _) => AwsError::NoCredentials { message },
                (None, Some(_)) => AwsError::CredentialsFailed { message },
                (None, None) => AwsError::Unclear { action, message },
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
            AwsError::NoCredentials { .. } | AwsError::CredentialsFailed { .. } => {
                TargetError::Unreachable {
                    step: error.to_string(),
                    source: io::Error::other("EC2 was not asked"),
                }
            }
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

/// Where the SDK looked, if it found no credentials; they may be those by which a role is assumed.
fn places_without_any(error: &(dyn Error + 'static)) -> Option<String> {
    let mut below = Some(error);
    while let Some(error) = below {
        below = error.source();
        if let Some(CredentialsError::CredentialsNotLoaded(_)) = error.downcast_ref() {
            let places = below.map(chain).unwrap_or_default();
            let places: Vec<&str> = places.lines().map(str::trim).collect();
            return Some(
                places.join("; ").replace(":; ", ": ").chars().take(PLACES_CHARS_MAX).collect(),
            );
        }
    }
    None
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
