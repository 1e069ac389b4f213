//! A kernel that answers badly, and random histories with the kernel as the reference.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postern_agent::target::nft::{
    GateConfig, GateTarget, NftOptions, OnExpiry, Ownership, Ports, Protocol, Service,
};
use postern_agent::target::{Refresh, Target, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::plan::{Plan, Scope, plan};
use postern_shared::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::netns::{
    self, Lab, adding, eventually, group, kernel_entries, nft, now, plans, secs, try_run, within,
};

const PORT: u16 = 443;

fn gate(ownership: Ownership, options: NftOptions) -> GateTarget {
    let ports = vec![Ports { protocol: Protocol::Udp, first: PORT, last: PORT }];
    let service = Service { name: "web".to_owned(), ports, groups: vec![group(1)] };
    let config = GateConfig {
        table: "postern".to_owned(),
        services: vec![service],
        failsafe: Vec::new(),
        on_expiry: OnExpiry::Drain,
        ownership,
    };
    GateTarget::new("gate", config, options).unwrap()
}

fn hosts(count: u32) -> Vec<Network> {
    (0..count)
        .map(|number| Network::host([10, 0, (number >> 8) as u8, number as u8].into()))
        .collect()
}

#[tokio::test]
async fn answers_that_overflow_the_socket_are_read_again() {
    netns::require();
    let options = NftOptions { no_destroy: true, receive_bytes: Some(1), ..NftOptions::default() };
    let mut gate = gate(Ownership::Auto, options);
    let before = now();
    gate.refresh(before).await.unwrap();
    let (soon, late) = (within(Duration::from_millis(50)), within(secs(3600)));
    let (closing, staying) = (&hosts(700)[..300], &hosts(700)[300..]);
    let closing = closing.iter().map(|host| (*host, soon));
    let add = closing.clone().chain(staying.iter().map(|host| (*host, late))).collect();
    gate.apply(&plans(group(1), Plan { add, ..Plan::default() }), now()).await.unwrap();
    eventually("they expire", || kernel_entries(group(1)).len() == 400);

    // As if nobody had noticed: every one of 300 deletions is refused, one by one.
    let next = Plan { remove: closing.collect(), ..adding(&["203.0.113.7"]) };
    let lost = gate.apply(&plans(group(1), next), before).await.unwrap_err();
    let again = gate.apply(&plans(group(1), adding(&["203.0.113.7"])), now()).await.unwrap_err();
    let refresh = gate.refresh(now()).await.unwrap();
    gate.apply(&plans(group(1), adding(&["203.0.113.7"])), now()).await.unwrap();

    assert!(matches!(lost, TargetError::Unreachable { .. }), "{lost}");
    assert!(lost.to_string().contains("answer is lost"), "{lost}");
    assert!(matches!(again, TargetError::Changed), "nothing is written before a look: {again}");
    assert!(matches!(refresh, Refresh::Reread { .. }));
    assert_eq!(kernel_entries(group(1)).len(), 401);
}

#[tokio::test]
async fn a_listing_that_is_interrupted_is_never_believed() {
    netns::require();
    let mut gate = gate(Ownership::Off, NftOptions::default());
    gate.refresh(now()).await.unwrap();
    let add: BTreeMap<_, _> =
        hosts(2_000).into_iter().map(|host| (host, within(secs(3600)))).collect();
    gate.apply(&plans(group(1), Plan { add: add.clone(), ..Plan::default() }), now())
        .await
        .unwrap();
    drop(gate);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let editor = std::thread::spawn(move || {
        let set = format!("inet postern allow-{}-v4-32", group(1));
        let mut edits = 0;
        while !stopped.load(Ordering::Relaxed) {
            nft(&format!("add element {set} {{ 10.9.9.9 timeout 1h }}"));
            nft(&format!("delete element {set} {{ 10.9.9.9 }}"));
            edits += 2;
        }
        edits
    });

    let mut read = 0;
    for _ in 0..10 {
        let mut fresh = self::gate(Ownership::Off, NftOptions::default());
        match fresh.refresh(now()).await {
            Ok(_) => {
                let seen = &fresh.observed()[&group(1)];
                assert!(add.keys().all(|network| seen.contains_key(network)), "{}", seen.len());
                assert!(seen.len() - add.len() <= 1);
                read += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("reading the table"), "{error}");
                assert!(fresh.observed()[&group(1)].is_empty());
            }
        }
    }

    stop.store(true, Ordering::Relaxed);
    assert!(0 < editor.join().unwrap());
    assert!(0 < read, "no listing ever got through");
}

#[tokio::test]
async fn a_change_during_ours_is_not_overlooked() {
    netns::require();
    let mut gate = gate(Ownership::Off, NftOptions::default());
    let hosts = hosts(3_000);
    let mut wanted: Allowlist = hosts.iter().map(|host| (*host, within(secs(3600)))).collect();
    pass(&mut gate, &wanted).await;
    let set = netns::kernel_sets("postern").remove(0);

    for round in 0..40 {
        let edit = format!("add element inet postern {set} {{ 10.9.9.{round} timeout 1h }}");
        let editor = std::thread::spawn(move || nft(&edit));
        // Less than half of the set, so that it stays the same set.
        let renew: BTreeMap<_, _> =
            hosts[..1_000].iter().map(|host| (*host, within(secs(3610 + 10 * round)))).collect();
        for (host, expiry) in &renew {
            wanted.set(*host, *expiry);
        }
        while !editor.is_finished() {
            let plan = Plan { renew: renew.clone(), ..Plan::default() };
            if gate.apply(&plans(group(1), plan), now()).await.is_err() {
                break;
            }
        }
        editor.join().unwrap();

        pass(&mut gate, &wanted).await;

        assert_eq!(kernel_entries(group(1)).len(), 3_000, "round {round}");
    }
}

/// Passes, as the agent makes them, until one gets through.
async fn pass(gate: &mut GateTarget, wanted: &Allowlist) {
    loop {
        let at = now();
        if gate.refresh(at).await.is_err() {
            continue;
        }
        let plan = plan(wanted, &gate.observed()[&group(1)], Scope::All, secs(2), at);
        if (plan.is_empty() && gate.is_settled())
            || gate.apply(&plans(group(1), plan), at).await.is_ok()
        {
            return;
        }
    }
}

#[tokio::test]
async fn without_the_right_to_it_one_sentence_says_what_is_missing() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    netns::require();
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
    let mut gate = gate(Ownership::Auto, NftOptions::default());

    let error = gate.refresh(now()).await.unwrap_err();

    assert!(matches!(error, TargetError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("needs CAP_NET_ADMIN"), "{error}");
}

/// What happens between two looks at the kernel.
#[derive(Debug, Clone)]
enum Event {
    List(Vec<(Network, u64)>),
    Withdraw(Vec<prop::sample::Index>),
    Restart,
    Flush,
}

/// Networks of a small corner, so that they often hold one another.
fn any_network() -> impl Strategy<Value = Network> {
    let v4 = (0u8..4, 0u8..8, 22u8..=32).prop_map(|(third, last, prefix)| {
        Network::containing([10, 1, third, last].into(), prefix).unwrap()
    });
    let v6 = (0u16..4, 0u16..4, 62u8..=66).prop_map(|(fourth, last, prefix)| {
        let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, fourth, 0, 0, 0, last);
        Network::containing(address.into(), prefix).unwrap()
    });
    prop_oneof![3 => v4, 1 => v6]
}

fn any_event() -> impl Strategy<Value = Event> {
    let left = prop_oneof![Just(3_600_000u64), Just(7_200_000), 100u64..600];
    let entries = prop::collection::vec((any_network(), left), 1..8);
    let indices = prop::collection::vec(any::<prop::sample::Index>(), 1..5);
    prop_oneof![
        6 => entries.prop_map(Event::List),
        3 => indices.prop_map(Event::Withdraw),
        1 => Just(Event::Restart),
        1 => Just(Event::Flush),
    ]
}

const PROBES: [&str; 8] = [
    "10.1.0.0",
    "10.1.0.5",
    "10.1.1.3",
    "10.1.3.7",
    "10.1.3.200",
    "10.2.0.1",
    "2001:db8:1::1",
    "2001:db8:1:3::3",
];

/// Carries one event through to the kernel, as a pass of the agent would.
async fn live_through(
    gate: &mut GateTarget,
    wanted: &mut Allowlist,
    event: &Event,
    ownership: Ownership,
) {
    let at = now();
    match event {
        Event::List(entries) => {
            for (network, left) in entries {
                let deadline = at.saturating_add(Duration::from_millis(*left));
                wanted.set(*network, postern_shared::time::Expiry::At(deadline));
            }
        }
        Event::Withdraw(indices) => {
            let networks: Vec<Network> = wanted.iter().map(|(network, _)| network).collect();
            for index in indices.iter().filter(|_| !networks.is_empty()) {
                wanted.remove(*index.get(&networks));
            }
        }
        Event::Restart => *gate = self::gate(ownership, NftOptions::default()),
        Event::Flush => drop(try_run("nft", &["flush", "ruleset"])),
    }
    let slack = Duration::from_millis(5);
    gate.refresh(at).await.unwrap();
    let at = now();
    let plan = plan(wanted, &gate.observed()[&group(1)], Scope::All, slack, at);
    gate.apply(&plans(group(1), plan), at).await.unwrap();
}

/// Whether an address is allowed; `None` close to a deadline, where either answer is right.
fn expected(wanted: &Allowlist, address: &str, at: Timestamp) -> Option<bool> {
    let margin = Duration::from_millis(60);
    let address = address.parse().unwrap();
    let holding = || wanted.iter().filter(|(network, _)| network.contains(address));
    if holding().any(|(_, expiry)| expiry.is_live_at(at.saturating_add(margin))) {
        return Some(true);
    }
    let recent = holding().any(|(_, expiry)| expiry.is_live_at(at.saturating_sub(margin)));
    if recent { None } else { Some(false) }
}

#[test]
fn random_histories_end_in_what_the_model_says() {
    let lab = Lab::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let histories = (any::<bool>(), prop::collection::vec(any_event(), 1..8));
    let result = TestRunner::new(config).run(&histories, |(owned, events)| {
        let ownership = if owned { Ownership::Auto } else { Ownership::Off };
        runtime.block_on(async {
            let mut gate = gate(ownership, NftOptions::default());
            let mut wanted = Allowlist::new();
            for event in &events {
                live_through(&mut gate, &mut wanted, event, ownership).await;
                for source in PROBES {
                    let before = now();
                    let reached = lab.reaches(source, PORT);
                    if let Some(expected) = expected(&wanted, source, before) {
                        prop_assert_eq!(reached, expected, "{} after {:?}", source, event);
                    }
                }
            }
            gate.purge().await.unwrap();
            Ok(())
        })
    });
    result.unwrap();
}
