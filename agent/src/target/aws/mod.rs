//! Security groups and managed prefix lists in AWS.
//!
//! All but what the operator says stands behind the feature `aws`, since the SDK is large.

mod config;

#[cfg(feature = "aws")]
mod action;
#[cfg(feature = "aws")]
mod client;
#[cfg(feature = "aws")]
mod error;
#[cfg(feature = "aws")]
mod lists;
#[cfg(feature = "aws")]
mod prefix_list;
#[cfg(feature = "aws")]
mod quota;
#[cfg(feature = "aws")]
mod rules;
#[cfg(feature = "aws")]
mod security_group;

pub use config::{AwsAccess, PrefixListsConfig, SecurityGroupConfig};

#[cfg(feature = "aws")]
pub use action::{Action, PREFIX_LIST, SECURITY_GROUP, policy};
#[cfg(feature = "aws")]
pub use client::Ec2;
#[cfg(feature = "aws")]
pub use prefix_list::PrefixLists;
#[cfg(feature = "aws")]
pub use rules::OWNER_TAG;
#[cfg(feature = "aws")]
pub use security_group::SecurityGroup;
