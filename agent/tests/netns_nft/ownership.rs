//! Whose the table of a gate is: with kernels that let it belong to a socket, and with those before.

use std::collections::BTreeMap;

use postern_agent::target::nft::{GateTarget, NftOptions, Ownership};
use postern_agent::target::{Refresh, Target, TargetError};
use postern_shared::network::Network;

use crate::gate::{PORT, apply, config, gate, kernel_networks, list, networks, pass, started};
use crate::netns::{
    self, Lab, PATIENCE, Prober, adding, group, has_owned_tables, list_table, now, plans, try_run,
};

/// As on a kernel before 6.9: the table of a gate is one that root can change.
const PLAIN: NftOptions =
    NftOptions { no_owner: true, no_destroy: false, send_bytes: None, receive_bytes: None };

/// A gate that has been read once, on a kernel of which some is held back.
async fn started_with(options: NftOptions) -> GateTarget {
    let mut gate = GateTarget::new("gate", config(Ownership::Auto), options).unwrap();
    gate.refresh(now()).await.unwrap();
    gate
}

#[tokio::test]
async fn a_restart_takes_over_its_table_without_losing_a_packet() {
    restart(NftOptions::default(), has_owned_tables()).await;
}

#[tokio::test]
async fn a_restart_finds_its_plain_table_without_losing_a_packet() {
    restart(PLAIN, false).await;
}

async fn restart(options: NftOptions, is_owned: bool) {
    let lab = Lab::new();
    let wanted = list(&["10.1.2.3/32", "198.51.100.0/24", "2001:db8:1::/48"]);
    let mut gate = started_with(options).await;
    pass(&mut gate, &wanted).await;
    let prober = Prober::start(&lab, "10.1.2.3", PORT);

    drop(gate);
    let mut gate = started_with(options).await;
    let adopted: Vec<Network> = gate.observed()[&group(1)].keys().copied().collect();
    let settled = gate.is_settled();
    pass(&mut gate, &wanted).await;
    let drift = pass(&mut gate, &wanted).await;

    let (sent, lost) = prober.stop();
    assert_eq!((lost, drift), (0, 0), "of {sent}");
    assert_eq!(settled, !is_owned, "an owned table must be taken over");
    assert_eq!(adopted, wanted.iter().map(|(network, _)| network).collect::<Vec<_>>());
    assert!(gate.is_settled());
    let flags = list_table("postern")[1]["table"]["flags"].to_string();
    assert_eq!(flags.contains("owner"), is_owned, "{flags}");
}

/// As when the kernel was brought up to date, or the operator's mind changed.
#[tokio::test]
async fn a_plain_table_becomes_what_the_kernel_can_without_losing_a_packet() {
    let lab = Lab::new();
    let wanted = list(&["10.1.2.3/32", "198.51.100.0/24"]);
    let mut gate = started_with(PLAIN).await;
    pass(&mut gate, &wanted).await;
    drop(gate);
    let prober = Prober::start(&lab, "10.1.2.3", PORT);

    let mut gate = started(config(Ownership::Auto)).await;
    pass(&mut gate, &wanted).await;

    let (sent, lost) = prober.stop();
    assert_eq!(lost, 0, "of {sent}");
    assert_eq!(kernel_networks(), networks(&wanted));
    let (allowed, _) = try_run("nft", &["flush ruleset"]);
    let is_out_of_reach = !list_table("postern").is_empty();
    assert_eq!((allowed, is_out_of_reach), (true, has_owned_tables()));
    pass(&mut gate, &wanted).await;
    assert_eq!(kernel_networks(), networks(&wanted));
}

#[tokio::test]
async fn a_second_agent_is_told_who_holds_the_table() {
    second_agent(NftOptions::default()).await;
}

#[tokio::test]
async fn a_second_agent_is_told_who_holds_a_plain_table() {
    second_agent(PLAIN).await;
}

async fn second_agent(options: NftOptions) {
    netns::require();
    let mut first = started_with(options).await;
    apply(&mut first, group(1), adding(&["192.0.2.7/32"])).await;
    let mut late = GateTarget::new("gate", config(Ownership::Auto), options).unwrap();

    let error = late.refresh(now()).await.unwrap_err();

    let TargetError::Busy { holder } = &error else { panic!("{error}") };
    assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    assert_eq!(kernel_networks(), ["192.0.2.7/32"]);
    drop(first);
    late.refresh(now()).await.unwrap();
    late.apply(&BTreeMap::new(), now()).await.unwrap();
    assert!(late.is_settled(), "it takes over when the first one is gone");
}

#[tokio::test]
async fn of_two_agents_that_start_together_one_writes() {
    netns::require();
    let mut first = started(config(Ownership::Auto)).await;
    let mut early = gate(config(Ownership::Auto));
    // Nobody holds a table that does not exist; the seat is held from the first look on.
    let looked = early.refresh(now()).await;
    apply(&mut first, group(1), adding(&["192.0.2.7/32"])).await;

    let error = match looked {
        Ok(_) => early.apply(&plans(group(1), adding(&["10.6.6.6"])), now()).await.unwrap_err(),
        Err(error) => error,
    };

    assert!(matches!(error, TargetError::Busy { .. }), "{error}");
    assert_eq!(kernel_networks(), ["192.0.2.7/32"]);
}

#[tokio::test]
async fn a_stranger_on_the_seat_keeps_nobody_from_closing_the_door() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let lab = Lab::new();
    let name = SocketAddr::from_abstract_name("postern-agent/inet/postern").unwrap();
    // Credentials of a listener are those it began to listen with.
    let stranger = std::thread::spawn(move || {
        use rustix::thread::set_thread_res_uid;
        let nobody = rustix::process::Uid::from_raw(65_534);
        // Where the namespace has no such user, the thread stays root and the test says so.
        set_thread_res_uid(nobody, nobody, nobody).map(|()| UnixListener::bind_addr(&name))
    });
    let stranger = stranger.join().unwrap();

    let mut gate = GateTarget::new("gate", config(Ownership::Auto), PLAIN).unwrap();
    let looked = gate.refresh(now()).await;

    match stranger {
        Ok(listener) => {
            let _listener = listener.unwrap();
            looked.unwrap();
            apply(&mut gate, group(1), adding(&["10.1.2.3/32"])).await;
            assert!(lab.reaches("10.1.2.3", PORT) && !lab.reaches("10.6.6.6", PORT));
        }
        // An unprivileged namespace knows one user: nobody there is a stranger.
        Err(errno) => assert_eq!(errno, rustix::io::Errno::INVAL),
    }
}

#[tokio::test]
async fn an_owned_table_is_out_of_reach_for_others() {
    others_meddle(NftOptions::default(), has_owned_tables()).await;
}

#[tokio::test]
async fn a_plain_table_is_put_right_after_others() {
    others_meddle(PLAIN, false).await;
}

async fn others_meddle(options: NftOptions, is_owned: bool) {
    let lab = Lab::new();
    let wanted = list(&["10.1.2.3/32"]);
    let mut gate = started_with(options).await;
    pass(&mut gate, &wanted).await;
    let set = format!("inet postern allow-{}-v4-32", group(1));

    let (flushed, said) = try_run("nft", &["flush", "ruleset"]);
    assert!(flushed, "{said}");
    pass(&mut gate, &wanted).await;
    for edit in [
        format!("add element {set} {{ 10.6.6.6 timeout 1h }}"),
        format!("delete element {set} {{ 10.1.2.3 }}"),
        "flush chain inet postern prerouting".to_owned(),
        "delete table inet postern".to_owned(),
    ] {
        let (allowed, said) = try_run("nft", &[&edit]);
        assert_eq!(allowed, !is_owned, "{edit}: {said}");
        if !is_owned {
            let noticed = tokio::time::timeout(PATIENCE, gate.disturbed()).await;
            assert!(noticed.is_ok(), "not noticed: {edit}");
        }
        pass(&mut gate, &wanted).await;
        assert!(lab.reaches("10.1.2.3", PORT) && !lab.reaches("10.6.6.6", PORT), "{edit}");
    }
    assert_eq!(gate.refresh(now()).await.unwrap(), Refresh::Unchanged);
    assert!(gate.is_settled());
}
