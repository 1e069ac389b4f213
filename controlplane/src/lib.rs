//! The control plane of Postern.

pub mod domain;
mod failpoint;
pub mod store;
