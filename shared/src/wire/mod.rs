//! What goes over the wire, by version. A version never loses a field.

pub mod v1;
