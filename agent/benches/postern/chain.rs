//! The real binaries, one control plane and one agent: from a report to the kernel, and what the
//! agent costs while nothing happens.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
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

use crate::daemon::{Daemon, PATIENCE, binary, text, wait_for};
use crate::figure::{Figure, Times};
use crate::floors;
use crate::load::{self, Connection};
use crate::plane;

const MOVES: u64 = 500;
const ENTRIES: u32 = 100_000;
const IDLE: Duration = Duration::from_secs(30);
/// What a load needed for the moment is given back some seconds after it.
const SETTLED: Duration = Duration::from_secs(10);
const PLANE: &str = "127.0.0.1:8080";

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let mut lab = Lab::start(folder)?;
    let disk = floors::fdatasync(folder, 1_000)?;
    let (beacons, after) = (lab.beacons()?, floors::fdatasync(folder, 1_000)?);
    let floor = |part| disk.quantile_ms(part).max(after.quantile_ms(part));
    let mut figures = vec![
        Figure::new("beacon_to_kernel_p50_ms", beacons.quantile_ms(0.5), "ms")
            .with_floor(floor(0.5)),
        Figure::new("beacon_to_kernel_p99_ms", beacons.quantile_ms(0.99), "ms")
            .with_floor(floor(0.99)),
    ];
    let before = lab.agent.cpu()?;
    thread::sleep(IDLE);
    let percent = (lab.agent.cpu()? - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    figures.push(Figure::new("agent_idle_mib", lab.agent.resident_mib()?, "MiB"));
    figures.push(Figure::new("agent_idle_cpu_percent", percent, "%"));
    lab.fill()?;
    thread::sleep(SETTLED);
    figures.push(Figure::new("agent_100k_mib", lab.agent.resident_mib()?, "MiB"));
    Ok(figures)
}

/// Both daemons, an org with a group, and a pair in it.
struct Lab {
    folder: PathBuf,
    group: String,
    bookmark: String,
    agent: Daemon,
    plane: Daemon,
}

impl Lab {
    fn start(folder: &Path) -> anyhow::Result<Lab> {
        let folder = folder.join("chain");
        fs::create_dir(&folder)?;
        crate::run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"])?;
        let data = folder.join("plane");
        let config = data.join("controlplane.yaml");
        let name = data.to_str().context("the path is text")?;
        crate::run(
            &binary("postern-controlplane")?,
            &[
                "init",
                "--data-dir",
                name,
                "--public-url",
                "https://192.0.2.1:8443",
                "--org",
                "bench",
            ]
            .into_iter()
            .chain(["--admin", "admin@example.org"])
            .collect::<Vec<_>>(),
        )?;
        // Agents come over TLS, reports through a proxy whose word on addresses is taken.
        fs::write(
            &config,
            format!(
                "data_dir: {name}\npublic_url: https://192.0.2.1:8443\nlisten:\n  - address: \
                 192.0.2.1:8443\n    tls: {{ certificate: {name}/tls.crt, key: {name}/tls.key }}\n  \
                 - address: {PLANE}\ntrusted_proxies:\n  networks: [127.0.0.0/8]\n  header: \
                 X-Forwarded-For\nlimits:\n  writes_per_minute: 100000\n"
            ),
        )?;
        let config = config.to_str().context("the path is text")?.to_owned();
        let plane = |args: &[&str]| -> anyhow::Result<Value> {
            let args = [args, &["--config", &config, "--json"]].concat();
            let printed = crate::run(&binary("postern-controlplane")?, &args)?;
            Ok(serde_json::from_str(&printed)?)
        };
        let serve = serve(&folder)?;
        let group = plane(&["group", "add", "bench"])?;
        let pair = plane(&["pair", "add", "laptop"])?;
        plane(&["group", "add-member", "bench", "--pair", "laptop"])?;
        let invitation = plane(&["agent", "invite", "host", "--group", "bench"])?;
        let agent = agent(&folder, &invitation)?;
        Ok(Lab {
            group: text(&group, "id")?,
            bookmark: text(&pair, "bookmark")?,
            folder,
            agent,
            plane: serve,
        })
    }

    /// Reports from ever new addresses; times from the request to the kernel's own word.
    fn beacons(&self) -> anyhow::Result<Times> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let server: SocketAddr = PLANE.parse()?;
        let mut client = runtime.block_on(Connection::open(server))?;
        let path = self.bookmark.find("/b/").context("the bookmark is a URL")?;
        let path = &self.bookmark[path..];
        let kernel = Monitor::start()?;
        let mut times = Times::default();
        let mut round = 0;
        // The monitor says when it is there by what it tells of.
        wait_for("the kernel's monitor", || {
            round += 1;
            let request = load::post(path, &plane::address(1, round).to_string());
            runtime.block_on(client.ask(&request)).is_ok()
                && kernel.said.recv_timeout(Duration::from_millis(200)).is_ok()
        })?;
        for round in round..round + MOVES {
            let address = plane::address(1, round + 1).to_string();
            let start = Instant::now();
            runtime.block_on(client.ask(&load::post(path, &address)))?;
            times.push(kernel.wait_for(&address)? - start);
        }
        Ok(times)
    }

    /// Starts the control plane again with 100,000 fixed networks more, and waits until the
    /// kernel has them.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.plane.stop()?;
        add_members(&self.folder.join("plane"), self.group.parse()?)?;
        self.plane = serve(&self.folder)?;
        wait_for("100,000 entries in the kernel", || {
            let status = crate::run(
                &self.agent.program,
                &["status", "--config", &self.agent.config, "--json"],
            );
            status.is_ok_and(|status| status.contains(&(ENTRIES + 1).to_string()))
        })
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

fn agent(folder: &Path, invitation: &Value) -> anyhow::Result<Daemon> {
    let config = folder.join("agent.yaml");
    fs::write(
        &config,
        format!(
            "state_dir: {0}/agent\ncontrol: {0}/agent/control\ntargets:\n  - name: gate\n    \
             type: nftables\n    gate:\n      services:\n        - \
             {{ name: web, ports: [443/tcp], groups: [bench] }}\n",
            folder.display()
        ),
    )?;
    let config = config.to_str().context("the path is text")?;
    let mut enroll = Command::new(binary("postern-agent")?)
        .args(["enroll", "--config", config])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut input = enroll.stdin.take().context("standard input is a pipe")?;
    input.write_all(text(invitation, "invitation")?.as_bytes())?;
    drop(input);
    anyhow::ensure!(enroll.wait()?.success(), "the agent could not enrol");
    let agent = Daemon::start("postern-agent", "run", config, &folder.join("agent.log"))?;
    wait_for("the gate", || crate::run("nft", &["list", "table", "inet", "postern"]).is_ok())?;
    Ok(agent)
}

fn serve(folder: &Path) -> anyhow::Result<Daemon> {
    let config = folder.join("plane/controlplane.yaml");
    let config = config.to_str().context("the path is text")?;
    let log = folder.join("controlplane.log");
    let plane = Daemon::start("postern-controlplane", "serve", config, &log)?;
    wait_for("the control plane", || TcpStream::connect(PLANE).is_ok())?;
    Ok(plane)
}

/// `nft monitor`: what the kernel says of new elements, with the time at which it said so.
struct Monitor {
    child: Child,
    said: Receiver<(Instant, String)>,
}

impl Monitor {
    fn start() -> anyhow::Result<Monitor> {
        let mut child = Command::new("stdbuf")
            .args(["-oL", "nft", "monitor", "new", "elements"])
            .stdout(Stdio::piped())
            .spawn()
            .context("nft (package nftables) and stdbuf (package coreutils) are needed")?;
        let lines = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
        let (say, said) = channel();
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if say.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Monitor { child, said })
    }

    /// Waits until the kernel has an element with this address; answers when it said so.
    fn wait_for(&self, address: &str) -> anyhow::Result<Instant> {
        loop {
            let (at, line) = self.said.recv_timeout(PATIENCE).context("the kernel says nothing")?;
            if line.split(' ').any(|word| word == address) {
                return Ok(at);
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
