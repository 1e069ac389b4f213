//! Daemons of the release build, and what is asked of them.

use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Far beyond what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that ends with this value.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) program: String,
    pub(crate) config: String,
}

impl Daemon {
    pub(crate) fn start(
        program: &str,
        words: &[&str],
        config: &str,
        log: &Path,
    ) -> anyhow::Result<Daemon> {
        Daemon::start_within(&[], program, words, config, log)
    }

    /// The same, run by another command, which becomes it.
    pub(crate) fn start_within(
        before: &[&str],
        program: &str,
        words: &[&str],
        config: &str,
        log: &Path,
    ) -> anyhow::Result<Daemon> {
        let program = binary(program)?;
        let log = File::options().create(true).append(true).open(log)?;
        let line = [before, &[&program], words, &["--config", config]].concat();
        let child = Command::new(line[0])
            .args(&line[1..])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| program.clone())?;
        Ok(Daemon { child, program, config: config.to_owned() })
    }

    /// Starts this program in another part, which a variable of its environment names.
    pub(crate) fn start_self(part: (&str, &str), log: &Path) -> anyhow::Result<Daemon> {
        let program = env::current_exe()?.to_str().context("the path is text")?.to_owned();
        let log = File::options().create(true).append(true).open(log)?;
        let child = Command::new(&program).env(part.0, part.1).stderr(log).spawn()?;
        Ok(Daemon { child, program, config: String::new() })
    }

    /// Asks the daemon to end, and waits until it has.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("the kernel tells resident memory")?
            .parse()?;
        Ok(kib / 1_024.0)
    }

    /// The processor time that the daemon has used, all threads together.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let mut used = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let schedstat = fs::read_to_string(thread?.path().join("schedstat"))?;
            let nanoseconds = schedstat.split(' ').next().unwrap_or_default().parse()?;
            used += Duration::from_nanos(nanoseconds);
        }
        Ok(used)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The release binary of that name, as `make bench` has put it aside: building this program builds
/// others in its place, with what tests need.
pub(crate) fn binary(name: &str) -> anyhow::Result<String> {
    let path = crate::target_folder()?.join("bench").join(name);
    anyhow::ensure!(path.exists(), "{} is missing; run `make bench`", path.display());
    Ok(path.to_str().context("the path is text")?.to_owned())
}

/// The first text under `name`, however deep it lies.
pub(crate) fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    fn find<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
        match value {
            Value::Object(fields) => match fields.get(name) {
                Some(Value::String(text)) => Some(text),
                Some(_) | None => fields.values().find_map(|field| find(field, name)),
            },
            Value::Array(items) => items.iter().find_map(|item| find(item, name)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }
    find(value, name).map(str::to_owned).with_context(|| format!("no `{name}` in {value}"))
}

pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_so() {
        anyhow::ensure!(start.elapsed() < PATIENCE, "{what} did not come in time");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
