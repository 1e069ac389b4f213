//! The control plane of Postern: tracks reported addresses, resolves them into one allowlist per
//! group, and tells whoever follows.

mod api;
pub mod app;
pub mod audit;
mod beacon;
pub mod chance;
pub mod cli;
pub mod clock;
mod compat;
pub mod config;
mod console;
pub mod data_dir;
pub mod domain;
mod drafts;
pub mod engine;
pub mod feed;
mod health;
pub mod http;
pub mod mail;
pub mod metrics;
pub mod operator;
mod page;
pub mod people;
pub mod seal;
pub mod serve;
pub mod server;
pub mod store;
