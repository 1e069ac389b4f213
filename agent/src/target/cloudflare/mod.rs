//! IP lists and IP access rules at Cloudflare.
//!
//! Both are asked through a small client of our own, which says what was refused and for how long;
//! see ARCHITECTURE.md for why it is not the crate of that name.

mod access_rules;
mod action;
mod client;
mod config;
mod error;
mod items;
mod list;
mod rules;
mod transport;

pub use access_rules::AccessRules;
pub use action::{ACCESS_RULES_OF_ACCOUNT, ACCESS_RULES_OF_ZONE, Action, LIST, Permission, token};
pub use client::Cloudflare;
pub use config::{AccessRulesConfig, ListConfig, Scope};
pub use list::IpList;
pub use transport::{Answer, Request, Transport, TransportError};
pub(crate) use transport::{Endpoint, Https};
