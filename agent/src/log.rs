//! The log: stderr, one line an event.

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Libraries whose details may hold what is sent: paths, and with them secrets.
const TALKATIVE: [&str; 5] = ["h2", "hyper", "hyper_util", "reqwest", "rustls"];

/// Starts logging. A second start of the same process changes nothing.
pub(crate) fn start(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = TALKATIVE.iter().fold(filter, |filter, library| {
        let quiet = format!("{library}=warn").parse().expect("a name and a level are a directive");
        filter.add_directive(quiet)
    });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    // Only a test starts twice in one process.
    drop(started);
}
