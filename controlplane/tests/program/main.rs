//! The real program: its commands, its life as a daemon, and its death at any moment.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod agents;
mod audit;
mod commands;
mod crash;
mod evidence;
mod init;
mod life;
mod once;
mod plane;
mod quickstart;
mod users;
mod wall_clock;
