//! nftables targets against a real kernel, with packets and `nft` as witnesses.
//!
//! Needs a network namespace per process: run with `make test`.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "failpoints")]
mod broken;
mod contract;
mod faults;
mod gate;
#[path = "../netns/mod.rs"]
mod netns;
mod ownership;
#[path = "../contract/mod.rs"]
mod promises;
mod sets;
