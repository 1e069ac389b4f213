//! What the operator on the host is told, and what happens on the operator's word.

use std::fs;

use postern_shared::time::Expiry;
use serde_json::{Value, json};

use crate::rig::host::FAILSAFE;
use crate::rig::{World, kernel};

#[test]
fn the_operator_sees_what_is_so() {
    let world = World::new();
    let agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");

    let status = world.host.reports("all is well", |status| {
        status["troubles"] == json!([]) && status["targets"][0]["state"] == "in_sync"
    });
    assert_eq!(world.host.ask(&["status"]).0, Some(0));
    assert_eq!(status["pid"], agent.pid());
    assert_eq!(status["plane"]["ipv4"], "192.0.2.1");
    assert_eq!(status["groups"][0]["name"], "web");
    assert_eq!(status["groups"][0]["entries"], 2);

    let (code, why) = world.host.ask(&["why", "10.0.0.1", "2222"]);
    assert_eq!((code, &why["verdicts"][0]["is_open"]), (Some(0), &json!(true)));
    assert_eq!(why["verdicts"][0]["entries"][0]["network"], "10.0.0.1/32");
    let (code, why) = world.host.ask(&["why", "10.0.0.2"]);
    assert_eq!((code, &why["verdicts"][0]["is_open"]), (Some(3), &json!(false)));
    assert_eq!(world.host.ask(&["why", FAILSAFE]).0, Some(0));

    let (code, planned) = world.host.ask(&["plan"]);
    assert_eq!((code, &planned[0]["changes"]), (Some(0), &json!(0)));
}

#[test]
fn a_flush_shuts_everybody_out_but_the_fail_safe_until_a_reload() {
    let world = World::new();
    let _agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");

    let (code, flushed) = world.host.ask(&["flush"]);

    assert_eq!((code, &flushed[0]["error"]), (Some(0), &Value::Null));
    assert!(!world.clients.is_open("10.0.0.1"));
    assert!(world.clients.is_open(FAILSAFE));
    // What comes in later stays out as well.
    world.plane.add_network(world.org, world.group, "10.0.0.2", Expiry::Never);
    world.host.reports("it follows on", |status| status["groups"][0]["entries"] == 3);
    assert!(!world.clients.is_open("10.0.0.2"));
    assert!(!kernel::entries(world.group).contains_key("10.0.0.2/32"));
    assert_eq!(world.host.ask(&["status"]).0, Some(3));

    assert_eq!(world.host.ask(&["reload"]).0, Some(0));
    world.opens("10.0.0.1");
    world.opens("10.0.0.2");
}

#[test]
fn without_the_agent_a_plan_shows_what_it_would_do() {
    let world = World::new();
    let agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    world.host.saves(world.group, "10.0.0.1/32");
    agent.kill();
    crate::netns::run("nft", &["delete", "table", "inet", "postern"]);

    let (code, planned) = world.host.ask(&["plan"]);

    assert_eq!((code, &planned[0]["changes"]), (Some(2), &json!(2)), "{planned}");
    assert!(planned[0]["text"].as_str().unwrap().contains("10.0.0.1"), "{planned}");
    assert!(world.clients.is_open("10.0.0.9"), "a plan changes nothing");
}

#[test]
fn a_configuration_is_checked_with_the_places_of_its_mistakes() {
    let world = World::new();
    let config = world.host.config().to_str().unwrap();
    let (code, checked) = world.host.ask(&["check", config]);
    assert_eq!((code, &checked["mistakes"]), (Some(0), &json!([])));

    let wrong = world.host.file("wrong.yaml");
    fs::write(&wrong, "targets:\n  - name: fw\n    typo: nftables\n").unwrap();
    let (code, checked) = world.host.ask(&["check", wrong.to_str().unwrap()]);

    assert_eq!(code, Some(1));
    let mistake = &checked["mistakes"].as_array().unwrap().iter().find(|one| one["line"] == 3);
    assert!(mistake.unwrap()["path"].as_str().unwrap().contains("typo"), "{checked}");
}
