//! The agent's configuration file.
//!
//! What is in it is the host's own word: nothing of it can be changed from afar.

mod aws;
mod cloudflare;
mod file;
mod ipset;
mod kind;
mod nftables;
mod read;
mod ufw;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use postern_shared::document::Mistake;
use postern_shared::ids::GroupId;
use postern_shared::policy::LocalPolicy;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

pub(crate) use kind::{
    Claim, CloudflareCalls, Door, Kind, Opening, SweepFuture, Sweeping, TargetKind,
};
#[cfg(test)]
pub(crate) use nftables::Nftables;

use crate::client::PlaneUrl;
use crate::commands::Commands;

/// Where the configuration is when nobody says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/postern/agent.yaml";

/// A configuration that was found good.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// Whom to follow.
    pub(crate) plane: PlaneConfig,
    /// Where the agent keeps its credential and the last lists. Default `/var/lib/postern-agent`.
    pub(crate) state_dir: PathBuf,
    /// The socket for the command line. Default `/run/postern-agent/control`.
    pub(crate) control: PathBuf,
    /// Who runs programs for targets that need them. Default: the unit, at its usual socket.
    pub(crate) commands: Commands,
    /// How the agent logs.
    pub(crate) log: LogConfig,
    /// Where figures for Prometheus are written, where they are.
    pub(crate) metrics_file: Option<PathBuf>,
    /// What may ever be open on this host; the fail-safe networks are part of it.
    pub(crate) policy: LocalPolicy,
    /// The firewalls to keep.
    pub(crate) targets: Vec<TargetConfig>,
    /// Those of them that this build cannot keep. No reason to leave the others alone.
    pub(crate) lacking: Vec<Mistake>,
}

/// Whom to follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PlaneConfig {
    /// The control plane's address, where it is another than the invitation named.
    pub(crate) url: Option<PlaneUrl>,
    /// The file that `enroll` wrote, where it is not at its usual place.
    pub(crate) credential: Option<PathBuf>,
}

/// How the agent logs: to stderr, one line an event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogConfig {
    /// What is logged: `info`, or `warn,postern_agent=debug`.
    pub(crate) filter: Targets,
    /// The form of a line.
    pub(crate) format: LogFormat,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people and the journal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A firewall to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetConfig {
    /// How it is called in logs, receipts and `status`.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: TargetKind,
    /// Who runs programs for it.
    pub(crate) commands: Commands,
}

/// A group, as a configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GroupRef {
    /// By its id: good wherever and whenever.
    Id(GroupId),
    /// By its running number in the org.
    Number(u64),
    /// By its name in the org.
    Name(String),
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("could not read the configuration {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What is in it is wrong; shown as `file:line:column: path: message`, one a line.
    #[error("{}", shown(path, mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All that is wrong, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

impl Config {
    /// Reads a configuration file; names all that is wrong with it. Blocks on the disk.
    pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
        read::config(&text)
            .map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
    }

    /// Reads a configuration that is to be all this program's; names all that is wrong with it. Blocks on
    /// the disk.
    pub(crate) fn check(path: &Path) -> Result<Config, ConfigError> {
        let config = Config::load(path)?;
        if config.lacking.is_empty() {
            return Ok(config);
        }
        Err(ConfigError::Mistakes { path: path.to_owned(), mistakes: config.lacking })
    }

    /// Finds where an agent listens that was started with this file, which may have got mistakes
    /// since; says whether it has. A file that cannot be read stands for no agent, unless it is the
    /// one that the agent has when nobody says otherwise. Blocks on the disk.
    pub(crate) fn find_control(path: &Path) -> Result<(PathBuf, bool), ConfigError> {
        match Config::load(path) {
            Ok(config) => Ok((config.control, false)),
            Err(ConfigError::Io { .. }) if path == Path::new(DEFAULT_PATH) => {
                Ok((Config::default().control, true))
            }
            Err(error @ ConfigError::Io { .. }) => Err(error),
            Err(ConfigError::Mistakes { .. }) => {
                let text = fs::read_to_string(path).unwrap_or_default();
                let control = read::control(&text);
                Ok((control.unwrap_or_else(|| Config::default().control), true))
            }
        }
    }
}

impl Default for Config {
    /// What stands in an empty file; good for a host that has none yet.
    fn default() -> Config {
        Config {
            plane: PlaneConfig::default(),
            state_dir: PathBuf::from("/var/lib/postern-agent"),
            control: PathBuf::from("/run/postern-agent/control"),
            commands: Commands::default(),
            log: LogConfig::default(),
            metrics_file: None,
            policy: LocalPolicy::default(),
            targets: Vec::new(),
            lacking: Vec::new(),
        }
    }
}

impl TargetConfig {
    /// The groups that the target is kept equal to, each once.
    pub(crate) fn groups(&self) -> Vec<&GroupRef> {
        let doors = self.kind.as_kind().doors();
        let mut groups: Vec<&GroupRef> = doors.iter().flat_map(|door| door.groups).collect();
        groups.sort();
        groups.dedup();
        groups
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            filter: Targets::new().with_default(LevelFilter::INFO),
            format: LogFormat::Text,
        }
    }
}

impl FromStr for GroupRef {
    type Err = std::convert::Infallible;

    /// Reads an id, a number, or whatever else as a name.
    fn from_str(text: &str) -> Result<GroupRef, Self::Err> {
        Ok(if let Ok(id) = text.parse() {
            GroupRef::Id(id)
        } else if let Ok(number) = text.parse() {
            GroupRef::Number(number)
        } else {
            GroupRef::Name(text.to_owned())
        })
    }
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupRef::Id(id) => id.fmt(f),
            GroupRef::Number(number) => number.fmt(f),
            GroupRef::Name(name) => f.write_str(name),
        }
    }
}

fn shown(path: &Path, mistakes: &[Mistake]) -> String {
    let line = |mistake: &Mistake| format!("{}:{mistake}", path.display());
    mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
}
