//! A network between agent and plane that cuts, delays, garbles and swallows.

use std::time::Duration;

use postern_controlplane::domain::Command;
use postern_shared::time::Expiry;

use crate::rig::proxy::{Mood, Proxy};
use crate::rig::{STRANGER, World};

#[test]
fn whatever_the_network_does_it_ends_in_sync() {
    let world = World::new();
    let proxy = Proxy::start();
    world.host.configure(Some(&proxy.url()));
    let _agent = world.start();
    let admit = |source: &str| {
        world.plane.add_network(world.org, world.group, source, Expiry::Never);
    };
    admit("10.0.0.1");
    world.opens("10.0.0.1");

    let moods = [
        Mood::Slow(Duration::from_millis(200)),
        Mood::CutAfter(500),
        Mood::Garble(61),
        Mood::CutAfter(1),
        Mood::BlackHole,
        Mood::Garble(3),
    ];
    for (round, mood) in (2..).zip(moods) {
        let (during, after) = (format!("10.0.{round}.1"), format!("10.0.{round}.2"));
        proxy.set(mood);
        admit(&during);
        for _ in 0..20 {
            assert!(world.clients.is_open("10.0.0.1"), "{mood:?}");
            assert!(!world.clients.is_open(STRANGER), "{mood:?}");
        }
        proxy.set(Mood::Fair);
        admit(&after);
        world.opens(&after);
        assert!(world.clients.is_open(&during), "{mood:?}");
    }
}

#[test]
fn where_streams_do_not_get_through_lists_are_polled() {
    let world = World::new();
    let (org, group) = (world.org, world.group);
    let proxy = Proxy::start();
    world.host.configure(Some(&proxy.url()));
    proxy.set(Mood::NoStreams);
    let _agent = world.start();
    world.host.reports("it polls", |status| status["plane"]["link"] == "polling");
    assert_eq!(proxy.refused(), 2);

    let member = world.plane.add_network(org, group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    world.plane.order(Command::RemoveMember { org, group, member });
    world.closes("10.0.0.1");
    assert_eq!(world.host.status()["plane"]["link"], "polling");
}
