//! One agent with a target of every kind: what it takes while all of them work, and what it costs the
//! firewall of the host itself when all others hang.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Builder;

use crate::daemon::{Daemon, wait_for};
use crate::fake::{FakeCloudflare, List, Temper};
use crate::figure::{Figure, Times};
use crate::lab::Lab;
use crate::moto::Moto;
use crate::server::{self, TOKEN};

const LIST: &str = "0000000000000000000000000000c1d0";
const ACCOUNT: &str = "0000000000000000000000000000acc0";
const ALL: [&str; 8] = ["gate", "file", "ipset", "ufw", "edge", "lists", "items", "rules"];
/// What a load needed for the moment is given back some seconds after it.
const SETTLED: Duration = Duration::from_secs(10);
/// How often the firewall is measured alone and beside those that hang.
const ROUNDS: usize = 5;

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = folder.join("targets");
    let mut lab = Lab::start(&folder)?;

    // The fake, for as long as this lives.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (moto, fake) = (Moto::start(), FakeCloudflare::new(1, Temper::default()));
    fake.state().lists.insert(LIST.to_owned(), List::new());
    let others = Others {
        group: runtime.block_on(moto.make_group()),
        list: runtime.block_on(moto.make_list("IPv4")),
        folder: folder.clone(),
    };
    let token = folder.join("token");
    fs::write(&token, TOKEN)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let cloudflare = runtime.block_on(server::serve(&fake));
    lab.configure(&others.commands("commands"), &others.targets(&moto.url, &cloudflare))?;
    let unit = commands(&folder)?;
    lab.follow_anew()?;
    lab.wait_for_targets(&ALL)?;
    lab.beacons()?;
    lab.wait_for_targets(&ALL)?;
    thread::sleep(SETTLED);
    let taken = lab.agent().resident_mib()?;
    drop((unit, moto));

    // Each takes questions and never answers.
    let (providers, silent) =
        (TcpListener::bind("127.0.0.1:0")?, UnixListener::bind(folder.join("silent"))?);
    let provider = format!("http://{}", providers.local_addr()?);
    // In turns: what else the machine does in a moment is to weigh on both.
    let (mut alone, mut beside) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        lab.configure("", "")?;
        lab.follow_anew()?;
        lab.wait_for_targets(&["gate"])?;
        alone.extend(lab.beacons()?);

        lab.configure(&others.commands("silent"), &others.targets(&provider, &provider))?;
        lab.follow_anew()?;
        lab.wait_for_targets(&["gate"])?;
        let _asked = (providers.accept()?, silent.accept()?);
        beside.extend(lab.beacons()?);
    }
    Ok(vec![
        Figure::new("agent_eight_targets_mib", taken, "MiB"),
        Figure::new("beacon_to_kernel_beside_hanging_p99_ms", beside.quantile_ms(0.99), "ms")
            .with_floor(alone.quantile_ms(0.99)),
    ])
}

/// One target of each kind but nftables.
struct Others {
    folder: PathBuf,
    /// The security group at moto.
    group: String,
    /// The prefix list there.
    list: String,
}

impl Others {
    /// The line of the configuration that says who runs commands.
    fn commands(&self, socket: &str) -> String {
        format!("commands: {}\n", self.folder.join(socket).display())
    }

    fn targets(&self, aws: &str, cloudflare: &str) -> String {
        let Others { folder, group, list } = self;
        let folder = folder.display();
        let aws = format!("region: eu-west-1, endpoint: {aws}, groups: [bench]");
        let cloudflare = format!(
            "endpoint: \"{cloudflare}\", token_file: {folder}/token, calls_per_minute: 60, \
             account_id: \"{ACCOUNT}\", groups: [bench]"
        );
        let file = format!("path: {folder}/list, format: text, reload: [/bin/true]");
        [
            format!("{{ name: file, type: file, {file}, groups: [bench] }}"),
            "{ name: ipset, type: ipset, v4_set: friends, groups: [bench] }".to_owned(),
            "{ name: ufw, type: ufw, ports: [22/tcp], groups: [bench] }".to_owned(),
            format!(
                "{{ name: edge, type: aws_security_group, group_id: {group}, ports: [22/tcp], {aws} }}"
            ),
            format!("{{ name: lists, type: aws_prefix_list, v4_list: {list}, {aws} }}"),
            format!("{{ name: items, type: cloudflare_list, list_id: \"{LIST}\", {cloudflare} }}"),
            format!("{{ name: rules, type: cloudflare_access_rule, {cloudflare} }}"),
        ]
        .map(|target| format!("  - {target}\n"))
        .concat()
    }
}

/// The unit that runs commands, with ufw's files as they are installed, in mounts of its own.
fn commands(folder: &Path) -> anyhow::Result<Daemon> {
    let path = folder.to_str().context("the path is text")?;
    crate::run("cp", &["-a", "/etc/ufw", &format!("{path}/ufw")])?;
    crate::run("cp", &["-a", "/etc/default/ufw", &format!("{path}/default")])?;
    let script = "mount --bind $0/ufw /etc/ufw; mount --bind $0/default /etc/default/ufw; \
                  mount -t tmpfs none /run; ufw --force enable; exec \"$@\"";
    let before = ["unshare", "--mount", "sh", "-ec", script, path];
    let me = rustix::process::geteuid().as_raw().to_string();
    let (config, log) = (format!("{path}/agent.yaml"), folder.join("commands.log"));
    let words = ["commands", "--for", &me];
    let unit = Daemon::start_within(&before, "postern-agent", &words, &config, &log)?;
    wait_for("the unit of commands", || UnixStream::connect(folder.join("commands")).is_ok())?;
    Ok(unit)
}
