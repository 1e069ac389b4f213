//! One way to EC2 for each target: credentials by the SDK's own chain, retries, the budget.

use std::time::Duration;

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_ec2::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{Builder, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::{BoxError, ProvideErrorMetadata, SdkError};

use super::action::Action;
use super::config::AwsAccess;
use super::error::AwsError;
use crate::target::marked::budget::Budget;

/// How often the SDK tries, the first time included.
const ATTEMPTS_MAX: u32 = 3;
const CONNECT_MAX: Duration = Duration::from_secs(3);
const ATTEMPT_MAX: Duration = Duration::from_secs(6);
const CALL_MAX: Duration = Duration::from_secs(20);
/// How an assumed role's sessions are called in the account's trail.
const SESSION_NAME: &str = "postern-agent";

/// A client, made at its first use: finding a region may ask the instance.
#[derive(Debug)]
pub struct Ec2 {
    client: Source,
}

#[derive(Debug)]
enum Source {
    Access(AwsAccess),
    Client(Client),
}

impl Ec2 {
    /// Reaches EC2 as the configuration says. Nothing is asked yet.
    pub fn new(access: AwsAccess) -> Ec2 {
        Ec2 { client: Source::Access(access) }
    }

    /// Reaches EC2 by a configuration of the SDK, to which our limits are added: for tests, which
    /// have a transport of their own.
    pub fn over(config: Builder, calls_per_minute: u16) -> Ec2 {
        Ec2 { client: Source::Client(Client::from_conf(limited(config, calls_per_minute).build())) }
    }

    /// Makes one call. `action` is what the call is, for the error and for the policy.
    pub(super) async fn call<T, E, F>(
        &mut self,
        action: Action,
        send: impl FnOnce(Client) -> F,
    ) -> Result<T, AwsError>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let client = self.client().await;
        send(client).await.map_err(|error| AwsError::new(action, error))
    }

    async fn client(&mut self) -> Client {
        let client = match &self.client {
            Source::Client(client) => client.clone(),
            Source::Access(access) => {
                let config = Builder::from(&found(access).await);
                Client::from_conf(limited(config, access.calls_per_minute).build())
            }
        };
        self.client = Source::Client(client.clone());
        client
    }
}

/// Follows the SDK's chain: environment, profile, web identity, container, instance role.
async fn found(access: &AwsAccess) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = &access.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &access.profile {
        loader = loader.profile_name(profile);
    }
    let Some(role) = &access.assume_role else {
        return at(access, loader.load().await);
    };
    let own = loader.load().await;
    let role = AssumeRoleProvider::builder(role).session_name(SESSION_NAME).configure(&own);
    let role = aws_sdk_ec2::config::SharedCredentialsProvider::new(role.build().await);
    at(access, own.into_builder().credentials_provider(role).build())
}

/// The endpoint is EC2's alone: roles are assumed where the region says.
fn at(access: &AwsAccess, config: SdkConfig) -> SdkConfig {
    match &access.endpoint {
        Some(endpoint) => config.into_builder().endpoint_url(endpoint).build(),
        None => config,
    }
}

fn limited(config: Builder, calls_per_minute: u16) -> Builder {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_MAX)
        .operation_attempt_timeout(ATTEMPT_MAX)
        .operation_timeout(CALL_MAX)
        .build();
    config
        .retry_config(RetryConfig::adaptive().with_max_attempts(ATTEMPTS_MAX))
        // Else what one target is throttled for holds up all others of this process.
        .retry_partition(RetryPartition::custom("postern").build())
        .timeout_config(timeouts)
        .interceptor(Guard(Budget::new(calls_per_minute)))
}

/// Counts every attempt, the SDK's own repetitions too, and lets none go out beyond the budget; and
/// takes no answer that is not whole: the SDK reads half a list as a short one.
#[derive(Debug)]
struct Guard(Budget);

/// The answer breaks off.
#[derive(Debug, thiserror::Error)]
#[error("the answer breaks off, or is none of EC2's")]
struct NotWhole;

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "Guard"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        Ok(self.0.take()?)
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        let is_whole = body.trim_ascii_end().ends_with(b"Response>");
        if response.status().is_success() && !is_whole {
            return Err(NotWhole.into());
        }
        Ok(())
    }
}
