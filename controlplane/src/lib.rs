//! The control plane of Postern: tracks reported addresses, resolves them into one allowlist per
//! group, and tells whoever follows.

pub mod chance;
pub mod clock;
pub mod config;
pub mod domain;
pub mod engine;
mod failpoint;
pub mod feed;
pub mod http;
pub mod metrics;
pub mod server;
pub mod store;
