//! What every target promises, held by those at Cloudflare. The witness is the fake's own state.

use postern_agent::target::Target;
use postern_agent::target::cloudflare::Cloudflare;

use crate::alike::AtFake;
use crate::fake::{FakeCloudflare, Temper};
use crate::promises;
use crate::scene::{self, Clock, Provider};
use crate::transport::{self, Hostility};

async fn keeps_the_contract<T: Target>(
    kind: Provider,
    start: fn(Cloudflare) -> T,
    v6: &'static str,
) {
    let fake = FakeCloudflare::new(1, Temper::default());
    scene::furnish(&fake);
    let client =
        || transport::client(&fake, 1, Hostility::NONE, Cloudflare::CALLS_PER_MINUTE_MAX).0;
    let (start, ours) = (|| start(client()), || scene::ours(kind, &fake));
    promises::holds(&AtFake { clock: Clock::start(), start, ours, v6 }).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_keeps_the_contract() {
    keeps_the_contract(Provider::List, scene::list, "2001:db8:1::/64").await;
}

#[tokio::test(start_paused = true)]
async fn access_rules_keep_the_contract() {
    let host = "2001:db8:1::7/128";
    keeps_the_contract(Provider::AccountRules, scene::account_rules, host).await;
    keeps_the_contract(Provider::ZoneRules, scene::zone_rules, host).await;
}
