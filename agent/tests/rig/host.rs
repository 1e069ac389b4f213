//! The protected host: its configuration, and the agent's program.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postern_shared::ids::GroupId;
use serde_json::Value;
use tempfile::TempDir;

use super::{clients::DOOR, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_postern-agent");
/// Always let in, whatever any list says.
pub(crate) const FAILSAFE: &str = "203.0.113.250";
/// Lines of the log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// A host with a configuration and, once enrolled, a credential.
pub(crate) struct Host {
    dir: TempDir,
    config: PathBuf,
    policy: String,
}

/// A running agent; killed when dropped.
pub(crate) struct Agent(Child);

impl Host {
    /// Writes the configuration; `policy` are lines below `policy:`.
    pub(crate) fn new(policy: &str) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("agent.yaml");
        let host = Host { dir, config, policy: policy.to_owned() };
        host.configure(None);
        host
    }

    /// Writes the configuration anew, with another address of the plane where one is given.
    pub(crate) fn configure(&self, plane: Option<&str>) {
        let dir = self.dir.path().display();
        let plane = plane.map(|url| format!("plane:\n  url: {url}\n")).unwrap_or_default();
        let policy = match self.policy.as_str() {
            "" => String::new(),
            policy => format!("policy:\n  {policy}\n"),
        };
        let text = format!(
            "{plane}state_dir: {dir}/state\ncontrol: {dir}/control\n\
             log:\n  filter: info,postern_agent=debug\nfailsafe: [{FAILSAFE}]\n{policy}\
             targets:\n  - name: fw\n    type: nftables\n    gate:\n      services:\n\
             \x20       - name: door\n          ports: [{DOOR}/tcp]\n          groups: [web]\n"
        );
        fs::write(&self.config, text).unwrap();
    }

    /// Adds targets to the configuration, and lines above all of it.
    pub(crate) fn add_targets(&self, above: &str, targets: &str) {
        let text = fs::read_to_string(&self.config).unwrap();
        fs::write(&self.config, format!("{above}\n{text}{targets}")).unwrap();
    }

    /// Where the agent keeps what it must not forget.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where the agent's lists are on the disk.
    pub(crate) fn list_file(&self, group: GroupId) -> PathBuf {
        self.state_dir().join("lists").join(format!("{group}.list"))
    }

    /// Waits until the list on the disk has an entry for `network`.
    pub(crate) fn saves(&self, group: GroupId, network: &str) {
        eventually("the list is on the disk", || {
            fs::read_to_string(self.list_file(group)).is_ok_and(|list| list.contains(network))
        });
    }

    /// A file of the host's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the agent logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Waits until the agent has logged a line of this level with these words.
    pub(crate) fn logs(&self, level: &str, words: &str) {
        eventually(&format!("logged at{level}is: {words}"), || {
            self.log().lines().any(|line| line.contains(level) && line.contains(words))
        });
    }

    /// Trades an invitation for a credential, as an operator does.
    pub(crate) fn enrol(&self, invitation: &str) {
        let mut child = self.command(&["enroll"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(invitation.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the agent.
    pub(crate) fn start(&self) -> Agent {
        let mut command = Command::new(PROGRAM);
        self.spawn(command.args(self.run_line()))
    }

    /// Starts the agent through another program, which has to become it.
    pub(crate) fn start_through(&self, wrapper: &[&str]) -> Agent {
        let mut command = Command::new(wrapper[0]);
        self.spawn(command.args(&wrapper[1..]).arg(PROGRAM).args(self.run_line()))
    }

    fn run_line(&self) -> [&std::ffi::OsStr; 3] {
        ["run".as_ref(), "--config".as_ref(), self.config.as_os_str()]
    }

    fn spawn(&self, command: &mut Command) -> Agent {
        let log = OpenOptions::new().create(true).append(true).open(self.file("log")).unwrap();
        let errors = log.try_clone().unwrap();
        // A group of its own, so that a wrapper and the agent below it end together.
        Agent(
            command
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .process_group(0)
                .spawn()
                .unwrap(),
        )
    }

    /// Starts the agent and waits until it answers.
    pub(crate) fn start_and_wait(&self) -> Agent {
        let agent = self.start();
        eventually("the agent answers", || self.ask(&["status"]).0.is_some());
        agent
    }

    /// Runs a command of the agent's; answers the exit code and what was printed, as JSON. No code
    /// where nobody answered at the socket.
    pub(crate) fn ask(&self, line: &[&str]) -> (Option<i32>, Value) {
        let output = self.command(line).arg("--json").output().unwrap();
        match serde_json::from_slice(&output.stdout) {
            Ok(value) => (output.status.code(), value),
            Err(_) => (None, Value::Null),
        }
    }

    /// What the running agent says of itself.
    pub(crate) fn status(&self) -> Value {
        self.ask(&["status"]).1
    }

    /// Waits until the agent says of itself what is expected.
    pub(crate) fn reports(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut status = Value::Null;
        eventually(what, || {
            status = self.status();
            condition(&status)
        });
        status
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(line).arg("--config").arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let skipped = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
            for line in log.lines().skip(skipped) {
                // Nothing can be done where not even this can be told.
                drop(writeln!(std::io::stderr(), "agent: {line}"));
            }
        }
    }
}

impl Agent {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Tells it by SIGHUP to read its configuration again.
    pub(crate) fn hang_up(&self) {
        let process = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let process = process.expect("a process has an id");
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    }

    /// Ends it with SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Waits for it to end by itself; answers its exit code.
    pub(crate) fn wait(mut self) -> Option<i32> {
        let mut code = None;
        eventually("the agent ends", || {
            let status = self.0.try_wait().unwrap();
            code = status.and_then(|status| status.code());
            status.is_some()
        });
        code
    }

    fn end(&mut self) {
        let group = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let group = group.expect("a process has an id");
        match rustix::process::kill_process_group(group, rustix::process::Signal::KILL) {
            // It may have ended already.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => panic!("the agent cannot be killed: {error}"),
        }
        self.0.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}
