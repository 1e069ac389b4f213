//! The control plane and the protected host: their configurations, commands and daemons.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::daemon::{self, Daemon, operate};
use crate::network::{HOST, PLANE};
use crate::witness::PORT;

/// The lifetime of a reported address: short, so that the end can be waited for.
pub(crate) const TTL: Duration = Duration::from_secs(8);

const PLANE_NAME: &str = "plane";
const AGENT_NAME: &str = "agent";
const START_WAIT: Duration = Duration::from_secs(20);
const PLANE_PORT: u16 = 8443;

const PLANE_FOLDER: &str = "/run/plane";
const HOST_FOLDER: &str = "/run/host";

/// The certificate that the control plane made for itself, for whoever wants to check it.
pub(crate) fn certificate() -> PathBuf {
    Path::new(PLANE_FOLDER).join("tls.crt")
}

/// What both daemons said last.
pub(crate) fn last_words() -> String {
    [PLANE_NAME, AGENT_NAME].map(daemon::last_words).concat()
}

/// The machine with the control plane.
#[derive(Debug)]
pub(crate) struct Plane {
    program: PathBuf,
    daemon: Option<Daemon>,
}

/// The machine with the agent and the service.
#[derive(Debug)]
pub(crate) struct Host {
    program: PathBuf,
    daemon: Option<Daemon>,
}

impl Plane {
    /// Makes a control plane from nothing: keys, certificate, store, first org and configuration.
    pub(crate) fn install(programs: &Path) -> Result<Plane> {
        let plane = Plane { program: programs.join("postern-controlplane"), daemon: None };
        let url = format!("https://{}", Plane::address());
        let mut command = PLANE.command(&plane.program.to_string_lossy());
        command.args(["init", "--data-dir", PLANE_FOLDER, "--public-url", &url]);
        command.args(["--org", "Example", "--admin", "admin@example.org"]);
        operate(command, "")?;
        Ok(plane)
    }

    /// Starts the daemon and waits until it takes connections.
    pub(crate) fn start(&mut self) -> Result<()> {
        let configuration = Plane::configuration();
        let arguments = ["serve", "--config", &configuration];
        let mut daemon = Daemon::start(PLANE_NAME, &PLANE, &self.program, &arguments)?;
        daemon.until("listening", START_WAIT, || TcpStream::connect(Plane::address()).is_ok())?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Runs an operator's command on this machine and answers what it says as JSON.
    pub(crate) fn operate(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = PLANE.command(&self.program.to_string_lossy());
        command.args(arguments).args(["--json", "--config", &Plane::configuration()]);
        serde_json::from_slice(&operate(command, "")?).context("read the command's JSON")
    }

    /// Makes a pair and answers its bookmark.
    pub(crate) fn add_pair(&self, name: &str) -> Result<String> {
        let ttl = format!("{}s", TTL.as_secs());
        secret(&self.operate(&["pair", "add", name, "--ttl", &ttl])?, "bookmark")
    }

    /// Makes a group with a pair in it.
    pub(crate) fn add_group(&self, name: &str, pair: &str) -> Result<()> {
        self.operate(&["group", "add", name])?;
        self.operate(&["group", "add-member", name, "--pair", pair])?;
        Ok(())
    }

    /// Makes an invitation for one host that may follow one group.
    pub(crate) fn invite(&self, name: &str, group: &str) -> Result<String> {
        secret(&self.operate(&["agent", "invite", name, "--group", group])?, "invitation")
    }

    /// Ends the daemon without a chance to tidy up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the control plane is not running")?.kill()
    }

    fn address() -> SocketAddr {
        SocketAddr::from((PLANE.address(), PLANE_PORT))
    }

    fn configuration() -> String {
        format!("{PLANE_FOLDER}/controlplane.yaml")
    }
}

impl Host {
    /// Writes the configuration and enrols the host.
    pub(crate) fn install(programs: &Path, invitation: &str) -> Result<Host> {
        fs::create_dir(HOST_FOLDER).context("make the host's folder")?;
        let host = Host { program: programs.join("postern-agent"), daemon: None };
        let configuration = format!(
            "state_dir: {HOST_FOLDER}/state\n\
             control: {HOST_FOLDER}/control\n\
             targets:\n\
             - name: gate\n\
             \x20 type: nftables\n\
             \x20 gate:\n\
             \x20   services:\n\
             \x20   - {{name: database, ports: [{PORT}/tcp], groups: [developers]}}\n"
        );
        fs::write(Host::configuration(), configuration)?;
        host.enroll(invitation)?;
        Ok(host)
    }

    /// Starts the agent and waits until the kernel is as the control plane wants it.
    pub(crate) fn start(&mut self) -> Result<()> {
        let configuration = Host::configuration();
        let arguments = ["run", "--config", &configuration];
        let mut daemon = Daemon::start(AGENT_NAME, &HOST, &self.program, &arguments)?;
        daemon.until("in sync", START_WAIT, || self.is_in_sync().unwrap_or(false))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the daemon without a chance to tidy up.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("the agent is not running")?.kill()
    }

    /// Asks the agent whether it follows the control plane and the kernel is equal to its lists.
    fn is_in_sync(&self) -> Result<bool> {
        let mut command = HOST.command(&self.program.to_string_lossy());
        command.args(["status", "--json", "--config", &Host::configuration()]);
        let status: Value = serde_json::from_slice(&operate(command, "")?)?;
        let follows = status["plane"]["link"] == "stream";
        Ok(follows && status["targets"][0]["state"] == "in_sync")
    }

    fn enroll(&self, invitation: &str) -> Result<()> {
        let mut command = HOST.command(&self.program.to_string_lossy());
        command.args(["enroll", "--config", &Host::configuration()]);
        operate(command, invitation)?;
        Ok(())
    }

    fn configuration() -> String {
        format!("{HOST_FOLDER}/agent.yaml")
    }
}

/// Reads a secret that a command tells once.
fn secret(answer: &Value, name: &str) -> Result<String> {
    answer[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {answer}"))
}
