//! The control plane of Postern.
pub mod domain;
