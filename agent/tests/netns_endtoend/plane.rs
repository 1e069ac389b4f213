//! A control plane that dies, comes back, comes back older, or falls into the wrong hands.

use std::time::Duration;

use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};

use crate::rig::hostile::Hostile;
use crate::rig::{STRANGER, World, eventually, kernel, now};

const LATE_MAX: Duration = Duration::from_secs(1);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

#[test]
fn the_kernel_closes_on_time_when_plane_and_agent_are_dead() {
    let mut world = World::new();
    let agent = world.start();
    let ends = world.plane.now().saturating_add(Duration::from_secs(4));
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::At(ends));
    world.opens("10.0.0.1");

    world.plane.kill();
    agent.kill();

    assert!(world.clients.is_open("10.0.0.1"));
    world.closes("10.0.0.1");
    let late = now().since(ends);
    assert!(ends <= now() && late < LATE_MAX, "closed {late:?} late");
}

#[test]
fn a_plane_that_comes_back_is_followed_on_and_nobody_notices() {
    let mut world = World::new();
    let _agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");

    world.plane.kill();
    world.host.reports("the plane is missed", |status| status["plane"]["link"] == "down");
    world.plane.revive();
    world.plane.add_network(world.org, world.group, "10.0.0.2", Expiry::Never);

    eventually("the plane is followed again", || {
        assert!(world.clients.is_open("10.0.0.1"));
        assert!(!world.clients.is_open(STRANGER));
        world.host.status()["plane"]["link"] == "stream"
    });
    world.opens("10.0.0.2");
    let status = world.host.reports("no trouble is left", |status| {
        status["troubles"].as_array().is_some_and(Vec::is_empty)
    });
    assert_eq!(status["groups"][0]["list"], "followed");
}

#[test]
fn a_plane_that_was_restored_begins_an_epoch_that_agents_follow() {
    let mut world = World::new();
    let (org, group) = (world.org, world.group);
    let _agent = world.start();
    world.plane.add_network(org, group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    world.plane.kill();
    world.plane.back_up();
    world.plane.revive();
    let epoch = world.plane.engine.epoch();
    world.plane.add_network(org, group, "10.0.0.2", Expiry::Never);
    world.opens("10.0.0.2");

    world.plane.kill();
    world.plane.restore();
    world.plane.revive();

    // The plane does not know any more that it let this one in.
    world.closes("10.0.0.2");
    assert!(world.clients.is_open("10.0.0.1"));
    let newer = world.plane.engine.epoch();
    assert_ne!(newer, epoch);
    world.plane.add_network(org, group, "10.0.0.3", Expiry::Never);
    world.opens("10.0.0.3");
    assert_eq!(world.host.status()["groups"][0]["epoch"], newer.to_string());
}

#[test]
fn clocks_that_disagree_by_an_hour_move_no_deadline() {
    let world = World::with("", Duration::from_secs(3_600));
    let _agent = world.start();
    let ends = now().saturating_add(Duration::from_secs(5));
    let of_the_plane = world.plane.now().saturating_add(Duration::from_secs(5));

    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::At(of_the_plane));

    world.opens("10.0.0.1");
    let left = kernel::entries(world.group)["10.0.0.1/32"];
    assert!(left < Duration::from_secs(5), "{left:?} left");
    world.closes("10.0.0.1");
    let (late, early) = (now().since(ends), ends.since(now()));
    assert!(late < LATE_MAX && early < LATE_MAX, "{late:?} late, {early:?} early");
}

fn hosts(range: std::ops::Range<u32>) -> impl Iterator<Item = Network> {
    range.map(|n| Network::host(std::net::Ipv4Addr::from(0x0a00_0000 + n).into()))
}

/// Eight addresses are let in by the real plane; then another one is in its place.
fn taken_over() -> (World, Hostile) {
    let world = World::new();
    let agent = world.start();
    for address in hosts(1..9) {
        let cidr = address.to_string();
        world.plane.add_network(world.org, world.group, &cidr, Expiry::Never);
    }
    world.opens("10.0.0.8");
    world.host.saves(world.group, "10.0.0.8/32");
    agent.kill();
    let hostile = Hostile::start(world.group);
    world.host.configure(Some(&hostile.url()));
    (world, hostile)
}

/// Waits until the agent has said that it holds a list back, and answers why.
fn held(hostile: &Hostile, epoch: u8) -> String {
    let mut detail = String::new();
    eventually("a receipt says that the list is held", || {
        let Some(receipt) = hostile.receipt(epoch) else { return false };
        receipt["detail"].as_str().unwrap_or_default().clone_into(&mut detail);
        receipt["state"] == "held"
    });
    detail
}

#[test]
fn a_plane_in_the_wrong_hands_cannot_open_the_world() {
    let (world, hostile) = taken_over();
    let _agent = world.host.start();
    let hour = Expiry::At(now().saturating_add(Duration::from_secs(3_600)));
    let known = || hosts(1..9).map(|network| (network, hour));

    let world_open = ["0.0.0.0/0", "10.9.9.9"].map(|cidr| (cidr.parse().unwrap(), hour));
    hostile.snapshot(1, known().chain(world_open));
    let why = held(&hostile, 1);
    assert!(why.contains("0.0.0.0/0"), "{why}");
    assert!(world.clients.is_open("10.0.0.1"));
    for source in [STRANGER, "10.9.9.9"] {
        assert!(!world.clients.is_open(source), "{source}");
    }

    hostile.snapshot(2, hosts(1..200_001).map(|network| (network, hour)));
    let why = held(&hostile, 2);
    assert!(why.contains("200000 entries"), "{why}");
    assert!(world.clients.is_open("10.0.0.1"));
    assert!(!world.clients.is_open("10.0.0.9"));
    assert_eq!(kernel::entries(world.group).len(), 9, "the eight and the fail-safe one");

    let never = [(Expiry::Never, 1..5), (Expiry::At(Timestamp::MAX), 5..10)];
    hostile.snapshot(
        3,
        never.into_iter().flat_map(|(end, range)| hosts(range).map(move |network| (network, end))),
    );
    world.opens("10.0.0.9");
    for (network, left) in kernel::entries(world.group) {
        assert!(left <= WEEK, "{network} is open for {left:?}");
    }
}

#[test]
fn a_plane_in_the_wrong_hands_cannot_shut_everybody_out() {
    let (world, hostile) = taken_over();
    let _agent = world.host.start();

    hostile.snapshot(1, []);

    let why = held(&hostile, 1);
    assert!(why.contains("8 entries"), "{why}");
    for source in ["10.0.0.1", "10.0.0.8"] {
        assert!(world.clients.is_open(source), "{source}");
    }
    world.host.logs(" WARN ", "left out by a new list");
    let (code, done) = world.host.ask(&["accept"]);
    assert_eq!((code, &done["withdrawn"]), (Some(0), &8.into()));
    world.closes("10.0.0.1");
    world.host.logs(" INFO ", "accepted what new lists left out group=\"all\" withdrawn=8");
    assert!(world.clients.is_open(crate::rig::host::FAILSAFE));
}
