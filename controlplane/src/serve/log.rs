//! The log on standard error.

use std::io;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::config::{Log, LogLevel};

/// Our own messages; those of libraries are logged from warnings up.
const OURS: &str = "postern_controlplane";

/// Changes what is logged while the daemon runs.
pub(super) struct LogControl(reload::Handle<Targets, Registry>);

impl LogControl {
    /// Begins to log. Does nothing where the process logs already.
    pub(super) fn install(log: Log) -> LogControl {
        let (filter, handle) = reload::Layer::new(filter(log.level));
        let lines = fmt::layer().with_writer(io::stderr);
        let layer = match log.json {
            true => lines.json().flatten_event(true).boxed(),
            false => lines.with_ansi(false).boxed(),
        };
        // An error means that somebody else logs; tests do.
        drop(tracing_subscriber::registry().with(layer.with_filter(filter)).try_init());
        LogControl(handle)
    }

    /// Changes the level. The form stays.
    pub(super) fn set(&self, log: Log) {
        if let Err(error) = self.0.reload(filter(log.level)) {
            tracing::warn!(%error, "could not change the log level");
        }
    }
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level.min(LevelFilter::from(Level::WARN))).with_target(OURS, level)
}
