//! Sets of `ipset`, with rules of iptables that ask them.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::commands::Commands;
use postern_agent::target::ipset::{Ipset, IpsetConfig};
use postern_agent::target::{Refresh, Target};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use crate::netns::{self, Lab, Prober, eventually, group, now, run, secs, try_run};
use crate::promises::{self, Subject};
use crate::{HOUR, pass};

const DOOR: u16 = 2222;

struct Sets;

impl Subject for Sets {
    type Target = Ipset;

    fn group(&self) -> GroupId {
        group(1)
    }

    fn start(&self) -> Ipset {
        start()
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        elements()
    }

    /// Sets tell nobody of changes.
    fn meddle(&self) -> bool {
        false
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

fn start() -> Ipset {
    let config = IpsetConfig {
        v4_set: Some("friends4".to_owned()),
        v6_set: Some("friends6".to_owned()),
        elements_max: IpsetConfig::ELEMENTS_MAX,
    };
    Ipset::new("old", config, [group(1)].into(), Commands::Here)
}

/// What `ipset` says of all sets.
fn elements() -> BTreeMap<Network, Duration> {
    let saved = run("ipset", &["save"]);
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let ["add", _, network, "timeout", left] = words[..] else { return None };
        Some((network.parse().unwrap(), secs(left.parse().unwrap())))
    };
    saved.lines().filter_map(read).collect()
}

/// Makes the sets and has iptables drop whoever is not in them.
fn guard() {
    for (set, family, program) in
        [("friends4", "inet", "iptables"), ("friends6", "inet6", "ip6tables")]
    {
        run("ipset", &["create", set, "hash:net", "family", family, "timeout", "0"]);
        let door = DOOR.to_string();
        let rule = ["-A", "INPUT", "-p", "udp", "--dport", &door, "-m", "set", "!"];
        run(program, &[&rule[..], &["--match-set", set, "src", "-j", "DROP"]].concat());
    }
}

#[tokio::test]
async fn sets_keep_the_contract() {
    netns::require();
    promises::holds(&Sets).await;
}

#[tokio::test]
async fn packets_pass_until_the_deadline_and_the_kernel_needs_nobody_for_it() {
    let lab = Lab::new();
    guard();
    assert!(!lab.reaches("10.0.0.1", DOOR));
    let mut target = start();

    let entries = [("10.0.0.1", HOUR), ("10.0.0.2", secs(3)), ("2001:db8:1::/64", HOUR)];
    pass(&mut target, &entries, &[]).await.unwrap();
    drop(target);

    assert!(lab.reaches("10.0.0.1", DOOR));
    assert!(lab.reaches("2001:db8:1::7", DOOR));
    assert!(!lab.reaches("2001:db8:1:1::7", DOOR));
    eventually("the kernel closes the short one", || !lab.reaches("10.0.0.2", DOOR));
    assert!(lab.reaches("10.0.0.1", DOOR));
}

#[tokio::test]
async fn a_list_that_changes_as_a_whole_is_swapped_and_no_packet_is_lost() {
    let lab = Lab::new();
    guard();
    let mut target = start();
    pass(&mut target, &[("10.0.0.1", HOUR)], &[]).await.unwrap();
    let prober = Prober::start(&lab, "10.0.0.1", DOOR);

    let many: Vec<String> = (0..3_000).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
    let many: Vec<(&str, Duration)> = many.iter().map(|host| (host.as_str(), HOUR)).collect();
    let gone: Vec<&str> = many.iter().map(|(host, _)| *host).collect();
    for _ in 0..5 {
        pass(&mut target, &many, &[]).await.unwrap();
        pass(&mut target, &[], &gone).await.unwrap();
    }
    pass(&mut target, &many, &[]).await.unwrap();

    let (sent, lost) = prober.stop();
    assert!(0 < sent);
    assert_eq!(lost, 0, "of {sent}");
    assert_eq!(elements().len(), 3_001);
    let sets = run("ipset", &["list", "-name"]);
    assert_eq!(sets, "friends4\nfriends6\n", "nothing is left of the set beside it");
}

#[tokio::test]
async fn what_lasts_longer_than_a_set_can_say_is_cut_and_a_whole_network_is_its_halves() {
    netns::require();
    let mut target = start();

    pass(&mut target, &[("10.0.0.1", 24 * 60 * HOUR), ("0.0.0.0/0", HOUR)], &[]).await.unwrap();

    let found = elements();
    let left = found[&"10.0.0.1".parse().unwrap()].as_secs();
    assert!((2_147_000..=2_147_483).contains(&left), "{left}");
    assert!(found.contains_key(&"0.0.0.0/1".parse().unwrap()), "{found:?}");
    assert!(found.contains_key(&"128.0.0.0/1".parse().unwrap()), "{found:?}");
    assert!(target.is_settled());
    // Half of the time is over: it is told again, and lasts as long as it may.
    let later = now().saturating_add(13 * 24 * HOUR);
    tokio::time::pause();
    tokio::time::advance(secs(60)).await;
    tokio::time::resume();
    target.refresh(later).await.unwrap();
    assert!(!target.is_settled());
}

#[tokio::test]
async fn what_others_changed_is_found_by_looking_and_put_right() {
    netns::require();
    let mut target = start();
    pass(&mut target, &[("10.0.0.1", HOUR), ("10.0.0.2", HOUR)], &[]).await.unwrap();
    run("ipset", &["add", "friends4", "10.6.6.6"]);
    run("ipset", &["del", "friends4", "10.0.0.2"]);
    run("ipset", &["destroy", "friends6"]);

    tokio::time::pause();
    tokio::time::advance(secs(60)).await;
    tokio::time::resume();
    let found = target.refresh(now()).await.unwrap();
    target.apply(&BTreeMap::new(), now()).await.unwrap();

    assert_eq!(found, Refresh::Reread { drift: 3 });
    let left: Vec<String> = elements().keys().map(ToString::to_string).collect();
    assert_eq!(left, ["10.0.0.1/32", "10.0.0.2/32"]);
    assert!(try_run("ipset", &["list", "friends6"]).0);
}

#[tokio::test]
async fn a_set_of_another_kind_is_left_alone_and_one_that_is_full_says_so() {
    netns::require();
    run("ipset", &["create", "friends4", "hash:ip", "timeout", "0"]);
    let refused = start().refresh(now()).await.unwrap_err().to_string();
    assert!(refused.contains("ipset create friends4 hash:net"), "{refused}");

    run("ipset", &["destroy", "friends4"]);
    run("ipset", &["create", "friends4", "hash:net", "timeout", "0", "maxelem", "1"]);
    let full = pass(&mut start(), &[("10.0.0.1", HOUR), ("10.0.0.2", HOUR)], &[]).await;
    let full = full.unwrap_err().to_string();
    assert!(full.contains("2 entries do not fit"), "{full}");
    assert!(elements().is_empty());
}
