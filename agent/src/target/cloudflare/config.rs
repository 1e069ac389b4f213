//! What the operator says about targets at Cloudflare.

use std::fmt;

/// What the operator says about an IP list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListConfig {
    /// The account's id.
    pub account: String,
    /// The list's id.
    pub list: String,
    /// How many items all lists of the account may hold together.
    pub items_max: usize,
}

impl ListConfig {
    /// What Cloudflare grants every plan but the largest.
    pub const ITEMS_MAX: usize = 10_000;
}

/// What the operator says about IP access rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRulesConfig {
    /// Where the rules hold.
    pub scope: Scope,
    /// How many rules Cloudflare lets the account have.
    pub rules_max: usize,
}

impl AccessRulesConfig {
    /// What Cloudflare grants an account where nobody asked for more.
    pub const RULES_MAX: usize = 50_000;
}

/// Where access rules hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In all zones of the account with this id.
    Account(String),
    /// In the zone with this id.
    Zone(String),
}

impl Scope {
    /// The id.
    pub fn id(&self) -> &str {
        match self {
            Scope::Account(id) | Scope::Zone(id) => id,
        }
    }
}

impl fmt::Display for Scope {
    /// As the API's paths begin.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Account(id) => write!(f, "accounts/{id}"),
            Scope::Zone(id) => write!(f, "zones/{id}"),
        }
    }
}
