//! The command line.
//!
//! | exit code | meaning |
//! | --- | --- |
//! | 0 | done; `plan`: nothing to change; `why`: the address gets in; `status`: all is well |
//! | 1 | failed; `check`: there are mistakes; `sweep`: something overdue may still be open |
//! | 2 | `plan`: there is something to change |
//! | 3 | the answer is no: `why`: the address does not get in, as far as is known; `status`: something is in trouble |
//! | 64 | the command line is wrong |
//! | 75 | another agent is running with this state directory |
//! | 78 | the configuration or the credential is wrong or missing |

mod offline;
mod output;

use std::io::{BufRead, BufReader, IsTerminal};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use postern_shared::document::Mistake;
use postern_shared::error::chain;
use serde::Serialize;

use self::output::Output;
use crate::cache::Cache;
use crate::commands::{self, Commands};
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::control::protocol::{Confirmed, Flushed, Planned, Reloaded, Request, Why};
use crate::control::{AskError, ask};
use crate::daemon::{self, DaemonError};
use crate::enroll::{self, INVITATION_BYTES_MAX, Invitation};
use crate::firewalls::HostFirewalls;
use crate::status::Status;
use crate::target::file::Who;

const FAILED: u8 = 1;
const CHANGES: u8 = 2;
const NO: u8 = 3;
const USAGE: u8 = 64;
const ALREADY_RUNNING: u8 = 75;
const CONFIGURATION: u8 = 78;

/// Keeps this host's firewall equal to the allowlists that it follows.
#[derive(Debug, Parser)]
#[command(name = "postern-agent", version = VERSION, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Answers in JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trades an invitation, read from standard input, for this host's credential.
    Enroll(Enroll),
    /// Follows the control plane and keeps the targets; runs until it is told to stop.
    Run,
    /// Reads a configuration and names all that is wrong with it.
    Check {
        /// The configuration to read.
        file: PathBuf,
    },
    /// Shows what would change, without changing it; works without a running agent too.
    Plan,
    /// Shows how the agent is.
    Status,
    /// Says whether an address gets in, and why.
    Why {
        /// The address.
        address: IpAddr,
        /// The port, where only its service is asked for.
        #[arg(value_parser = clap::value_parser!(u16).range(1..=65_535))]
        port: Option<u16>,
    },
    /// Empties the targets; what drops packets stays, and so do the fail-safe networks. The agent
    /// keeps them empty until `reload` or a restart.
    Flush,
    /// Takes away what is overdue at targets that do not end it by themselves, by what stands there
    /// alone: for another machine, should the agent be gone. Needs no list, and no running agent.
    Sweep,
    /// Withdraws entries that a new list left out and that the agent held back.
    Accept {
        /// Only of this group: its name, number or id.
        group: Option<String>,
    },
    /// Reads the configuration again, and fills again what was flushed.
    Reload,
    /// Runs what the configuration names for targets that need more rights than the agent has; runs
    /// until it is told to stop.
    Commands {
        /// The user that the agent runs as: who may ask, beside root.
        #[arg(long = "for", value_name = "USER", default_value = "postern-agent")]
        asker: String,
    },
}

#[derive(Debug, Args)]
struct Enroll {
    /// Reads the invitation from this file instead.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Puts the new credential in the place of an older one.
    #[arg(long)]
    replace: bool,
}

const VERSION: &str = match cfg!(feature = "aws") {
    true => concat!(env!("CARGO_PKG_VERSION"), " with aws"),
    false => env!("CARGO_PKG_VERSION"),
};

const EXIT_CODES: &str = "\
Exit codes:
  0   done; plan: nothing to change; why: gets in; status: all is well
  1   failed; check: there are mistakes; sweep: something overdue may still be open
  2   plan: there is something to change
  3   why: does not get in, as far as is known; status: something is in trouble
  64  the command line is wrong
  75  another agent is running with this state directory
  78  the configuration or the credential is wrong or missing";

/// Runs the command line. The caller has installed the TLS provider.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and nobody is left to tell of a closed pipe.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let output = Output { json: cli.common.json };
    ExitCode::from(run(cli.command, &cli.common.config, output).unwrap_or_else(|failure| {
        output.error(&failure.message);
        failure.code
    }))
}

/// Why a command ended early, and with which exit code.
struct Failure {
    code: u8,
    message: String,
}

fn run(command: Command, config: &Path, output: Output) -> Result<u8, Failure> {
    match command {
        Command::Enroll(arguments) => enrol(&arguments, config, output),
        Command::Run => {
            runtime()?.block_on(daemon::run(config.to_owned(), HostFirewalls))?;
            Ok(0)
        }
        Command::Check { file } => Ok(check(&file, output)),
        Command::Plan => plan(config, output),
        Command::Status => {
            let status: Status = ask(&socket(config, output)?, &Request::Status)?;
            output.answer(&status, || output::status(&status));
            Ok(if status.troubles.is_empty() { 0 } else { NO })
        }
        Command::Why { address, port } => {
            let why: Why = ask(&socket(config, output)?, &Request::Why { address, port })?;
            output.answer(&why, || output::why(&why));
            let gets_in = why.verdicts.iter().any(|verdict| verdict.is_open == Some(true));
            Ok(if gets_in { 0 } else { NO })
        }
        Command::Flush => flush(config, output),
        Command::Sweep => sweep(config, output),
        Command::Accept { group } => {
            let done: Confirmed = ask(&socket(config, output)?, &Request::Accept { group })?;
            output.answer(&done, || format!("withdrew {} entries", done.withdrawn));
            Ok(0)
        }
        Command::Reload => {
            let done: Reloaded = ask(&socket(config, output)?, &Request::Reload)?;
            output.answer(&done, || format!("reloaded; {} targets", done.targets));
            Ok(0)
        }
        Command::Commands { asker } => carry_out_commands(config, &asker),
    }
}

fn enrol(arguments: &Enroll, path: &Path, output: Output) -> Result<u8, Failure> {
    // A host is often enrolled before anybody has written its configuration.
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(ConfigError::Io { .. }) if path == Path::new(DEFAULT_PATH) => Config::default(),
        Err(error) => return Err(error.into()),
    };
    let text = match &arguments.from {
        Some(file) => std::fs::File::open(file).and_then(|file| first_line(BufReader::new(file))),
        None => {
            if std::io::stdin().is_terminal() {
                output.note("paste the invitation and press enter");
            }
            first_line(std::io::stdin().lock())
        }
    };
    let text = text.map_err(|error| Failure {
        code: FAILED,
        message: format!("could not read the invitation: {error}"),
    })?;
    let invitation: Invitation =
        text.parse().map_err(|error| Failure { code: FAILED, message: chain(&error) })?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let place = daemon::place(&config);
    let enrolled = runtime()?
        .block_on(enroll::enrol(&invitation, host, place.path(), arguments.replace))
        .map_err(|error| Failure { code: FAILED, message: chain(&error) })?;
    // Only spares the first run a second look: what cannot be saved is told again.
    let saved = Cache::open(&config.state_dir).map(|cache| cache.save_groups(&enrolled.groups));
    if let Err(error) = saved.flatten() {
        output.error(&format!("the names of the groups could not be saved: {error}"));
    }
    let answer = output::Enrolled::new(&enrolled, place.path());
    output.answer(&answer, || answer.to_string());
    Ok(0)
}

fn first_line(source: impl BufRead) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(INVITATION_BYTES_MAX).read_line(&mut text)?;
    Ok(text)
}

fn check(file: &Path, output: Output) -> u8 {
    #[derive(Serialize)]
    struct Checked<'a> {
        file: &'a Path,
        error: Option<String>,
        mistakes: Vec<Placed<'a>>,
    }
    #[derive(Serialize)]
    struct Placed<'a> {
        line: u64,
        column: u64,
        path: &'a str,
        message: &'a str,
    }
    fn placed(mistake: &Mistake) -> Placed<'_> {
        let Mistake { line, column, path, message } = mistake;
        Placed { line: *line, column: *column, path, message }
    }
    match Config::check(file) {
        Ok(config) => {
            let checked = Checked { file, error: None, mistakes: Vec::new() };
            output.answer(&checked, || {
                format!("{}: good; {} targets", file.display(), config.targets.len())
            });
            0
        }
        Err(error) => {
            let mistakes = match &error {
                ConfigError::Mistakes { mistakes, .. } => mistakes.iter().map(placed).collect(),
                ConfigError::Io { .. } => Vec::new(),
            };
            let text = chain(&error);
            let io = mistakes.is_empty().then(|| text.clone());
            output.answer(&Checked { file, error: io, mistakes }, || text);
            FAILED
        }
    }
}

fn plan(path: &Path, output: Output) -> Result<u8, Failure> {
    let planned: Vec<Planned> = match ask(&socket(path, output)?, &Request::Plan) {
        Err(AskError::NotRunning(_)) => {
            let config = Config::load(path)?;
            runtime()?.block_on(offline::plan(&config, &HostFirewalls))?
        }
        other => other?,
    };
    output.answer(&planned, || output::plan(&planned));
    let has_failed = planned.iter().any(|plan| plan.error.is_some());
    let has_changes = planned.iter().any(|plan| !plan.text.is_empty());
    Ok(if has_failed {
        FAILED
    } else if has_changes {
        CHANGES
    } else {
        0
    })
}

fn flush(path: &Path, output: Output) -> Result<u8, Failure> {
    let flushed: Vec<Flushed> = match ask(&socket(path, output)?, &Request::Flush) {
        Err(AskError::NotRunning(_)) => {
            let config = Config::load(path)?;
            runtime()?.block_on(offline::flush(&config, &HostFirewalls))?
        }
        other => other?,
    };
    output.answer(&flushed, || output::flush(&flushed));
    let has_failed = flushed.iter().any(|flush| flush.error.is_some());
    Ok(if has_failed { FAILED } else { 0 })
}

fn sweep(path: &Path, output: Output) -> Result<u8, Failure> {
    let config = Config::load(path)?;
    let sweeps = runtime()?.block_on(offline::sweep(&config));
    output.answer(&sweeps, || output::sweep(&sweeps));
    let has_failed = sweeps.iter().any(|sweep| sweep.error.is_some() || !sweep.left.is_empty());
    Ok(if has_failed { FAILED } else { 0 })
}

fn carry_out_commands(path: &Path, asker: &str) -> Result<u8, Failure> {
    let config = Config::load(path)?;
    crate::log::start(&config.log);
    let failed = |code: u8, message: String| Failure { code, message };
    let Commands::Unit(socket) = config.commands else {
        let why = "the configuration says `commands: here`, so the agent runs them itself";
        return Err(failed(CONFIGURATION, why.to_owned()));
    };
    let asker = Who::from(asker).user();
    let asker = asker.map_err(|error| failed(CONFIGURATION, error.to_string()))?;
    let served = runtime()?.block_on(commands::serve::run(path.to_owned(), &socket, asker));
    served.map_err(|error| {
        failed(FAILED, format!("could not listen at {}: {error}", socket.display()))
    })?;
    Ok(0)
}

/// Where the agent listens. The daemon goes on with what it read last, and so it can be asked while
/// the file has mistakes.
fn socket(path: &Path, output: Output) -> Result<PathBuf, Failure> {
    let (socket, is_wrong) = Config::find_control(path)?;
    if is_wrong {
        let (file, socket) = (path.display(), socket.display());
        output.warning(&format!(
            "{file} has mistakes, which `postern-agent check {file}` names; asking the agent at \
             {socket}, which has an older configuration"
        ));
    }
    Ok(socket)
}

/// One thread: the agent waits nearly always, and every further thread costs memory.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure {
        code: FAILED,
        message: format!("could not start the runtime: {error}"),
    })
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure { code: CONFIGURATION, message: chain(&error) }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Failure {
        Failure { code: FAILED, message: chain(&error) }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Failure {
        let code = match &error {
            DaemonError::Lock(crate::lock::LockError::Held { .. }) => ALREADY_RUNNING,
            DaemonError::Config(_) | DaemonError::Credential(_) => CONFIGURATION,
            DaemonError::Lock(crate::lock::LockError::Io { .. })
            | DaemonError::Client(_)
            | DaemonError::StateDir { .. }
            | DaemonError::Control { .. }
            | DaemonError::Signals(_)
            | DaemonError::Groups(_)
            | DaemonError::TaskEnded => FAILED,
        };
        Failure { code, message: chain(&error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_port_is_refused_with_those_that_are() {
        for port in ["0", "65536"] {
            let refused = Cli::try_parse_from(["postern-agent", "why", "192.0.2.1", port]);

            let error = refused.unwrap_err().to_string();
            assert!(error.contains("1..=65535"), "{error}");
        }
    }
}
