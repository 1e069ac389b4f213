//! The two daemons, as processes that can be killed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::network::Place;

/// How much of a log is shown when something went wrong.
const LOG_LINES_SHOWN: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A program that runs in the background and writes a log.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: &'static str,
    process: Child,
}

/// The folder of the logs, which goes with the mount namespace.
const LOGS: &str = "/run";

impl Daemon {
    /// Starts `program` with `arguments` at a place. What it logs is added to its log.
    pub(crate) fn start(
        name: &'static str,
        place: &Place,
        program: &Path,
        arguments: &[&str],
    ) -> Result<Daemon> {
        let log = log_of(name);
        let output = open_log(&log)?;
        let mut command = place.command(&program.to_string_lossy());
        command.args(arguments).stdout(output.try_clone()?).stderr(output);
        let process = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Daemon { name, process })
    }

    /// Waits until `is_up` says so. Fails early where the daemon ends before that.
    pub(crate) fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut is_up: impl FnMut() -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        while !is_up() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended ({status}) and is not {what}", self.name);
            }
            ensure!(started.elapsed() < within, "{} is not {what} after {within:?}", self.name);
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends the daemon at once, without a chance to tidy up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.kill().with_context(|| format!("kill {}", self.name))?;
        self.process.wait().with_context(|| format!("wait for {} to end", self.name))?;
        Ok(())
    }
}

/// The end of a daemon's log; empty where it never ran.
pub(crate) fn last_words(name: &str) -> String {
    let log = fs::read_to_string(log_of(name)).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines[from..].iter().map(|line| format!("    {name}: {line}\n")).collect()
}

fn log_of(name: &str) -> PathBuf {
    Path::new(LOGS).join(format!("{name}.log"))
}

fn open_log(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).open(path).with_context(|| path.display().to_string())
}

/// Runs a command to its end, gives it `input` to read, and answers its output.
///
/// Secrets go in and out this way: a command line can be read by everybody.
pub(crate) fn operate(mut command: Command, input: &str) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().with_context(|| format!("run {command:?}"))?;
    let mut pipe = process.stdin.take().context("take the command's input")?;
    // A command that does not read has closed its end, and says why by itself.
    drop(pipe.write_all(input.as_bytes()));
    drop(pipe);
    let output = process.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(output.stdout)
}
