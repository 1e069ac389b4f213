//! Programs that the agent has run for it: those that the local configuration names, and no others.
//!
//! Each is a list of arguments that begins with an absolute path. No shell reads it, its environment
//! is ours, and it has a time limit.

mod program;

use std::time::Duration;

pub use program::{Output, ProgramError};

/// A program of the operator's, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path and its arguments.
    pub argv: Vec<String>,
    /// How long it may take; then it is killed, with all that it has started.
    pub limit: Duration,
}

impl Program {
    /// How long a program may take where nobody says otherwise.
    pub const LIMIT: Duration = Duration::from_secs(20);
    /// The longest limit in seconds: a reload that fails is run once more, and both must end while a
    /// target may still be busy.
    pub const LIMIT_SECS_MAX: u64 = 30;

    /// Runs the program; what is read from its standard input is `input`.
    pub async fn run(&self, input: &[u8]) -> Result<Output, ProgramError> {
        program::run(self, input).await
    }
}
