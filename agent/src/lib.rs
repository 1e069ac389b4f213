//! The agent of Postern.
