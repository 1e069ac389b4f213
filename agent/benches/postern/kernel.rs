//! The nftables target against the kernel: one change among many, and a full load beside the same
//! elements as bare netlink messages.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postern_agent::target::Target;
use postern_agent::target::nft::{
    GateConfig, GateTarget, NftOptions, OnExpiry, Ownership, Ports, Protocol, Service,
};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::Plan;
use postern_shared::time::{Expiry, Timestamp};
use tokio::runtime::{Builder, Runtime};

use crate::figure::{Figure, Times};
use crate::raw_netlink;

const ENTRIES: u32 = 100_000;
const CHANGES: u32 = 1_000;
const LOADS: usize = 5;
/// The kernel destroys what was deleted in the background; what is measured must not run beside.
const DESTROYED: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// What is loaded: the entries as the target takes them, and the keys as the kernel does.
struct Load {
    networks: Vec<Network>,
    keys: Vec<Vec<u8>>,
}

pub(crate) fn figures(_folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (hosts, networks) = (hosts(), networks());
    let (change_host, load_hosts) =
        measure(&runtime, &hosts, |n| Network::host(Ipv4Addr::from(0x0b00_0000 + n).into()))?;
    let (change_network, load_networks) =
        measure(&runtime, &networks, |n| v6_network(ENTRIES + n))?;
    Ok(vec![
        Figure::new("change_one_host_p99_ms", change_host.quantile_ms(0.99), "ms"),
        Figure::new("change_one_network_p99_ms", change_network.quantile_ms(0.99), "ms"),
        Figure::new("load_100k_hosts_s", load_hosts.0, "s").with_floor(load_hosts.1),
        Figure::new("load_100k_networks_s", load_networks.0, "s").with_floor(load_networks.1),
    ])
}

/// Times full loads beside their floor, in turn, then single changes; answers the changes, and
/// the medians of loads and floors in seconds.
fn measure(
    runtime: &Runtime,
    load: &Load,
    extra: impl Fn(u32) -> Network,
) -> anyhow::Result<(Times, (f64, f64))> {
    let (mut ours, mut floor) = (Times::default(), Times::default());
    let mut gate = runtime.block_on(installed())?;
    let expiry = Expiry::At(now().saturating_add(HOUR));
    for _ in 0..LOADS {
        std::thread::sleep(DESTROYED);
        floor.push(raw_netlink::load(&load.keys)?);
        runtime.block_on(gate.flush())?;
        std::thread::sleep(DESTROYED);
        let add = load.networks.iter().map(|network| (*network, expiry)).collect();
        let plan = plans(Plan { add, ..Plan::default() });
        let start = Instant::now();
        runtime.block_on(gate.apply(&plan, now()))?;
        ours.push(start.elapsed());
    }
    let mut changes = Times::default();
    for change in 0..CHANGES {
        let network = extra(change);
        let add = plans(Plan { add: [(network, expiry)].into(), ..Plan::default() });
        let remove = plans(Plan { remove: [(network, expiry)].into(), ..Plan::default() });
        for plan in [add, remove] {
            let start = Instant::now();
            runtime.block_on(gate.apply(&plan, now()))?;
            changes.push(start.elapsed());
        }
    }
    runtime.block_on(gate.purge())?;
    let seconds = |times: Times| times.quantile_ms(0.5) / 1_000.0;
    Ok((changes, (seconds(ours), seconds(floor))))
}

/// A gate that is in the kernel, with nothing on its list.
async fn installed() -> anyhow::Result<GateTarget> {
    let config = GateConfig {
        table: "postern".to_owned(),
        services: vec![Service {
            name: "web".to_owned(),
            ports: vec![Ports { protocol: Protocol::Tcp, first: 443, last: 443 }],
            groups: vec![group()],
        }],
        failsafe: Vec::new(),
        on_expiry: OnExpiry::Drain,
        ownership: Ownership::Auto,
    };
    let mut gate = GateTarget::new("gate", config, NftOptions::default())?;
    gate.refresh(now()).await?;
    gate.apply(&plans(Plan::default()), now()).await?;
    Ok(gate)
}

fn plans(plan: Plan) -> BTreeMap<GroupId, Plan> {
    [(group(), plan)].into()
}

fn group() -> GroupId {
    GroupId::from_random([1; 16])
}

/// Every other address of 10.0.0.0/8, in no order: reports do not come sorted.
fn hosts() -> Load {
    let addresses: Vec<Ipv4Addr> =
        shuffled().into_iter().map(|n| Ipv4Addr::from(0x0a00_0000 + n * 2)).collect();
    Load {
        networks: addresses.iter().map(|address| Network::host((*address).into())).collect(),
        keys: addresses.into_iter().map(raw_netlink::v4).collect(),
    }
}

/// Every other /64 of 2001:db8::/32.
fn networks() -> Load {
    let networks: Vec<Network> = shuffled().into_iter().map(v6_network).collect();
    let key = |network: &Network| match network.address() {
        std::net::IpAddr::V4(v4) => raw_netlink::v4(v4),
        std::net::IpAddr::V6(v6) => raw_netlink::v6(v6),
    };
    Load { keys: networks.iter().map(key).collect(), networks }
}

fn v6_network(n: u32) -> Network {
    let bits = 0x2001_0db8_u128 << 96 | u128::from(n * 2) << 64;
    Network::containing(Ipv6Addr::from(bits).into(), 64).expect("64 is a prefix of IPv6")
}

fn shuffled() -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..ENTRIES).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..numbers.len()).rev() {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(last, (state >> 33) as usize % (last + 1));
    }
    numbers
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since_epoch)
}
