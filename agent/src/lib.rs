//! The agent of Postern.

pub mod target;
