//! What is logged.

use std::str::FromStr;

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least important messages that are logged.
    pub level: LogLevel,
    /// Whether each message is a JSON object in place of a line for people.
    pub json: bool,
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody has to act.
    Error,
    /// Somebody should look.
    Warn,
    /// What an operator wants to know.
    Info,
    /// Every request.
    Debug,
    /// Everything.
    Trace,
}

impl Log {
    /// What an operator wants to know, as lines.
    pub const DEFAULT: Log = Log { level: LogLevel::Info, json: false };
}

impl LogLevel {
    const ALL: [LogLevel; 5] =
        [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];

    /// The level's name, as `tracing` has it.
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<LogLevel, String> {
        let level = LogLevel::ALL.into_iter().find(|level| level.name() == text);
        level.ok_or_else(|| {
            format!("is `{text}`; write {}", LogLevel::ALL.map(LogLevel::name).join(", "))
        })
    }
}
