//! The agent of Postern: follows allowlists and keeps firewalls equal to them.

mod cache;
mod chance;
pub mod cli;
mod client;
mod clock;
pub mod commands;
mod config;
mod control;
mod credential;
mod daemon;
mod directory;
mod disk;
mod enroll;
mod firewalls;
mod flushed;
mod lists;
mod lock;
mod log;
mod metrics;
mod reconcile;
mod report;
mod source;
mod status;
pub mod target;
#[cfg(test)]
mod testing;
