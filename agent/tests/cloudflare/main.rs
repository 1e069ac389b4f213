//! The targets at Cloudflare, against a fake Cloudflare of ours: there is no real one to test with.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

#[path = "../rig/alike.rs"]
mod alike;
#[path = "../rig/bad_way.rs"]
mod bad_way;
mod calls;
#[path = "../rig/chance.rs"]
mod chance;
mod contract;
mod fake;
mod faults;
mod merging;
mod program;
#[path = "../contract/mod.rs"]
mod promises;
#[path = "../rig/provider.rs"]
mod provider;
#[path = "../rig/runs.rs"]
mod runs;
mod scene;
mod seeds;
mod server;
#[path = "../rig/somebody.rs"]
mod somebody;
mod token;
mod transport;
mod witness;
