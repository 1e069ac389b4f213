//! What the agent has done for it that needs more rights than it has: programs that the local
//! configuration names, and those of `ipset` and `ufw`.
//!
//! The agent says a target's name and a [`Deed`]; whoever carries it out takes everything else from
//! the local configuration. That is the unit `postern-agent-commands`, at its Unix socket, or the agent
//! itself where the configuration says `commands: here`. No shell is involved, every program has an
//! absolute path, an environment of ours and a time limit.

mod client;
mod program;
pub(crate) mod serve;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use postern_shared::error::chain;
use postern_shared::network::Network;
use serde::{Deserialize, Serialize};

pub use program::ProgramError;

use crate::target::TargetError;
use crate::target::ipset::{self, IpsetConfig};
use crate::target::ufw::{self, UfwConfig};

/// Who runs programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commands {
    /// This process.
    Here,
    /// The unit that listens at this socket.
    Unit(PathBuf),
}

/// A program, as the configuration names it or a kind of target knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its path and its arguments.
    pub argv: Vec<String>,
    /// How long it may take; then it is killed, with all that it has started.
    pub limit: Duration,
}

/// What is to be done for a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Deed {
    /// Run the command that has a program read its file.
    Reload {},
    /// Say what a set holds.
    IpsetRead {
        /// Which of the sets: 4 or 6.
        family: u8,
    },
    /// Change sets.
    IpsetWrite {
        /// How.
        changes: Vec<ipset::Change>,
    },
    /// Say which rules there are.
    UfwRead {},
    /// Change rules.
    UfwWrite {
        /// How.
        change: ufw::Change,
    },
}

/// What the configuration lets be done for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trade {
    /// Its reload command.
    Reload(Program),
    /// Its sets.
    Ipset(IpsetConfig),
    /// Its rules.
    Ufw(UfwConfig),
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The unit is not there, or does not answer.
    #[error("postern-agent-commands does not answer at {}", socket.display())]
    Unit {
        /// Where it was asked.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Whoever was asked says no; with its words.
    #[error("{0}")]
    Refused(String),
    /// It was done in part: what is left is to be looked at again.
    #[error("it was done in part")]
    Unfinished,
}

impl Program {
    /// How long a program may take where nobody says otherwise.
    pub const LIMIT: Duration = Duration::from_secs(20);
    /// The longest limit in seconds: a reload that fails is run once more, and both must end while a
    /// target may still be busy.
    pub const LIMIT_SECS_MAX: u64 = 30;

    /// Runs the program with `input`; answers what it prints.
    pub(crate) async fn run(&self, input: &str) -> Result<String, ProgramError> {
        program::run(self, input.as_bytes()).await
    }
}

impl Commands {
    /// Where the unit listens when nobody says otherwise.
    pub(crate) const SOCKET: &str = "/run/postern-agent-commands/socket";

    /// Has a deed done for a target; answers what the program printed.
    pub(crate) async fn carry_out(
        &self,
        target: &str,
        trade: &Trade,
        deed: &Deed,
    ) -> Result<String, CommandError> {
        match self {
            Commands::Here => trade.carry_out(deed).await,
            Commands::Unit(socket) => client::ask(socket, target, deed).await,
        }
    }
}

impl Trade {
    /// Does it in this process. What the trade does not know is refused.
    async fn carry_out(&self, deed: &Deed) -> Result<String, CommandError> {
        match (self, deed) {
            (Trade::Reload(program), Deed::Reload {}) => Ok(program.run("").await?),
            (Trade::Ipset(config), Deed::IpsetRead { family }) => config.read(*family).await,
            (Trade::Ipset(config), Deed::IpsetWrite { changes }) => config.write(changes).await,
            (Trade::Ufw(config), Deed::UfwRead {}) => config.read().await,
            (Trade::Ufw(config), Deed::UfwWrite { change }) => config.write(change).await,
            (Trade::Reload(_) | Trade::Ipset(_) | Trade::Ufw(_), _) => {
                Err(CommandError::Refused("this is nothing that the target has done".to_owned()))
            }
        }
    }
}

impl Deed {
    /// The networks that it would open.
    pub(crate) fn opens(&self) -> Vec<Network> {
        match self {
            Deed::Reload {} | Deed::IpsetRead { .. } | Deed::UfwRead {} => Vec::new(),
            Deed::IpsetWrite { changes } => {
                changes.iter().flat_map(|change| change.put.iter().map(|(net, _)| *net)).collect()
            }
            Deed::UfwWrite { change } => change.put.iter().map(|(network, _)| *network).collect(),
        }
    }
}

impl Default for Commands {
    fn default() -> Commands {
        Commands::Unit(PathBuf::from(Commands::SOCKET))
    }
}

impl FromStr for Commands {
    type Err = String;

    fn from_str(text: &str) -> Result<Commands, String> {
        match text {
            "here" => Ok(Commands::Here),
            path if path.starts_with('/') => Ok(Commands::Unit(PathBuf::from(path))),
            other => Err(format!(
                "is `{other}`; write `here`, or the socket of postern-agent-commands such as {}",
                Commands::SOCKET
            )),
        }
    }
}

impl From<CommandError> for TargetError {
    fn from(error: CommandError) -> TargetError {
        match error {
            CommandError::Unit { socket, source } => TargetError::Unreachable {
                step: format!(
                    "postern-agent-commands does not answer at {}; enable postern-agent-commands.service, \
                     or write `commands: here`",
                    socket.display()
                ),
                source,
            },
            CommandError::Unfinished => TargetError::Changed,
            error @ (CommandError::Program(_) | CommandError::Refused(_)) => {
                TargetError::Rejected { reason: chain(&error) }
            }
        }
    }
}
