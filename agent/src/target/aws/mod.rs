//! Security groups and managed prefix lists in AWS.

mod action;
mod budget;
mod client;
mod error;
mod lists;
mod mirror;
mod prefix_list;
mod quota;
mod rules;
mod security_group;

pub use action::{Action, PREFIX_LIST, SECURITY_GROUP, policy};
pub use client::{AwsAccess, Ec2};
pub use prefix_list::{PrefixLists, PrefixListsConfig};
pub use rules::OWNER_TAG;
pub use security_group::{SecurityGroup, SecurityGroupConfig};
