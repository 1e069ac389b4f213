//! The targets in AWS, against a fake EC2 of ours and against moto's.

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
mod happy;
mod hostile;
mod merging;
mod moto;
mod policy;
mod program;
#[path = "../contract/mod.rs"]
mod promises;
#[path = "../rig/provider.rs"]
mod provider;
#[path = "../rig/runs.rs"]
mod runs;
mod scene;
mod seeds;
#[path = "../rig/somebody.rs"]
mod somebody;
mod transport;
