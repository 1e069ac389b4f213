//! A small internet of network namespaces: three places and a router between them.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where something runs, with the addresses that it has there.
#[derive(Debug)]
pub(crate) struct Place {
    name: &'static str,
    gateway: Ipv4Addr,
    addresses: &'static [Ipv4Addr],
}

/// Runs the control plane.
pub(crate) const PLANE: Place = Place {
    name: "plane",
    gateway: Ipv4Addr::new(192, 0, 2, 1),
    addresses: &[Ipv4Addr::new(192, 0, 2, 2)],
};

/// Runs the agent and the service that it protects.
pub(crate) const HOST: Place = Place {
    name: "host",
    gateway: Ipv4Addr::new(198, 51, 100, 1),
    addresses: &[Ipv4Addr::new(198, 51, 100, 2)],
};

/// Roves: at home it has the first address, in the café the second.
pub(crate) const LAPTOP: Place = Place {
    name: "laptop",
    gateway: Ipv4Addr::new(203, 0, 113, 1),
    addresses: &[Ipv4Addr::new(203, 0, 113, 7), Ipv4Addr::new(203, 0, 113, 99)],
};

const PREFIX: u8 = 24;

impl Place {
    /// The address by which others know this place.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.addresses[0]
    }

    /// The second address of a place that has two.
    pub(crate) fn other_address(&self) -> Ipv4Addr {
        self.addresses[1]
    }

    /// A command that runs `program` in this place.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).args(["--", program]);
        command
    }
}

/// Makes sure that nothing here can reach the network of the machine.
///
/// A fresh network namespace has no interface but the loopback, and the first process of a fresh
/// process namespace takes all others with it when it ends.
pub(crate) fn require_private_namespaces() -> Result<()> {
    let devices = fs::read_to_string("/proc/self/net/dev").context("read /proc/self/net/dev")?;
    let is_private = devices.lines().skip(2).all(|line| line.trim_start().starts_with("lo:"));
    ensure!(
        is_private && std::process::id() == 1,
        "this must run in namespaces of its own: call it by `make demo`"
    );
    Ok(())
}

/// Lays the cables and lets the router forward.
pub(crate) fn build() -> Result<()> {
    // Of this mount namespace only: `ip netns` keeps its names there, and the demo its files.
    run("mount -t tmpfs -o mode=0755 tmpfs /run")?;
    run("ip link set lo up")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("let the router forward")?;
    for place in [PLANE, HOST, LAPTOP] {
        connect(&place).with_context(|| format!("build the namespace `{}`", place.name))?;
    }
    Ok(())
}

fn connect(place: &Place) -> Result<()> {
    let Place { name, gateway, addresses } = place;
    run(&format!("ip netns add {name}"))?;
    run(&format!("ip link add {name} type veth peer name uplink netns {name}"))?;
    run(&format!("ip address add {gateway}/{PREFIX} dev {name}"))?;
    run(&format!("ip link set {name} up"))?;
    for address in *addresses {
        run(&format!("ip -n {name} address add {address}/{PREFIX} dev uplink"))?;
    }
    run(&format!("ip -n {name} link set lo up"))?;
    run(&format!("ip -n {name} link set uplink up"))?;
    run(&format!("ip -n {name} route add default via {gateway}"))
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("a command has a first word")?;
    let output = Command::new(program).args(words).output().with_context(|| line.to_owned())?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
