//! The control plane of Postern.
