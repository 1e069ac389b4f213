//! The same bad way in front of moto: its rules must come out right as well.

use std::collections::BTreeSet;
use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::aws::{SecurityGroup, SecurityGroupConfig};
use postern_agent::target::marked::Marked;
use postern_agent::target::nft::{Ports, Protocol};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::time::Expiry;

use crate::chance::Chance;
use crate::moto::Moto;
use crate::provider::Either;
use crate::scene::{self, Clock, Kept, OWNER};
use crate::transport::{self, End, Hostility};

const SEEDS: u64 = 6;
const STEPS: usize = 4;
const CALLS_PER_MINUTE: u16 = 600;

/// All at once: they wait for most of their time.
#[tokio::test]
async fn rules_at_moto_come_out_right_behind_a_hostile_way() {
    let moto = Moto::start();

    futures_util::future::join_all((0..SEEDS).map(|seed| run(&moto, seed))).await;
}

async fn run(moto: &Moto, seed: u64) {
    let mut chance = Chance::new(seed);
    let group = moto.make_group().await;
    let clock = Clock::start();
    let deadline = Expiry::At(clock.now().saturating_add(Duration::from_secs(86_400)));
    let mut wanted = Allowlist::new();
    let late = Duration::from_millis(20);
    let hostility = Hostility { once_in: 4, delay_max: late, is_slow: false };

    for _ in 0..STEPS {
        for _ in 0..4 {
            let network = Network::host([198, 51, 100, chance.below(20) as u8].into());
            if chance.once_in(3) {
                wanted.remove(network);
            } else {
                wanted.set(network, deadline);
            }
        }
        // A fresh process each time, which knows nothing but what moto shows.
        let end = End::Moto(moto.url.clone());
        let (ec2, _) = transport::to(end, chance.next(), hostility, CALLS_PER_MINUTE);
        let mut target = Either::One(target(ec2, &group));
        until_done(&mut target, &wanted, clock).await;
    }

    let rules = moto.rules(&group).await;
    let open: BTreeSet<&str> = rules.iter().filter_map(|rule| rule.split(' ').next()).collect();
    let networks: Vec<String> = wanted.iter().map(|(network, _)| network.to_string()).collect();
    assert_eq!(open, networks.iter().map(String::as_str).collect(), "seed {seed}");
    assert_eq!(rules.len(), networks.len(), "seed {seed}: no rule twice");
}

fn target(ec2: postern_agent::target::aws::Ec2, group: &str) -> Marked<SecurityGroup> {
    let ports = vec![Ports { protocol: Protocol::Tcp, first: 22, last: 22 }];
    let config = SecurityGroupConfig { group: group.to_owned(), ports, rules_max: 60 };
    let provider = SecurityGroup::new(ec2, config, OWNER);
    Marked::new("edge", OWNER, BTreeSet::from([scene::group()]), provider)
}

async fn until_done(target: &mut Kept, wanted: &Allowlist, clock: Clock) {
    loop {
        match target.pass(wanted, clock).await {
            Ok(_) => return,
            // The SDK has waited already.
            Err(TargetError::Throttled { .. } | TargetError::Unreachable { .. }) => {}
            Err(error) => assert!(matches!(error, TargetError::Changed), "{error}"),
        }
    }
}
