//! The contract between the control plane and its agents, and the pure core that both need.
//!
//! Nothing in this crate reads a clock, a file, a socket or a random source: time is an
//! argument called `now`, chance is an argument too. `clippy.toml` beside this crate's
//! manifest holds it to that.

pub mod aggregate;
pub mod allowlist;
pub mod backoff;
pub mod cover;
pub mod digest;
pub mod document;
pub mod error;
pub mod failpoint;
pub mod follow;
pub mod format;
pub mod ids;
pub mod network;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod plan;
pub mod policy;
pub mod position;
pub mod scope;
pub mod time;
pub mod token;
pub mod wire;
