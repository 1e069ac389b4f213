//! A thousand runs against a bad world, in which EC2 has a bucket of calls besides.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::aws::{AwsAccess, PrefixLists, SecurityGroup};
use postern_agent::target::marked::Marked;
use postern_shared::network::Network;
use postern_shared::time::Expiry;

use crate::bad_way::Hostility;
use crate::chance::Chance;
use crate::fake::{FakeEc2, Temper};
use crate::provider::{Either, Sent};
use crate::runs::{World, foreign_network, runs};
use crate::scene::{self, Provider};
use crate::transport;

const CALLS_PER_MINUTE: u16 = AwsAccess::CALLS_PER_MINUTE;

#[test]
fn a_security_group_comes_out_right_from_250_seeds() {
    runs::<Region>(Provider::SecurityGroup, 0..250);
}

#[test]
fn a_security_group_comes_out_right_from_250_more() {
    runs::<Region>(Provider::SecurityGroup, 250..500);
}

#[test]
fn prefix_lists_come_out_right_from_250_seeds() {
    runs::<Region>(Provider::PrefixList, 500..750);
}

#[test]
fn prefix_lists_come_out_right_from_250_more() {
    runs::<Region>(Provider::PrefixList, 750..1000);
}

struct Region {
    kind: Provider,
    fake: FakeEc2,
}

impl World for Region {
    type Kind = Provider;
    type One = Marked<SecurityGroup>;
    type Other = Marked<PrefixLists>;

    const SLACK: Duration = Duration::ZERO;
    const CALLS: &[(usize, Duration)] = &[(CALLS_PER_MINUTE as usize, Duration::from_secs(60))];
    const FOREIGN: u8 = 3;

    fn new(kind: Provider, seed: u64, chance: &mut Chance) -> Region {
        // The SDK's own, for the waits between its attempts.
        fastrand::seed(seed);
        let temper = Temper {
            behind_max: chance.up_to(Duration::from_secs(10)),
            working: chance.up_to(Duration::from_secs(4)),
            page_max: 5 + chance.below(20),
            repeats: chance.once_in(2),
            bucket: if chance.once_in(3) { (4.0, 0.5) } else { (100.0, 20.0) },
            rules_max: 60,
        };
        let fake = FakeEc2::new(chance.next(), temper);
        scene::furnish(&fake);
        Region { kind, fake }
    }

    fn start(&self, seed: u64, hostility: Hostility) -> (Either<Self::One, Self::Other>, Sent) {
        let (ec2, sent) = transport::client(&self.fake, seed, hostility, CALLS_PER_MINUTE);
        (scene::start(self.kind, ec2), sent)
    }

    fn ours(&self) -> BTreeMap<Network, Expiry> {
        scene::ours(self.kind, &self.fake)
    }

    fn foreign(&self) -> BTreeMap<Network, String> {
        scene::foreign(self.kind, &self.fake)
    }

    fn meddle(&self, network: Network, text: &str) {
        scene::meddle(self.kind, &self.fake, network, text);
    }

    fn take_away(&self, network: Network) {
        scene::take_away(self.kind, &self.fake, network);
    }

    fn others_add(chance: &mut Chance) -> Network {
        foreign_network(3 + chance.below(8) as u8)
    }

    fn expire(&self, is_expired: bool) {
        self.fake.state().is_expired = is_expired;
    }

    fn get_fair(&self) {
        let mut state = self.fake.state();
        state.temper.behind_max = Duration::ZERO;
        state.temper.bucket = (100.0, 20.0);
    }
}
