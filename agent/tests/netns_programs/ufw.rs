//! Rules of ufw, changed by the unit that has the rights.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::Target;
use postern_agent::target::marked::Marked;
use postern_agent::target::nft::{Ports, Protocol};
use postern_agent::target::ufw::{Ufw, UfwConfig};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use crate::commands::Unit;
use crate::netns::{Lab, eventually, group, now, secs};
use crate::promises::{self, Subject};
use crate::{HOUR, netns, pass};

const DOOR: u16 = 2222;
const TARGETS: &str =
    "  - { name: host, type: ufw, ports: [2222/udp, 60000-61000/udp, 22/tcp], groups: [1] }\n";

impl Unit {
    fn target(&self) -> Marked<Ufw> {
        self.target_named("host")
    }

    fn target_named(&self, name: &str) -> Marked<Ufw> {
        let ports = [
            Ports { protocol: Protocol::Udp, first: DOOR, last: DOOR },
            Ports { protocol: Protocol::Udp, first: 60_000, last: 61_000 },
            Ports { protocol: Protocol::Tcp, first: 22, last: 22 },
        ];
        let config = UfwConfig { ports: ports.into(), owner: name.to_owned() };
        Marked::new(name, name, [group(1)].into(), Ufw::new(name, config, self.commands()))
    }

    fn ufw(&self, words: &str) -> String {
        self.within("ufw", &words.split(' ').collect::<Vec<_>>())
    }

    /// The rules that `ufw` itself shows, with our marks taken apart.
    fn rules(&self) -> Vec<String> {
        let shown = self.ufw("show added");
        shown.lines().skip(1).filter(|line| line.starts_with("ufw ")).map(str::to_owned).collect()
    }
}

impl Subject for Unit {
    type Target = Marked<Ufw>;

    fn group(&self) -> GroupId {
        group(1)
    }

    fn start(&self) -> Marked<Ufw> {
        self.target()
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let rules = self.rules();
        let read = |line: &String| {
            let rest = line.strip_prefix("ufw allow from ")?;
            let (network, rest) = rest.split_once(" to any port ")?;
            let deadline = rest.strip_suffix('\'')?.rsplit_once('=')?.1;
            let deadline: Timestamp = deadline.parse().unwrap();
            Some((network.parse().unwrap(), deadline.since(now())))
        };
        rules.iter().filter_map(read).collect()
    }

    /// ufw tells nobody; what others change is found by the next read.
    fn meddle(&self) -> bool {
        false
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn renews_late(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn rules_keep_the_contract() {
    netns::require();
    let unit = Unit::start(TARGETS);

    promises::holds(&unit).await;
}

#[tokio::test]
async fn packets_pass_by_our_rules_and_those_of_others_stay() {
    let lab = Lab::new();
    let unit = Unit::start(TARGETS);
    unit.ufw("allow 9/udp");
    unit.ufw("allow proto udp from 10.0.0.3 to any port 9999 comment office");
    // The same match as ours would have: whatever it does, it is somebody else's.
    unit.ufw("deny proto udp from 10.0.0.4 to any port 2222,60000:61000");
    unit.ufw("--force enable");
    let before = unit.rules();
    assert!(!lab.reaches("10.0.0.1", DOOR));
    let mut target = unit.target();

    let entries = [("10.0.0.1", HOUR), ("10.0.0.4", HOUR), ("2001:db8:1::/64", HOUR)];
    pass(&mut target, &entries, &[]).await.unwrap();

    assert!(lab.reaches("10.0.0.1", DOOR));
    assert!(lab.reaches("10.0.0.1", 60_500));
    assert!(lab.reaches("2001:db8:1::7", DOOR));
    assert!(!lab.reaches("10.0.0.2", DOOR));
    assert!(!lab.reaches("10.0.0.4", DOOR), "the operator's own word stands");
    assert!(unit.ufw("status").contains("postern host 01010101="));

    pass(&mut target, &[], &["10.0.0.1", "10.0.0.4", "2001:db8:1::/64"]).await.unwrap();
    assert!(!lab.reaches("10.0.0.1", DOOR));
    assert!(!lab.reaches("2001:db8:1::7", DOOR));
    assert_eq!(unit.rules(), before);
}

#[tokio::test]
async fn two_targets_that_write_at_once_undo_nothing_of_each_other() {
    netns::require();
    let other = TARGETS.replace("name: host", "name: other");
    let unit = Unit::start(&format!("{TARGETS}{other}"));
    let (mut one, mut two) = (unit.target(), unit.target_named("other"));
    let (first, second) = ([("10.0.0.1", HOUR)], [("10.0.0.2", HOUR)]);

    let (one, two) = tokio::join!(pass(&mut one, &first, &[]), pass(&mut two, &second, &[]));

    one.unwrap();
    two.unwrap();
    assert_eq!(unit.rules().len(), 4, "{:?}", unit.rules());
}

#[tokio::test]
async fn ports_that_the_target_has_no_more_are_closed() {
    netns::require();
    let unit = Unit::start(TARGETS);
    let office = ["allow", "proto", "tcp", "from", "10.0.0.1", "to", "any", "port", "80"];
    unit.within("ufw", &[&office[..], &["comment", "office"]].concat());
    let entries = [("10.0.0.1", HOUR), ("10.0.0.2", HOUR)];
    pass(&mut unit.target(), &entries, &[]).await.unwrap();
    let before = unit.rules();
    // As the target left them when it had this port as well.
    for line in before.iter().filter(|line| line.contains("proto tcp comment 'postern")) {
        let comment = line.split('\'').nth(1).unwrap();
        let from = line.split(' ').nth(3).unwrap();
        let old = ["allow", "proto", "tcp", "from", from, "to", "any", "port", "443"];
        unit.within("ufw", &[&old[..], &["comment", comment]].concat());
    }
    assert_eq!(unit.rules().len(), before.len() + 2);

    pass(&mut unit.target(), &entries, &[]).await.unwrap();

    let bare = |rules: Vec<String>| -> Vec<String> {
        rules.iter().map(|rule| rule.split('=').next().unwrap().to_owned()).collect()
    };
    assert_eq!(bare(unit.rules()), bare(before));
}

#[tokio::test]
async fn an_agent_that_forgot_everything_removes_a_rule_at_its_time() {
    netns::require();
    let unit = Unit::start(TARGETS);
    pass(&mut unit.target(), &[("10.0.0.1", HOUR), ("10.0.0.2", secs(5))], &[]).await.unwrap();
    let mut fresh = unit.target();
    pass(&mut fresh, &[], &[]).await.unwrap();

    // On a slow machine its time was over before the fresh one looked.
    if 1 < unit.in_force().len() {
        tokio::time::timeout(secs(60), fresh.disturbed()).await.unwrap();
        pass(&mut fresh, &[], &[]).await.unwrap();
    }

    let left: Vec<String> = unit.in_force().keys().map(ToString::to_string).collect();
    assert_eq!(left, ["10.0.0.1/32"]);
    eventually("both protocols", || unit.rules().len() == 2);
}
