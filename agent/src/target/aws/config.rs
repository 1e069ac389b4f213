//! What the operator says about targets in AWS.

use crate::target::nft::Ports;

/// Where EC2 is, and as whom we speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsAccess {
    /// The region; where there is none, the SDK's chain finds one.
    pub region: Option<String>,
    /// Another address than the region's own.
    pub endpoint: Option<String>,
    /// A profile of the files that AWS's own tools read.
    pub profile: Option<String>,
    /// A role that the credentials found may assume.
    pub assume_role: Option<String>,
    /// Most calls in any minute, repetitions included.
    pub calls_per_minute: u16,
}

impl AwsAccess {
    /// A fifth of what EC2 grants an account for most of its actions that change something.
    pub const CALLS_PER_MINUTE: u16 = 60;
}

impl Default for AwsAccess {
    fn default() -> AwsAccess {
        AwsAccess {
            region: None,
            endpoint: None,
            profile: None,
            assume_role: None,
            calls_per_minute: AwsAccess::CALLS_PER_MINUTE,
        }
    }
}

/// What the operator says about a security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupConfig {
    /// Its id: `sg-…`.
    pub group: String,
    /// The ports that open.
    pub ports: Vec<Ports>,
    /// How many rules of a family AWS lets the group have.
    pub rules_max: usize,
}

impl SecurityGroupConfig {
    /// What AWS grants where nobody asked for more.
    pub const RULES_MAX: usize = 60;
}

/// What the operator says about prefix lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixListsConfig {
    /// The list for IPv4: `pl-…`.
    pub v4: Option<String>,
    /// The list for IPv6.
    pub v6: Option<String>,
    /// How many entries the lists may be let hold, where they hold less. What a list may hold counts
    /// against the quota of every security group and route table that refers to it, so without this
    /// a list that is full stays as it is.
    pub grow_to: Option<usize>,
}
