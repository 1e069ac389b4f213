//! What every target promises, held by those in AWS. The witness is the fake's own state.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::Target;
use postern_agent::target::aws::{AwsAccess, Ec2, PrefixLists, SecurityGroup};
use postern_agent::target::marked::Marked;
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::Timestamp;

use crate::fake::{FakeEc2, Temper};
use crate::promises::{self, Subject};
use crate::scene::{self, Clock, Provider};
use crate::transport::{self, Hostility};

struct AtFake<T> {
    kind: Provider,
    fake: FakeEc2,
    clock: Clock,
    start: fn(Ec2) -> T,
}

impl<T: Target> Subject for AtFake<T> {
    type Target = T;

    fn group(&self) -> GroupId {
        scene::group()
    }

    fn start(&self) -> T {
        let calls = AwsAccess::CALLS_PER_MINUTE;
        (self.start)(transport::client(&self.fake, 1, Hostility::NONE, calls).0)
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let now = self.clock.now();
        let left = |expiry: postern_shared::time::Expiry| expiry.left_at(now).unwrap();
        let ours = scene::ours(self.kind, &self.fake).into_iter();
        ours.map(|(network, expiry)| (network, left(expiry))).collect()
    }

    /// EC2 tells nobody; what others change is found by the next read.
    fn meddle(&self) -> bool {
        false
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn renews_late(&self) -> bool {
        true
    }
}

fn subject<T>(kind: Provider, start: fn(Ec2) -> T) -> AtFake<T> {
    let fake = FakeEc2::new(1, Temper::default());
    scene::furnish(&fake);
    AtFake { kind, fake, clock: Clock::start(), start }
}

#[tokio::test(start_paused = true)]
async fn a_security_group_keeps_the_contract() {
    promises::holds(&subject::<Marked<SecurityGroup>>(
        Provider::SecurityGroup,
        scene::security_group,
    ))
    .await;
}

#[tokio::test(start_paused = true)]
async fn prefix_lists_keep_the_contract() {
    promises::holds(&subject::<Marked<PrefixLists>>(Provider::PrefixList, scene::prefix_lists))
        .await;
}
