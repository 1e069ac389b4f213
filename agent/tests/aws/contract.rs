//! What every target promises, held by those in AWS. The witness is the fake's own state.

use postern_agent::target::Target;
use postern_agent::target::aws::{AwsAccess, Ec2};

use crate::alike::AtFake;
use crate::fake::{FakeEc2, Temper};
use crate::promises;
use crate::scene::{self, Clock, Provider};
use crate::transport::{self, Hostility};

async fn keeps_the_contract<T: Target>(kind: Provider, start: fn(Ec2) -> T) {
    let fake = FakeEc2::new(1, Temper::default());
    scene::furnish(&fake);
    let client = || transport::client(&fake, 1, Hostility::NONE, AwsAccess::CALLS_PER_MINUTE).0;
    let (start, ours) = (|| start(client()), || scene::ours(kind, &fake));
    promises::holds(&AtFake { clock: Clock::start(), start, ours, v6: "2001:db8:1::7/128" }).await;
}

#[tokio::test(start_paused = true)]
async fn a_security_group_keeps_the_contract() {
    keeps_the_contract(Provider::SecurityGroup, scene::security_group).await;
}

#[tokio::test(start_paused = true)]
async fn prefix_lists_keep_the_contract() {
    keeps_the_contract(Provider::PrefixList, scene::prefix_lists).await;
}
