//! Files as targets. The witness is what stands in the file.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

mod contract;
#[path = "../contract/mod.rs"]
mod promises;
mod reload;
mod scene;
mod sweep;
