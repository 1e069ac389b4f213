//! The main job from end to end: the real agent, the real control plane, a real kernel, and
//! packets and `nft` as witnesses.
//!
//! Needs a network namespace per process: run with `make test`.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

#[expect(dead_code, reason = "the tests of the targets use the rest")]
#[path = "../netns/mod.rs"]
mod netns;
#[expect(dead_code, reason = "the tests with kills use the rest")]
#[path = "../rig/mod.rs"]
mod rig;

mod host;
mod isolation;
mod network;
mod operator;
mod plane;
mod way;
