//! What every target promises, held by those at Cloudflare. The witness is the fake's own state.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::Target;
use postern_agent::target::cloudflare::{AccessRules, Cloudflare, IpList};
use postern_agent::target::marked::{Fitted, Marked};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};

use crate::fake::{FakeCloudflare, Temper};
use crate::promises::{self, Subject};
use crate::scene::{self, Clock, Provider};
use crate::transport::{self, Hostility};

struct AtFake<T> {
    kind: Provider,
    fake: FakeCloudflare,
    clock: Clock,
    start: fn(Cloudflare) -> T,
}

impl<T: Target> Subject for AtFake<T> {
    type Target = T;

    fn group(&self) -> GroupId {
        scene::group()
    }

    fn start(&self) -> T {
        let calls = Cloudflare::CALLS_PER_MINUTE_MAX;
        (self.start)(transport::client(&self.fake, 1, Hostility::NONE, calls).0)
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let now = self.clock.now();
        let left = |expiry: Expiry| expiry.left_at(now).unwrap();
        let ours = scene::ours(self.kind, &self.fake).into_iter();
        ours.map(|(network, expiry)| (network, left(expiry))).collect()
    }

    /// Cloudflare tells nobody; what others change is found by the next read.
    fn meddle(&self) -> bool {
        false
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn renews_late(&self) -> bool {
        true
    }

    fn v6(&self) -> &'static str {
        match self.kind {
            Provider::List => "2001:db8:1::/64",
            Provider::AccountRules | Provider::ZoneRules => "2001:db8:1::7/128",
        }
    }
}

fn subject<T>(kind: Provider, start: fn(Cloudflare) -> T) -> AtFake<T> {
    let fake = FakeCloudflare::new(1, Temper::default());
    scene::furnish(&fake);
    AtFake { kind, fake, clock: Clock::start(), start }
}

#[tokio::test(start_paused = true)]
async fn a_list_keeps_the_contract() {
    promises::holds(&subject::<Fitted<Marked<IpList>>>(Provider::List, scene::list)).await;
}

#[tokio::test(start_paused = true)]
async fn access_rules_keep_the_contract() {
    for (kind, start) in [
        (Provider::AccountRules, scene::account_rules as fn(_) -> _),
        (Provider::ZoneRules, scene::zone_rules),
    ] {
        promises::holds(&subject::<Fitted<Marked<AccessRules>>>(kind, start)).await;
    }
}
