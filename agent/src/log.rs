//! The log: stderr, one line an event.

use std::io::stderr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

use crate::config::{LogConfig, LogFormat};

/// Libraries whose details may hold what is sent: paths, and with them secrets.
const TALKATIVE: [&str; 5] = ["h2", "hyper", "hyper_util", "reqwest", "rustls"];

/// Starts logging. A second start of the same process changes nothing.
pub(crate) fn start(config: &LogConfig) {
    let quiet = TALKATIVE.map(|library| (library, LevelFilter::WARN));
    let filter = config.filter.clone().with_targets(quiet);
    let lines = fmt::layer().with_writer(stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Only a test starts twice in one process.
    drop(registry().with(lines.with_filter(filter)).try_init());
}
