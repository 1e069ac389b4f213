//! A thousand runs against a bad world: beside what is bad everywhere, changes break off in the middle,
//! and others keep the account busy.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::cloudflare::{AccessRules, Cloudflare, IpList};
use postern_agent::target::marked::{Fitted, Marked};
use postern_shared::network::Network;
use postern_shared::time::Expiry;

use crate::bad_way::Hostility;
use crate::chance::Chance;
use crate::fake::{FakeCloudflare, Temper};
use crate::provider::{Either, Sent};
use crate::runs::{World, runs};
use crate::scene::{self, Provider};
use crate::transport;

const CALLS_PER_MINUTE: u16 = Cloudflare::CALLS_PER_MINUTE_MAX;

#[test]
fn a_list_comes_out_right_from_250_seeds() {
    runs::<Account>(Provider::List, 0..250);
}

#[test]
fn a_list_comes_out_right_from_250_more() {
    runs::<Account>(Provider::List, 250..500);
}

#[test]
fn access_rules_come_out_right_from_250_seeds() {
    runs::<Account>(Provider::AccountRules, 500..750);
}

#[test]
fn access_rules_come_out_right_from_250_more() {
    runs::<Account>(Provider::ZoneRules, 750..1000);
}

struct Account {
    kind: Provider,
    fake: FakeCloudflare,
}

impl World for Account {
    type Kind = Provider;
    type One = Fitted<Marked<IpList>>;
    type Other = Fitted<Marked<AccessRules>>;

    const SLACK: Duration = Duration::from_millis(500);
    const CALLS: &[(usize, Duration)] = &[
        (CALLS_PER_MINUTE as usize, Duration::from_secs(60)),
        (5 * CALLS_PER_MINUTE as usize, Duration::from_secs(300)),
    ];
    const FOREIGN: u8 = 4;
    const SEEN_AFTER: Duration = Duration::from_secs(11);
    const IS_BUSY: bool = true;

    fn new(kind: Provider, _: u64, chance: &mut Chance) -> Account {
        let temper = Temper {
            behind_max: chance.up_to(Duration::from_secs(10)),
            working_max: chance.up_to(Duration::from_secs(5)),
            breaks_once_in: if chance.once_in(2) { 3 + chance.below(6) } else { 0 },
            page_max: 5 + chance.below(20),
            repeats: chance.once_in(2),
            says_when: chance.once_in(2),
            ..Temper::default()
        };
        let fake = FakeCloudflare::new(chance.next(), temper);
        scene::furnish(&fake);
        Account { kind, fake }
    }

    fn start(&self, seed: u64, hostility: Hostility) -> (Either<Self::One, Self::Other>, Sent) {
        let (client, sent) = transport::client(&self.fake, seed, hostility, CALLS_PER_MINUTE);
        (scene::start(self.kind, client), sent)
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

    /// Not where we may be about to add: Cloudflare adds no item only if it is not there, and what was
    /// added within the last seconds no read need show. SECURITY.md says so.
    fn others_add(chance: &mut Chance) -> Network {
        Network::host([203, 0, 113, 10 + chance.below(8) as u8].into())
    }

    fn keep_busy(&self, chance: &mut Chance) {
        let span = chance.up_to(Duration::from_secs(12));
        self.fake.state().keep_busy(scene::OTHER_LIST, span);
    }

    fn expire(&self, is_expired: bool) {
        self.fake.state().is_expired = is_expired;
    }

    fn get_fair(&self) {
        let mut state = self.fake.state();
        state.temper.behind_max = Duration::ZERO;
        state.temper.breaks_once_in = 0;
    }

    /// A change that broke off more often than it was tried.
    fn may_pass(reason: &str) -> bool {
        reason.contains("failed")
    }
}
