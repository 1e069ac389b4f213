//! The real binaries, one control plane and one agent, as they run on a host.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use postern_controlplane::domain::{Member, MemberKind, Org};
use postern_controlplane::store::{
    Item, Key, Operation, Options, Purpose, RedbStore, Store, Table, decode, encode,
};
use postern_shared::ids::{GroupId, MemberId};
use postern_shared::network::Network;
use postern_shared::time::Expiry;
use serde_json::Value;
use tokio::runtime::Builder;

use crate::daemon::{Daemon, binary, text, wait_for};
use crate::figure::Times;
use crate::load::{self, Connection};
use crate::monitor::Monitor;
use crate::plane;

const MOVES: u64 = 500;
const ENTRIES: u32 = 100_000;
const PLANE: &str = "127.0.0.1:8080";

/// The agent's own firewall.
const GATE: &str = "  - name: gate
    type: nftables
    gate:
      services:
        - { name: web, ports: [443/tcp], groups: [bench] }
";

/// Both daemons, an org with a group, and a pair in it.
pub(crate) struct Lab {
    folder: PathBuf,
    group: String,
    bookmark: String,
    /// How often the pair has reported; each time from another address.
    rounds: u64,
    agent: Daemon,
    plane: Daemon,
}

impl Lab {
    /// Starts both, with nothing but nftables to keep, in a folder that is not there yet.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Lab> {
        fs::create_dir(folder)?;
        crate::run("ip", &["address", "replace", "192.0.2.1/32", "dev", "lo"])?;
        // The lab before may have left its own.
        crate::run("nft", &["flush", "ruleset"])?;
        let data = folder.join("plane");
        let config = data.join("controlplane.yaml");
        let name = data.to_str().context("the path is text")?;
        let init = ["init", "--data-dir", name, "--public-url", "https://192.0.2.1:8443"];
        let first = ["--org", "bench", "--admin", "admin@example.org"];
        crate::run(&binary("postern-controlplane")?, &[&init[..], &first].concat())?;
        // Agents come over TLS, reports through a proxy whose word on addresses is taken.
        fs::write(
            &config,
            format!(
                "data_dir: {name}\npublic_url: https://192.0.2.1:8443\nlisten:\n  - address: \
                 192.0.2.1:8443\n    tls: {{ certificate: {name}/tls.crt, key: {name}/tls.key }}\n  \
                 - address: {PLANE}\ntrusted_proxies:\n  networks: [127.0.0.0/8]\n  header: \
                 X-Forwarded-For\nlimits:\n  writes_per_minute: 100000\n  moves_per_hour: 100000\n"
            ),
        )?;
        let config = config.to_str().context("the path is text")?.to_owned();
        let ask = |args: &[&str]| -> anyhow::Result<Value> {
            let args = [args, &["--config", &config, "--json"]].concat();
            let printed = crate::run(&binary("postern-controlplane")?, &args)?;
            Ok(serde_json::from_str(&printed)?)
        };
        let plane = serve(folder)?;
        let group = ask(&["group", "add", "bench"])?;
        let pair = ask(&["pair", "add", "laptop"])?;
        ask(&["group", "add-member", "bench", "--pair", "laptop"])?;
        let invitation = ask(&["agent", "invite", "host", "--group", "bench"])?;
        enroll(folder, &text(&invitation, "invitation")?)?;
        let lab = Lab {
            group: text(&group, "id")?,
            bookmark: text(&pair, "bookmark")?,
            folder: folder.to_owned(),
            rounds: 0,
            agent: follow(folder)?,
            plane,
        };
        lab.wait_for_targets(&["gate"])?;
        Ok(lab)
    }

    /// The agent's process.
    pub(crate) fn agent(&self) -> &Daemon {
        &self.agent
    }

    /// Stops the agent. From its next start on it keeps these targets as well, none for nftables
    /// alone; `more` is what else its configuration says.
    pub(crate) fn configure(&mut self, more: &str, targets: &str) -> anyhow::Result<()> {
        self.agent.stop()?;
        configure(&self.folder, more, targets)
    }

    /// Starts the agent again.
    pub(crate) fn follow_anew(&mut self) -> anyhow::Result<()> {
        self.agent = follow(&self.folder)?;
        Ok(())
    }

    /// Waits until the agent says that these targets are as the lists say.
    pub(crate) fn wait_for_targets(&self, names: &[&str]) -> anyhow::Result<()> {
        let mut targets = Value::Null;
        let all = wait_for("all targets", || {
            targets = self.status().map(|status| status["targets"].clone()).unwrap_or_default();
            let found = targets.as_array().map_or(&[][..], Vec::as_slice);
            names.iter().all(|name| {
                let named = found.iter().find(|target| target["name"] == *name);
                named.is_some_and(|target| target["state"] == "in_sync")
            })
        });
        all.with_context(|| targets.to_string())
    }

    /// Reports from ever new addresses; times from the request to the kernel's own word.
    pub(crate) fn beacons(&mut self) -> anyhow::Result<Times> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let server: SocketAddr = PLANE.parse()?;
        let mut client = runtime.block_on(Connection::open(server))?;
        let path = self.bookmark.find("/b/").context("the bookmark is a URL")?;
        let path = &self.bookmark[path..];
        let kernel = Monitor::start()?;
        let mut times = Times::default();
        // The monitor says when it is there by what it tells of.
        wait_for("the kernel's monitor", || {
            self.rounds += 1;
            let request = load::post(path, &plane::address(1, self.rounds).to_string());
            runtime.block_on(client.ask(&request)).is_ok()
                && kernel.said.recv_timeout(Duration::from_millis(200)).is_ok()
        })?;
        for _ in 0..MOVES {
            self.rounds += 1;
            let address = plane::address(1, self.rounds).to_string();
            let start = Instant::now();
            runtime.block_on(client.ask(&load::post(path, &address)))?;
            times.push(kernel.wait_for(&address)? - start);
        }
        Ok(times)
    }

    /// Starts the control plane again with 100,000 fixed networks more, and waits until the
    /// kernel has them.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        self.plane.stop()?;
        add_members(&self.folder.join("plane"), self.group.parse()?)?;
        self.plane = serve(&self.folder)?;
        wait_for("100,000 entries in the kernel", || {
            self.status()
                .is_ok_and(|status| status.to_string().contains(&(ENTRIES + 1).to_string()))
        })
    }

    /// What the agent says of itself, whether all is well or not.
    fn status(&self) -> anyhow::Result<Value> {
        let agent = &self.agent;
        let mut status = Command::new(&agent.program);
        status.args(["status", "--config", &agent.config, "--json"]);
        Ok(serde_json::from_slice(&status.output()?.stdout)?)
    }
}

/// Writes members straight into the store of a control plane that does not run: one by one over
/// the API they would take as many commits.
fn add_members(data: &Path, group: GroupId) -> anyhow::Result<()> {
    const BATCH: u32 = 500;
    let mut store = RedbStore::open(&data.join("postern.redb"), Options::default())?;
    let mut org = None;
    store.load(&mut |record| {
        if record.key.table == Table::Orgs {
            org = Some(decode::<Org>(&record.value)?.id);
        }
        Ok(())
    })?;
    let org = org.context("there is an org")?;
    let at = store.high_water();
    for first in (0..ENTRIES).step_by(BATCH as usize) {
        let items = (first..first + BATCH).map(|n| {
            let id = MemberId::from_random(u128::from(n + 1).to_be_bytes());
            let network = Network::host(Ipv4Addr::from(0x0a00_0000 + n * 2).into());
            let kind = MemberKind::Network { network, note: "bench".parse().expect("a label") };
            let member = Member { id, org, group, kind, expires: Expiry::Never, added_at: at };
            let key = Key::new(Table::Members, [&group.as_bytes()[..], id.as_bytes()].concat());
            Item {
                preconditions: Vec::new(),
                operations: vec![Operation::Put(key, encode(&member))],
            }
        });
        store.commit(&items.collect::<Vec<_>>(), Purpose::Ordinary, at)?;
    }
    Ok(())
}

fn configure(folder: &Path, more: &str, targets: &str) -> anyhow::Result<()> {
    let path = folder.display();
    let text = format!(
        "state_dir: {path}/agent\ncontrol: {path}/agent/control\n{more}targets:\n{GATE}{targets}"
    );
    fs::write(folder.join("agent.yaml"), text)?;
    Ok(())
}

fn enroll(folder: &Path, invitation: &str) -> anyhow::Result<()> {
    configure(folder, "", "")?;
    let mut enroll = Command::new(binary("postern-agent")?)
        .args(["enroll", "--config"])
        .arg(folder.join("agent.yaml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut input = enroll.stdin.take().context("standard input is a pipe")?;
    input.write_all(invitation.as_bytes())?;
    drop(input);
    anyhow::ensure!(enroll.wait()?.success(), "the agent could not enrol");
    Ok(())
}

fn follow(folder: &Path) -> anyhow::Result<Daemon> {
    let config = folder.join("agent.yaml");
    let config = config.to_str().context("the path is text")?;
    Daemon::start("postern-agent", &["run"], config, &folder.join("agent.log"))
}

fn serve(folder: &Path) -> anyhow::Result<Daemon> {
    let config = folder.join("plane/controlplane.yaml");
    let config = config.to_str().context("the path is text")?;
    let log = folder.join("controlplane.log");
    let plane = Daemon::start("postern-controlplane", &["serve"], config, &log)?;
    wait_for("the control plane", || TcpStream::connect(PLANE).is_ok())?;
    Ok(plane)
}
