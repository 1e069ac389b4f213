//! The routes over a real socket, asked by a client that shares no code with them.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod agents;
mod audit;
mod auth;
mod bookmark;
mod browser;
mod canary;
mod chromium;
mod compat;
mod console;
mod console_agents;
mod console_audit;
mod console_groups;
mod console_keys;
mod console_live;
mod console_once;
mod console_pairs;
mod console_people;
mod console_version;
mod device;
mod document;
mod forms;
mod held;
mod lists;
mod look;
mod mail;
mod objects;
mod once;
mod paths;
mod people;
mod previews;
mod streams;
mod tenants;
mod walk;
mod walk_admin;
mod window;
mod world;
