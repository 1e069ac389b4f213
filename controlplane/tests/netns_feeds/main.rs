//! Lists in the hands of other programs: nftables, ipset, and the scripts of `examples/`.
//!
//! Each test has a network namespace of its own: run `make test`.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod feed;
mod forms;
mod ground;
#[path = "../program/plane.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod plane;
mod ufw;
