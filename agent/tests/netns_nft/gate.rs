//! The gate against a real kernel, with packets and `nft` as witnesses.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::netns::{
    Lab, PATIENCE, Prober, adding, eventually, group, kernel_entries, kernel_sets, list_table, net,
    nft, now, plans, removing, secs, try_run, within,
};
use postern_agent::target::nft::{
    GateConfig, GateTarget, NftOptions, OnExpiry, Ownership, Ports, Protocol, Service,
};
use postern_agent::target::{Refresh, Target};
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Plan, Scope, plan};
use postern_shared::time::{Expiry, Timestamp};

pub(crate) const PORT: u16 = 443;

fn ports(first: u16, last: u16) -> Vec<Ports> {
    let range = |protocol| Ports { protocol, first, last };
    vec![range(Protocol::Tcp), range(Protocol::Udp)]
}

pub(crate) fn config(ownership: Ownership) -> GateConfig {
    GateConfig {
        table: "postern".to_owned(),
        services: vec![Service {
            name: "web".to_owned(),
            ports: ports(PORT, PORT),
            groups: vec![group(1)],
        }],
        failsafe: vec![net("10.99.0.0/16"), net("2001:db8:1:99::/64")],
        on_expiry: OnExpiry::Drain,
        ownership,
    }
}

pub(crate) fn gate(config: GateConfig) -> GateTarget {
    GateTarget::new("gate", config, NftOptions::default()).unwrap()
}

/// A gate that has been read once, as the agent does at its start.
pub(crate) async fn started(config: GateConfig) -> GateTarget {
    let mut gate = gate(config);
    gate.refresh(now()).await.unwrap();
    gate
}

pub(crate) async fn apply(gate: &mut GateTarget, group: GroupId, plan: Plan) {
    gate.apply(&plans(group, plan), now()).await.unwrap();
}

#[tokio::test]
async fn the_kernel_holds_what_was_applied() {
    crate::netns::require();
    let mut gate = gate(config(Ownership::Auto));

    let first = gate.refresh(now()).await.unwrap();
    assert!(list_table("postern").is_empty(), "reading writes nothing");
    assert!(!gate.is_settled());
    let plan = adding(&["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/48"]);
    apply(&mut gate, group(1), plan.clone()).await;

    assert_eq!(first, Refresh::Reread { drift: 0 });
    let kernel = kernel_entries(group(1));
    let networks: Vec<&String> = kernel.keys().collect();
    assert_eq!(networks, ["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/48"]);
    assert!(kernel.values().all(|left| (3590..=3600).contains(left)), "{kernel:?}");
    assert!(gate.is_settled());
    assert_eq!(gate.observed()[&group(1)], plan.add);
    assert_eq!(gate.refresh(now()).await.unwrap(), Refresh::Unchanged);
}

#[tokio::test]
async fn the_rules_are_what_the_preview_says() {
    crate::netns::require();
    let mut gate = started(config(Ownership::Off)).await;
    let plans = plans(group(1), adding(&["192.0.2.7/32", "198.51.100.0/24", "2001:db8::/48"]));
    let preview = gate.preview(&plans);

    gate.apply(&plans, now()).await.unwrap();

    let ours = nft("list chain inet postern prerouting");
    let chain = format!("list chain inet postern allow-{}", group(1));
    let accepts = nft(&chain);
    drop(gate);
    nft("delete table inet postern");
    nft(&preview);
    assert_eq!(nft("list chain inet postern prerouting"), ours);
    assert_eq!(nft(&chain), accepts);
    let objects: Vec<&str> = preview.lines().filter(|line| !line.contains("until")).collect();
    insta::assert_snapshot!(objects.join("\n").replace(&group(1).to_string(), "GROUP"));
}

#[tokio::test]
async fn only_listed_sources_reach_a_protected_port() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    assert!(lab.reaches("10.1.2.3", PORT), "nothing is closed before the first list");

    let plan = adding(&["10.1.2.3/32", "198.51.100.0/24", "2001:db8:1:7::/64"]);
    apply(&mut gate, group(1), plan).await;

    for source in ["10.1.2.3", "198.51.100.9", "2001:db8:1:7::9", "10.99.3.4", "2001:db8:1:99::1"] {
        assert!(lab.reaches(source, PORT), "{source}");
    }
    for source in ["10.1.2.4", "203.0.113.9", "2001:db8:1:8::9", "192.0.2.2", "2001:db8::2"] {
        assert!(!lab.reaches(source, PORT), "{source}");
        assert!(lab.reaches(source, PORT + 1), "other ports are none of ours: {source}");
    }
    apply(&mut gate, group(1), removing(&["10.1.2.3/32"])).await;
    assert!(!lab.reaches("10.1.2.3", PORT));
    assert!(lab.reaches("198.51.100.9", PORT));
}

/// Packets that the gate has dropped.
fn dropped() -> u64 {
    let rules = list_table("postern")
        .into_iter()
        .flat_map(|object| object["rule"]["expr"].as_array().cloned().unwrap_or_default());
    rules.filter_map(|expr| expr["counter"]["packets"].as_u64()).sum()
}

#[tokio::test]
async fn a_new_connection_is_not_taken_for_an_earlier_one_with_its_ports() {
    const CLIENT_PORT: u16 = 40_001;
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["10.1.2.4/32"])).await;
    let listener = TcpListener::bind((crate::netns::HOST_V4, PORT)).unwrap();
    let (goes_on, accepted) = lab.connect("10.1.2.4", &listener);
    for state in ["CLOSE", "ESTABLISHED"] {
        let earlier = format!(
            "-I -p tcp -s 10.1.2.3 -d {} --sport {CLIENT_PORT} --dport {PORT} --state {state} \
             --timeout 600 --status ASSURED,SEEN_REPLY",
            crate::netns::HOST_V4
        );
        crate::netns::run("conntrack", &earlier.split(' ').collect::<Vec<_>>());
        let before = dropped();

        let host = listener.local_addr().unwrap();
        let refused = lab.in_peer(move || crate::netns::knock("10.1.2.3", CLIENT_PORT, host));

        assert!(refused.is_err(), "{state}: {refused:?}");
        eventually("it is dropped", || before < dropped());
        // Whether the kernel kept the earlier one until now is its own affair.
        try_run("conntrack", &["-D", "-s", "10.1.2.3"]);
    }
    apply(&mut gate, group(1), removing(&["10.1.2.4/32"])).await;
    (&goes_on).write_all(b"still here").unwrap();
    let mut heard = [0; 10];
    (&accepted).read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"still here", "what was open goes on");
}

pub(crate) fn list(networks: &[&str]) -> Allowlist {
    networks.iter().map(|text| (net(text), within(secs(3600)))).collect()
}

fn hosts(count: u32) -> Allowlist {
    let host = |number: u32| Network::host(std::net::Ipv4Addr::from(0x0a00_0000 + number).into());
    (0..count).map(|number| (host(number), within(secs(3600)))).collect()
}

/// One pass, as the agent makes it: look, compare, change. Answers how much drift there was.
pub(crate) async fn pass(gate: &mut GateTarget, wanted: &Allowlist) -> usize {
    let now = now();
    let drift = match gate.refresh(now).await.unwrap() {
        Refresh::Unchanged => 0,
        Refresh::Reread { drift } => drift,
    };
    let plan = plan(wanted, &gate.observed()[&group(1)], Scope::All, secs(2), now);
    if !plan.is_empty() || !gate.is_settled() {
        gate.apply(&plans(group(1), plan), now).await.unwrap();
    }
    drift
}

pub(crate) fn networks(list: &Allowlist) -> Vec<String> {
    let mut networks: Vec<String> = list.iter().map(|(network, _)| network.to_string()).collect();
    networks.sort();
    networks
}

pub(crate) fn kernel_networks() -> Vec<String> {
    kernel_entries(group(1)).into_keys().collect()
}

#[tokio::test]
async fn an_entry_closes_at_its_time_with_nobody_around() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    let deadline = now().saturating_add(secs(1));
    let add = BTreeMap::from([
        (net("10.1.2.3"), Expiry::At(deadline)),
        (net("10.1.2.4"), within(secs(3600))),
    ]);
    apply(&mut gate, group(1), Plan { add, ..Plan::default() }).await;
    drop(gate);
    assert!(lab.reaches("10.1.2.3", PORT));

    eventually("the entry closes", || !lab.reaches("10.1.2.3", PORT));

    let closed = now();
    assert!(deadline.since(closed) < Duration::from_millis(100), "early: {closed} {deadline}");
    assert!(closed.since(deadline) < Duration::from_millis(500), "late: {closed} {deadline}");
    assert!(lab.reaches("10.1.2.4", PORT));
}

#[tokio::test]
async fn overlapping_entries_keep_their_own_deadlines() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    let soon = within(Duration::from_millis(700));
    let add = BTreeMap::from([
        (net("10.1.0.0/16"), soon),
        (net("10.1.2.0/24"), within(secs(3600))),
        (net("10.1.2.3/32"), soon),
        (net("2001:db8:1::/48"), within(secs(3600))),
        (net("2001:db8:1:2::/64"), soon),
    ]);
    apply(&mut gate, group(1), Plan { add, ..Plan::default() }).await;
    for source in ["10.1.2.3", "10.1.2.9", "10.1.3.1", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
        assert!(lab.reaches(source, PORT), "{source}");
    }

    eventually("the wide one closes", || !lab.reaches("10.1.3.1", PORT));

    for source in ["10.1.2.3", "10.1.2.9", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
        assert!(lab.reaches(source, PORT), "{source}");
    }
    apply(&mut gate, group(1), removing(&["10.1.2.0/24", "2001:db8:1::/48"])).await;
    for source in ["10.1.2.3", "10.1.2.9", "2001:db8:1:2::1", "2001:db8:1:3::1"] {
        assert!(!lab.reaches(source, PORT), "{source}");
    }
}

#[tokio::test]
async fn a_full_reload_loses_no_packet() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    let hosts = hosts(20_000);
    pass(&mut gate, &hosts).await;
    let prober = Prober::start(&lab, "10.0.0.7", PORT);

    let mut reloads = 0;
    let started = Instant::now();
    while started.elapsed() < secs(2) {
        let renewed = hosts.iter().map(|(network, _)| (network, within(secs(7200))));
        let renew = renewed.collect();
        apply(&mut gate, group(1), Plan { renew, ..Plan::default() }).await;
        reloads += 1;
    }

    let (sent, lost) = prober.stop();
    assert_eq!(lost, 0, "of {sent} in {reloads} reloads");
    assert_eq!(kernel_entries(group(1)).len(), 20_000);
    assert!(kernel_entries(group(1)).values().all(|left| 7100 < *left));
}

#[tokio::test]
async fn a_small_send_buffer_takes_a_large_list_in_steps() {
    let lab = Lab::new();
    let options = NftOptions { send_bytes: Some(32 * 1024), ..NftOptions::default() };
    let mut gate = GateTarget::new("gate", config(Ownership::Auto), options).unwrap();
    let first = hosts(5_000);
    pass(&mut gate, &first).await;
    assert_eq!(kernel_entries(group(1)).len(), 5_000);
    let prober = Prober::start(&lab, "10.0.0.7", PORT);

    let renew = first.iter().map(|(network, _)| (network, within(secs(7200)))).collect();
    apply(&mut gate, group(1), Plan { renew, ..Plan::default() }).await;

    let (sent, lost) = prober.stop();
    assert_eq!(lost, 0, "of {sent}");
    let kernel = kernel_entries(group(1));
    assert_eq!(kernel.len(), 5_000);
    assert!(kernel.values().all(|left| 7100 < *left));
    assert_eq!(kernel_sets("postern").len(), 1, "the old set is gone");
    assert_eq!(gate.refresh(now()).await.unwrap(), Refresh::Unchanged);
}

#[tokio::test]
async fn a_set_grows_with_its_list() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    pass(&mut gate, &hosts(400)).await;
    let prober = Prober::start(&lab, "10.0.0.7", PORT);

    for count in [900, 3_000, 9_000] {
        pass(&mut gate, &hosts(count)).await;
        assert_eq!(kernel_entries(group(1)).len(), usize::try_from(count).unwrap());
    }

    let (sent, lost) = prober.stop();
    assert_eq!(lost, 0, "of {sent}");
    assert!(gate.is_settled());
}

#[tokio::test]
async fn sets_come_and_go_with_the_prefix_lengths_in_use() {
    crate::netns::require();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["192.0.2.7/32"])).await;
    assert_eq!(kernel_sets("postern"), [format!("allow-{}-v4-32", group(1))]);

    let mut plan = adding(&["198.51.100.0/25"]);
    plan.remove = removing(&["192.0.2.7/32"]).remove;
    apply(&mut gate, group(1), plan).await;

    assert_eq!(kernel_sets("postern"), [format!("allow-{}-v4-25", group(1))]);
    assert_eq!(kernel_networks(), ["198.51.100.0/25"]);
    apply(&mut gate, group(1), removing(&["198.51.100.0/25"])).await;
    assert!(kernel_sets("postern").is_empty());
    assert!(gate.is_settled() && list_table("postern").len() > 5, "the gate stays");
}

#[tokio::test]
async fn foreign_changes_are_seen_and_repaired() {
    let lab = Lab::new();
    let wanted = list(&["10.1.2.3/32", "10.1.2.4/32", "198.51.100.0/24", "2001:db8:1::/48"]);
    let mut gate = started(config(Ownership::Off)).await;
    pass(&mut gate, &wanted).await;
    for edit in [
        "flush ruleset",
        "delete table inet postern",
        "flush set HOSTS",
        "delete element HOSTS { 10.1.2.3 }",
        "add element HOSTS { 10.6.6.6 timeout 1h }",
        "delete element HOSTS { 10.1.2.4 }; add element HOSTS { 10.1.2.4 timeout 9h }",
        "add element HOSTS { 10.6.6.6 }",
        "flush chain GROUP",
        "flush chain GROUP; delete set HOSTS",
        "flush chain GROUP; delete set HOSTS; add set HOSTS { type ipv6_addr; flags timeout; }",
        "flush chain GROUP; delete set HOSTS; add set HOSTS { type ipv4_addr; }",
        "flush chain GROUP; delete set HOSTS; \
         add set HOSTS { type ipv4_addr; flags interval, timeout; }",
        "add set TWIN { type inet_service; }",
        "flush chain GROUP; delete set HOSTS; add set TWIN { type inet_service; }; \
         add set HOSTS { type inet_service; }",
        "insert rule inet postern prerouting accept",
        "add rule inet postern service-web accept",
        "add chain inet postern extra { type filter hook input priority 0; policy drop; }",
        "add set inet postern extra { type inet_service; }",
        "add chain inet postern prerouting { policy drop; }",
        "add table inet postern { flags dormant; }",
        "delete chain inet postern prerouting; \
         add chain inet postern prerouting { type filter hook prerouting priority 0; }",
        "add element NETWORKS { 198.51.100.7 timeout 1h }",
    ] {
        let set = |end: &str| {
            let find = |name: &String| name.trim_end_matches("-b").ends_with(end);
            format!("inet postern {}", kernel_sets("postern").into_iter().find(find).unwrap())
        };
        let hosts = set("v4-32");
        let twin = hosts.strip_suffix("-b").map_or(format!("{hosts}-b"), str::to_owned);
        let edit = edit.replace("TWIN", &twin);
        let edit = edit.replace("HOSTS", &hosts).replace("NETWORKS", &set("v4-24"));
        let edit = edit.replace("GROUP", &format!("inet postern allow-{}", group(1)));
        let edited = Instant::now();

        nft(&edit);
        let noticed = tokio::time::timeout(PATIENCE, gate.disturbed()).await;
        let drift = pass(&mut gate, &wanted).await;

        assert!(noticed.is_ok(), "not noticed: {edit}");
        assert!(edited.elapsed() < secs(1), "{:?}: {edit}", edited.elapsed());
        assert!(0 < drift, "no drift: {edit}");
        assert_eq!(kernel_networks(), networks(&wanted), "{edit}");
        assert!(kernel_entries(group(1)).values().all(|left| *left <= 3600), "{edit}");
        assert!(lab.reaches("10.1.2.3", PORT) && lab.reaches("198.51.100.1", PORT), "{edit}");
        assert!(!lab.reaches("10.6.6.6", PORT), "{edit}");
        assert!(gate.is_settled());
        let mut fresh = started(config(Ownership::Off)).await;
        assert!(fresh.is_settled(), "{edit}");
        assert_eq!(pass(&mut fresh, &wanted).await, 0, "{edit}");
        assert_eq!(pass(&mut gate, &wanted).await, 0, "{edit}");
    }
}

#[tokio::test]
async fn changes_to_other_tables_disturb_nobody() {
    crate::netns::require();
    let wanted = list(&["192.0.2.7/32"]);
    let mut gate = started(config(Ownership::Off)).await;
    pass(&mut gate, &wanted).await;

    nft("add table inet other; add table ip postern; flush table inet other");
    let quiet = Duration::from_millis(50);
    let noticed = tokio::time::timeout(quiet, gate.disturbed()).await;

    assert!(noticed.is_err());
    assert_eq!(gate.refresh(now()).await.unwrap(), Refresh::Unchanged);
}

#[tokio::test]
async fn deleting_what_has_just_expired_is_no_failure() {
    crate::netns::require();
    for no_destroy in [false, true] {
        let options = NftOptions { no_destroy, ..NftOptions::default() };
        let mut gate = GateTarget::new("gate", config(Ownership::Auto), options).unwrap();
        let before = now();
        gate.refresh(before).await.unwrap();
        let mut plan = adding(&["192.0.2.1", "198.51.100.0/24"]);
        let soon = within(Duration::from_millis(30));
        plan.add.extend((2..50).map(|last| (net(&format!("192.0.2.{last}")), soon)));
        apply(&mut gate, group(1), plan.clone()).await;
        eventually("they expire", || kernel_entries(group(1)).len() == 2);

        // As if the clock had been read before they expired.
        let mut next = Plan { remove: plan.add, ..adding(&["203.0.113.1"]) };
        next.remove.remove(&net("198.51.100.0/24"));
        let renewed = next.remove.remove(&net("192.0.2.2")).unwrap();
        assert_eq!(renewed, soon);
        next.renew.insert(net("192.0.2.2"), within(secs(3600)));
        gate.apply(&plans(group(1), next), before).await.unwrap();

        let expected = ["192.0.2.2/32", "198.51.100.0/24", "203.0.113.1/32"];
        assert_eq!(kernel_networks(), expected, "no_destroy: {no_destroy}");
        gate.purge().await.unwrap();
    }
}

#[tokio::test]
async fn loopback_and_neighbours_are_never_touched() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["2001:db8:1::/48"])).await;

    crate::netns::run("ip", &["-6", "neigh", "flush", "dev", "outside"]);
    lab.in_peer(|| crate::netns::run("ip", &["-6", "neigh", "flush", "dev", "far"]));

    assert!(lab.reaches("2001:db8:1::1", PORT), "neighbours find each other anew");
    for host in ["127.0.0.1", "::1", crate::netns::HOST_V4, crate::netns::HOST_V6] {
        let server = UdpSocket::bind((host, PORT)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = UdpSocket::bind((host, 0)).unwrap();
        client.send_to(b"probe", server.local_addr().unwrap()).unwrap();
        server.recv(&mut [0; 16]).unwrap();
    }
}

#[tokio::test]
async fn a_published_port_is_covered() {
    let lab = Lab::new();
    nft("add table ip nat");
    nft("add chain ip nat prerouting { type nat hook prerouting priority dstnat; }");
    nft(&format!("add rule ip nat prerouting udp dport {PORT} redirect to :8080"));
    let server = UdpSocket::bind((crate::netns::HOST_V4, 8080)).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let arrives = |source: &'static str| {
        lab.in_peer(move || {
            let client = UdpSocket::bind((source, 0)).unwrap();
            client.send_to(b"probe", (crate::netns::HOST_V4, PORT)).unwrap();
        });
        server.recv(&mut [0; 16]).is_ok()
    };
    assert!(arrives("10.1.2.4"));

    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["10.1.2.3/32"])).await;

    assert!(arrives("10.1.2.3"));
    assert!(!arrives("10.1.2.4"));
}

#[tokio::test]
async fn groups_open_their_own_services_only() {
    let lab = Lab::new();
    let service = |name: &str, first, last, groups: &[u8]| Service {
        name: name.to_owned(),
        ports: ports(first, last),
        groups: groups.iter().map(|number| group(*number)).collect(),
    };
    let services = vec![
        service("ssh", 22, 22, &[2]),
        service("web", 440, 450, &[1]),
        service("all", 445, 445, &[2, 3]),
    ];
    let mut gate = started(GateConfig { services, ..config(Ownership::Auto) }).await;

    let plans = BTreeMap::from([
        (group(1), adding(&["10.0.0.1"])),
        (group(2), adding(&["10.0.0.2"])),
        (group(3), adding(&["10.0.0.3"])),
        (group(4), adding(&["10.0.0.4"])),
    ]);
    gate.apply(&plans, now()).await.unwrap();

    let reach = |source: &str| -> Vec<u16> {
        let ports = [21, 22, 440, 445, 450, 451].into_iter();
        ports.filter(|port| lab.reaches(source, *port)).collect()
    };
    assert_eq!(reach("10.0.0.1"), [21, 440, 445, 450, 451]);
    assert_eq!(reach("10.0.0.2"), [21, 22, 445, 451]);
    assert_eq!(reach("10.0.0.3"), [21, 445, 451]);
    assert_eq!(reach("10.0.0.4"), [21, 451], "a group of no service opens nothing");
}

#[tokio::test]
async fn a_changed_configuration_keeps_the_entries() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["10.1.2.3/32"])).await;
    drop(gate);
    let prober = Prober::start(&lab, "10.1.2.3", PORT);
    let mut changed = config(Ownership::Auto);
    changed.services[0].ports.extend(ports(80, 80));

    let mut gate = started(changed).await;
    let settled = gate.is_settled();
    gate.apply(&BTreeMap::new(), now()).await.unwrap();

    let (sent, lost) = prober.stop();
    assert_eq!((lost, settled), (0, false), "of {sent}");
    assert!(lab.reaches("10.1.2.3", 80) && !lab.reaches("10.1.2.4", 80));
}

#[tokio::test]
async fn flush_closes_and_purge_opens() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["10.1.2.3/32", "198.51.100.0/24"])).await;

    gate.flush().await.unwrap();
    assert!(!lab.reaches("10.1.2.3", PORT) && lab.reaches("10.99.0.1", PORT));
    assert_eq!(gate.observed(), &BTreeMap::from([(group(1), BTreeMap::new())]));
    apply(&mut gate, group(1), adding(&["10.1.2.3/32"])).await;
    assert!(lab.reaches("10.1.2.3", PORT));

    gate.purge().await.unwrap();
    assert!(lab.reaches("10.1.2.4", PORT));
    assert!(list_table("postern").is_empty());
}

#[tokio::test]
async fn flush_closes_what_an_earlier_run_left() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["10.1.2.3/32", "198.51.100.0/24"])).await;
    drop(gate);

    self::gate(config(Ownership::Auto)).flush().await.unwrap();

    assert!(kernel_networks().is_empty());
    assert!(!lab.reaches("10.1.2.3", PORT), "the gate stays");
}

#[tokio::test]
async fn entries_without_time_left_are_not_added() {
    crate::netns::require();
    let mut gate = started(config(Ownership::Auto)).await;
    let at = now();
    let ms = |ms: u64| Expiry::At(Timestamp::from_unix_ms(at.unix_ms() + ms).unwrap());
    let add = BTreeMap::from([(net("10.0.0.1"), ms(0)), (net("10.0.0.2"), ms(3_600_000))]);

    gate.apply(&plans(group(1), Plan { add, ..Plan::default() }), at).await.unwrap();

    assert_eq!(kernel_networks(), ["10.0.0.2/32"]);
    assert_eq!(gate.observed()[&group(1)].len(), 1);
}

/// A connection from `source` to the protected port, with something said both ways.
fn connected(lab: &Lab, source: &str) -> (TcpStream, TcpStream) {
    let host = if source.contains(':') { crate::netns::HOST_V6 } else { crate::netns::HOST_V4 };
    let listener = TcpListener::bind((host, PORT)).unwrap();
    let (client, server) = lab.connect(source, &listener);
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    assert!(hears(&client, &server) && hears(&server, &client), "{source}");
    (client, server)
}

/// Says whether what one side says is heard on the other.
fn hears(mut from: &TcpStream, mut to: &TcpStream) -> bool {
    from.write_all(b"x").unwrap();
    to.read(&mut [0; 1]).is_ok_and(|read| read == 1)
}

#[tokio::test]
async fn an_established_connection_drains() {
    let lab = Lab::new();
    let mut gate = started(config(Ownership::Auto)).await;
    apply(&mut gate, group(1), adding(&["10.1.2.3/32"])).await;
    let (client, server) = connected(&lab, "10.1.2.3");

    apply(&mut gate, group(1), removing(&["10.1.2.3/32"])).await;

    assert!(hears(&client, &server) && hears(&server, &client));
    assert!(!lab.reaches("10.1.2.3", PORT));
}

#[tokio::test]
async fn cutting_ends_the_connections_of_those_who_left_and_no_others() {
    let lab = Lab::new();
    let on_expiry = OnExpiry::Cut;
    // Somebody else has connections tracked already, as every host with a firewall does.
    nft("add table inet other");
    nft("add chain inet other input { type filter hook input priority 0; }");
    nft("add rule inet other input ct state established accept");
    let before = connected(&lab, "10.5.5.5");
    let mut gate = started(GateConfig { on_expiry, ..config(Ownership::Auto) }).await;
    let listed = adding(&[
        "10.1.2.3/32",
        "10.1.2.4/32",
        "10.1.3.0/24",
        "10.1.3.3/32",
        "10.99.0.3/32",
        "2001:db8:1:7::/64",
        "192.0.2.0/24",
    ]);
    apply(&mut gate, group(1), listed.clone()).await;
    let gone = [connected(&lab, "10.1.2.3"), connected(&lab, "2001:db8:1:7::1")];
    let stays = [
        before,
        connected(&lab, "10.1.2.4"),
        connected(&lab, "10.1.3.3"),
        connected(&lab, "10.99.0.3"),
    ];
    let far = lab.in_peer(|| TcpListener::bind(("192.0.2.2", PORT)).unwrap());
    let outgoing = TcpStream::connect(("192.0.2.2", PORT)).unwrap();
    let (answering, _) = far.accept().unwrap();

    let left = ["10.1.2.3", "10.1.3.3", "10.99.0.3", "2001:db8:1:7::/64", "192.0.2.0/24"];
    apply(&mut gate, group(1), removing(&left)).await;

    for (client, server) in &gone {
        // The server speaks first: a connection that it opens anew must not let the client in.
        assert!(!hears(client, server));
        let _ = hears(server, client);
        assert!(!hears(client, server));
    }
    for (client, server) in &stays {
        assert!(hears(client, server) && hears(server, client), "{:?}", client.local_addr());
    }
    assert!(hears(&outgoing, &answering) && hears(&answering, &outgoing));
}

#[tokio::test]
async fn cutting_ends_connections_when_their_entry_expires() {
    let lab = Lab::new();
    let on_expiry = OnExpiry::Cut;
    let mut gate = started(GateConfig { on_expiry, ..config(Ownership::Auto) }).await;
    let add =
        BTreeMap::from([(net("10.1.2.3"), within(secs(1))), (net("10.1.2.4"), within(secs(3600)))]);
    apply(&mut gate, group(1), Plan { add, ..Plan::default() }).await;
    let (client, server) = connected(&lab, "10.1.2.3");
    let (other_client, other_server) = connected(&lab, "10.1.2.4");

    tokio::time::timeout(PATIENCE, gate.disturbed()).await.unwrap();
    let refresh = gate.refresh(now()).await.unwrap();

    assert_eq!(refresh, Refresh::Unchanged);
    assert!(!hears(&client, &server));
    assert!(hears(&other_client, &other_server));
}
