//! Places at which a test can stop or break a program.
//!
//! With the cargo feature `failpoints` a test sets actions with the crate `fail`; without it,
//! reaching a place does nothing.

use std::io;

/// Carries out what a test has set for `place`; `return` is the error.
#[cfg(feature = "failpoints")]
pub fn reach(place: &'static str) -> io::Result<()> {
    fail::fail_point!(place, |_| Err(io::Error::other(format!("broken on purpose at {place}"))));
    Ok(())
}

/// Does nothing: this is not a build for tests.
#[cfg(not(feature = "failpoints"))]
pub fn reach(_place: &'static str) -> io::Result<()> {
    Ok(())
}
