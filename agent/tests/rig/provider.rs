//! What tests of targets at providers have in common, whatever the provider.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_agent::target::marked::Mark;
use postern_agent::target::{Target, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Plan, Scope, plan};
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

pub(crate) const OWNER: &str = "edge";

/// When calls were sent, whatever became of them.
pub(crate) type Sent = Arc<Mutex<Vec<Instant>>>;

/// Our time, which follows tokio's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

/// Either of a provider's targets, behind one set of methods.
pub(crate) enum Either<A, B> {
    One(A),
    Other(B),
}

/// The one group that targets keep.
pub(crate) fn group() -> GroupId {
    GroupId::from_random([7; 16])
}

/// Until when an entry of this text is ours; none where it is not.
pub(crate) fn deadline(text: &str) -> Option<Expiry> {
    Mark::read(text, OWNER, &BTreeSet::from([group()]))?.0.get(&group()).copied()
}

pub(crate) fn wanted(clock: Clock, networks: &[&str], ttl: Duration) -> Allowlist {
    let expiry = Expiry::At(clock.now().saturating_add(ttl));
    networks.iter().map(|network| (network.parse().unwrap(), expiry)).collect()
}

/// These hosts of one network, by their last byte, each until so many minutes after the test began.
pub(crate) fn hosts_until(hosts: &[(u8, u32)]) -> Allowlist {
    let host = |(last, minutes): &(u8, u32)| {
        let host = Network::host(Ipv4Addr::new(198, 51, 100, *last).into());
        (host, Expiry::At(began().saturating_add(Duration::from_secs(60) * *minutes)))
    };
    hosts.iter().map(host).collect()
}

fn began() -> Timestamp {
    Timestamp::from_unix_ms(1_800_000_000_000).unwrap()
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        began().saturating_add(self.0.elapsed())
    }
}

impl<A: Target, B: Target> Either<A, B> {
    /// One pass, as the agent makes it; answers how many entries it changed.
    pub(crate) async fn pass(
        &mut self,
        wanted: &Allowlist,
        clock: Clock,
    ) -> Result<usize, TargetError> {
        match self {
            Either::One(target) => pass(target, wanted, clock).await,
            Either::Other(target) => pass(target, wanted, clock).await,
        }
    }

    /// What the agent does while a group has no list: nothing is planned, and yet applied.
    pub(crate) async fn sweep(&mut self, clock: Clock) -> Result<(), TargetError> {
        match self {
            Either::One(target) => sweep(target, clock).await,
            Either::Other(target) => sweep(target, clock).await,
        }
    }

    pub(crate) async fn disturbed(&mut self) {
        match self {
            Either::One(target) => target.disturbed().await,
            Either::Other(target) => target.disturbed().await,
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), TargetError> {
        match self {
            Either::One(target) => target.flush().await,
            Either::Other(target) => target.flush().await,
        }
    }
}

/// One pass, as the agent makes it; answers how many entries it changed.
pub(crate) async fn pass<T: Target>(
    target: &mut T,
    wanted: &Allowlist,
    clock: Clock,
) -> Result<usize, TargetError> {
    target.refresh(clock.now()).await?;
    let observed = &target.observed()[&group()];
    let plan = plan(wanted, observed, Scope::All, Duration::from_millis(500), clock.now());
    let steps = plan.len();
    if steps != 0 || !target.is_settled() {
        let plans: BTreeMap<GroupId, Plan> = BTreeMap::from([(group(), plan)]);
        target.apply(&plans, clock.now()).await?;
    }
    Ok(steps)
}

async fn sweep<T: Target>(target: &mut T, clock: Clock) -> Result<(), TargetError> {
    target.refresh(clock.now()).await?;
    target.apply(&BTreeMap::new(), clock.now()).await
}
