//! The way of an address while everything works.

use std::time::Duration;

use postern_controlplane::domain::Command;
use postern_shared::time::Expiry;
use serde_json::json;

use crate::rig::host::FAILSAFE;
use crate::rig::{World, kernel};

/// What G10 promises.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn an_address_opens_the_door_and_the_next_one_closes_it_behind_itself() {
    let world = World::new();
    let pair = world.member(3_600);
    let _agent = world.start();
    // Nobody is shut out before there is a list, and everybody else is once there is one.
    world.closes("10.0.0.1");
    assert!(world.clients.is_open(FAILSAFE));

    let (status, first) = world.clients.post(&pair.bookmark, "10.0.0.1", 5);
    assert_eq!(status, 200, "{first}");
    // The answer was held back until the kernel had it: no waiting here.
    assert_eq!(first["data"]["confirmation"], json!({ "open": 1, "of": 1 }));
    assert!(world.clients.is_open("10.0.0.1"));
    assert!(!world.clients.is_open("10.0.0.2"));
    let entries = kernel::entries(world.group);
    let left = entries["10.0.0.1/32"];
    assert!((3_500..=3_600).contains(&left.as_secs()), "{left:?} left");

    let (_, second) = world.clients.post(&pair.bookmark, "10.0.0.2", 5);
    assert_eq!(second["data"]["moved"], true);
    assert_eq!(second["data"]["confirmation"], json!({ "open": 1, "of": 1 }));
    assert!(world.clients.is_open("10.0.0.2"));
    assert!(!world.clients.is_open("10.0.0.1"));
    assert!(world.clients.is_open(FAILSAFE));
}

#[test]
fn both_families_are_open() {
    let world = World::new();
    let pair = world.member(3_600);
    let _agent = world.start();
    world.closes("2001:db8:1::7");

    world.clients.report(&pair.bookmark, "10.0.0.1");
    world.opens("10.0.0.1");
    world.plane.add_network(world.org, world.group, "2001:db8:1::7", Expiry::Never);

    world.opens("2001:db8:1::7");
    assert!(world.clients.is_open("10.0.0.1"));
    assert!(!world.clients.is_open("2001:db8:1::8"));
}

#[test]
fn losing_rights_closes_the_door_within_a_second() {
    let world = World::new();
    let (org, group) = (world.org, world.group);
    let deleted = world.member(3_600);
    let removed = world.plane.pair(org, 3_600);
    let member = world.plane.add_pair(org, group, removed.id);
    let network = world.plane.add_network(org, group, "203.0.113.0/24", Expiry::Never);
    let _agent = world.start();
    world.clients.report(&deleted.bookmark, "10.0.0.1");
    world.clients.report(&removed.bookmark, "10.0.0.2");
    for source in ["10.0.0.1", "10.0.0.2", "203.0.113.9"] {
        world.opens(source);
    }

    for (command, source) in [
        (Command::DeletePair { org, pair: deleted.id, expected: None }, "10.0.0.1"),
        (Command::RemoveMember { org, group, member }, "10.0.0.2"),
        (Command::RemoveMember { org, group, member: network }, "203.0.113.9"),
    ] {
        world.plane.order(command);
        let took = world.closes(source);
        assert!(took < AT_ONCE, "{source} was closed after {took:?}");
    }
    // A secret that died reports nothing any more.
    assert_eq!(world.clients.post(&deleted.bookmark, "10.0.0.1", 0).0, 404);
    assert!(!world.clients.is_open("10.0.0.1"));
}

#[test]
fn a_revoked_agent_is_cut_off_and_its_door_closes_by_deadlines() {
    let world = World::new();
    let (org, group) = (world.org, world.group);
    let _agent = world.start();
    let agent = world.plane.agent(org);
    let ends = world.plane.now().saturating_add(Duration::from_secs(8));
    world.plane.add_network(org, group, "10.0.0.1", Expiry::At(ends));
    world.opens("10.0.0.1");

    world.plane.order(Command::RevokeAgent { org, agent });

    world.host.reports("the stream is closed", |status| status["plane"]["link"] == "down");
    world.host.reports("it is told what to do", |status| {
        let troubles = status["troubles"].to_string();
        ["control plane", "own address"]
            .iter()
            .all(|of| troubles.contains(&format!("{of}: this agent's credential is not in force")))
    });
    assert!(world.host.log().contains("enrol again with a new invitation"));
    world.plane.add_network(org, group, "10.0.0.2", Expiry::Never);
    world.closes("10.0.0.1");
    let late = world.plane.now().since(ends);
    assert!(late < AT_ONCE, "closed {late:?} late");
    assert!(!world.clients.is_open("10.0.0.2"), "it follows nothing any more");
    assert!(world.clients.is_open(FAILSAFE));
}

#[test]
fn a_group_that_is_taken_away_closes_within_a_second() {
    let world = World::new();
    let (org, group) = (world.org, world.group);
    let _agent = world.start();
    let agent = world.plane.agent(org);
    world.plane.add_network(org, group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");

    world.plane.order(Command::SetAgentGroups { org, agent, groups: [].into(), expected: None });

    let took = world.closes("10.0.0.1");
    assert!(took < AT_ONCE, "closed after {took:?}");
    let left: Vec<String> = kernel::entries(group).into_keys().collect();
    assert_eq!(left, [format!("{FAILSAFE}/32")]);
    assert!(world.clients.is_open(FAILSAFE));
}

#[test]
fn a_group_that_was_taken_away_meanwhile_closes_when_the_agent_is_back() {
    let world = World::new();
    let (org, group) = (world.org, world.group);
    let agent = world.start();
    let id = world.plane.agent(org);
    world.plane.add_network(org, group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    world.host.saves(group, "10.0.0.1/32");
    agent.kill();
    world.plane.order(Command::SetAgentGroups {
        org,
        agent: id,
        groups: [].into(),
        expected: None,
    });

    let _agent = world.host.start();

    world.closes("10.0.0.1");
    assert!(world.clients.is_open(FAILSAFE));
}
