//! What the operator on the host is told, and what happens on the operator's word.

use std::fs;

use postern_controlplane::domain::Command;
use postern_shared::time::Expiry;
use serde_json::{Value, json};

use crate::rig::host::FAILSAFE;
use crate::rig::{STRANGER, World, eventually, kernel};

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
    assert_eq!(is_open(&world, "10.0.0.1"), (Some(3), json!(false)));
    assert_eq!(is_open(&world, FAILSAFE), (Some(0), json!(true)));
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

/// What the agent says of the door and an address, and the exit code that says so too.
fn is_open(world: &World, source: &str) -> (Option<i32>, Value) {
    let (code, why) = world.host.ask(&["why", source, "2222"]);
    (code, why["verdicts"][0]["is_open"].clone())
}

#[test]
fn before_the_first_list_the_operator_hears_that_everybody_gets_in() {
    let mut world = World::new();
    world.plane.kill();

    let _agent = world.host.start_and_wait();

    world.host.reports("it waits", |status| {
        status["targets"][0]["state"] == "waiting" && !status["targets"][0]["passed_at"].is_null()
    });
    assert!(world.clients.is_open(STRANGER));
    assert_eq!(is_open(&world, STRANGER), (Some(0), json!(true)));
}

#[test]
fn of_a_firewall_that_cannot_be_looked_at_nothing_is_claimed() {
    let world = World::new();
    let agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    world.host.saves(world.group, "10.0.0.1/32");
    agent.kill();

    let powerless = ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin", "--"];
    let _agent = world.host.start_through(&powerless);

    world.host.reports("it fails", |status| status["targets"][0]["state"] == "failing");
    assert_eq!(is_open(&world, "10.0.0.1"), (Some(3), Value::Null));
    crate::netns::run("nft", &["delete", "table", "inet", "postern"]);
    assert!(world.clients.is_open(STRANGER));
    assert_eq!(is_open(&world, STRANGER), (Some(3), Value::Null));
}

#[test]
fn whom_an_earlier_run_let_in_is_not_called_shut_out_for_want_of_a_list() {
    let mut world = World::new();
    let agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    world.host.saves(world.group, "10.0.0.1/32");
    agent.kill();
    world.plane.kill();
    fs::remove_file(world.host.list_file(world.group)).unwrap();

    let _agent = world.host.start_and_wait();

    world.host.reports("it stands", |status| status["targets"][0]["state"] == "in_sync");
    assert!(world.clients.is_open("10.0.0.1"));
    assert_eq!(is_open(&world, "10.0.0.1"), (Some(3), Value::Null));
    assert_eq!(is_open(&world, FAILSAFE), (Some(0), json!(true)));
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

#[test]
fn an_operator_whose_configuration_has_mistakes_sees_and_flushes_all_the_same() {
    let world = World::new();
    let _agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");

    let good = fs::read_to_string(world.host.config()).unwrap();
    fs::write(world.host.config(), good.clone() + "polcy: {}\n").unwrap();
    world.host.reports("the mistake is told", |status| {
        status["troubles"].to_string().contains("did you mean `policy`")
    });
    assert_eq!(is_open(&world, "10.0.0.1"), (Some(0), json!(true)));
    assert_eq!(world.host.ask(&["plan"]).0, Some(0));
    assert_eq!(world.host.ask(&["accept"]).0, Some(0));
    // Not even the syntax is right.
    fs::write(world.host.config(), good + "targets: [\n").unwrap();

    let (code, flushed) = world.host.ask(&["flush"]);

    assert_eq!((code, &flushed[0]["error"]), (Some(0), &Value::Null));
    assert!(!world.clients.is_open("10.0.0.1"));
}

#[test]
fn on_sighup_a_good_configuration_is_taken_and_a_bad_one_is_not() {
    let world = World::new();
    let agent = world.start();
    world.plane.add_network(world.org, world.group, "10.0.0.1", Expiry::Never);
    world.opens("10.0.0.1");
    let service = || world.host.ask(&["why", "10.0.0.1"]).1["verdicts"][0]["service"].clone();
    let logged = |line: &str| {
        let log = world.host.log();
        log.lines().any(|one| one.contains(line) && one.contains("cause=\"SIGHUP\""))
    };
    // Unlike a change of the file, a signal fills again what was flushed.
    assert_eq!(world.host.ask(&["flush"]).0, Some(0));
    let good = fs::read_to_string(world.host.config()).unwrap();

    fs::write(world.host.config(), good.replace("name: door", "name: gate")).unwrap();
    agent.hang_up();

    world.opens("10.0.0.1");
    assert_eq!(service(), "gate");
    eventually("the log tells why", || logged("the configuration was reloaded"));

    fs::write(world.host.config(), good.replace("name: door", "nam: door")).unwrap();
    agent.hang_up();

    world.host.reports("the mistake is told", |status| {
        let troubles = status["troubles"].to_string();
        troubles.contains("the old one stays in force") && troubles.contains("did you mean `name`")
    });
    eventually("the log tells of the signal", || logged("the configuration was not reloaded"));
    assert_eq!(service(), "gate");
    assert!(world.clients.is_open("10.0.0.1"));
}

#[test]
fn the_log_tells_whom_it_let_in_whom_it_shut_out_and_what_is_held_back() {
    let world = World::with_policy("denied: [198.51.100.0/24]");
    let (org, group) = (world.org, world.group);
    let _agent = world.start();
    let add = |network| world.plane.add_network(org, group, network, Expiry::Never);

    let member = add("10.0.0.1");
    world.host.logs(" INFO ", "opened=1 closed=0 networks=\"+10.0.0.1/32\"");
    world.plane.order(Command::RemoveMember { org, group, member });
    world.host.logs(" INFO ", "opened=0 closed=1 networks=\"-10.0.0.1/32\"");

    let denied = add("198.51.100.0/28");
    world.host.logs(" WARN ", "findings=198.51.100.0/28");
    world.plane.order(Command::RemoveMember { org, group, member: denied });
    world.host.logs(" INFO ", "nothing of the list is held back any more");

    assert_eq!(world.host.ask(&["flush"]).0, Some(0));
    world.host.logs(" INFO ", "flushed on the operator's word target_name=\"fw\"");
}
