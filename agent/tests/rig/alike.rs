//! What tests of all providers do in the same way, whatever the provider.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_agent::target::Target;
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};

use crate::promises::Subject;
use crate::provider::{Clock, Either, group, hosts_until, wanted};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// A provider's target, for the contract: its fake is the witness.
pub(crate) struct AtFake<S, O> {
    pub(crate) clock: Clock,
    /// Makes the target as a fresh process would.
    pub(crate) start: S,
    /// What is in force with our mark, and until when.
    pub(crate) ours: O,
    /// A network of IPv6 that the target holds as it is.
    pub(crate) v6: &'static str,
}

impl<T: Target, S: Fn() -> T, O: Fn() -> BTreeMap<Network, Expiry>> Subject for AtFake<S, O> {
    type Target = T;

    fn group(&self) -> GroupId {
        group()
    }

    fn start(&self) -> T {
        (self.start)()
    }

    fn in_force(&self) -> BTreeMap<Network, Duration> {
        let now = self.clock.now();
        let left = |expiry: Expiry| expiry.left_at(now).unwrap();
        (self.ours)().into_iter().map(|(network, expiry)| (network, left(expiry))).collect()
    }

    /// Providers tell nobody; what others change is found by the next read.
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
        self.v6
    }
}

/// What changes cost in calls, which `count` counts since it was last asked: the rows of README's tables,
/// 1 address in, 1 out, 100 at once, an hour in which nothing happens. Twenty are in force before. `make`
/// has a list be in force.
pub(crate) async fn costs(
    clock: Clock,
    count: impl Fn() -> usize,
    mut make: impl AsyncFnMut(&Allowlist),
) -> [usize; 4] {
    let until = Expiry::At(clock.now().saturating_add(DAY));
    let mut wanted: Allowlist = (0..20).map(|n| (host(n), until)).collect();
    make(&wanted).await;
    let changes: [&dyn Fn(&mut Allowlist); 3] = [
        &|wanted| {
            wanted.set(host(100), until);
        },
        &|wanted| {
            wanted.remove(host(100));
        },
        &|wanted| {
            for n in 101..201 {
                wanted.set(host(n), until);
            }
        },
    ];
    let mut rows = [0; 4];
    for (change, row) in changes.into_iter().zip(&mut rows) {
        // As between two readings.
        tokio::time::sleep(MINUTE).await;
        make(&wanted).await;
        tokio::time::sleep(MINUTE / 2).await;
        count();
        change(&mut wanted);
        make(&wanted).await;
        *row = count();
    }
    for _ in 0..60 {
        tokio::time::sleep(MINUTE).await;
        make(&wanted).await;
    }
    rows[3] = count();
    rows
}

/// A process that has no list, and so no plans, takes away what is overdue and nothing else.
pub(crate) async fn a_fresh_agent_sweeps<A: Target, B: Target>(
    start: impl Fn() -> Either<A, B>,
    ours: impl Fn() -> BTreeMap<Network, Expiry>,
) {
    let clock = Clock::start();
    let both = hosts_until(&[(1, 2), (2, 60)]);
    start().pass(&both, clock).await.unwrap();
    tokio::time::sleep(5 * MINUTE).await;

    start().sweep(clock).await.unwrap();

    assert_eq!(ours().into_keys().collect::<Vec<_>>(), [host(2)]);
}

/// Flushing takes ours, and leaves what `foreign` shows as it is.
pub(crate) async fn flush_takes_ours<A: Target, B: Target>(
    mut target: Either<A, B>,
    ours: impl Fn() -> BTreeMap<Network, Expiry>,
    foreign: impl Fn() -> BTreeMap<Network, String>,
) {
    let (clock, before) = (Clock::start(), foreign());
    let both = wanted(clock, &["198.51.100.1/32", "2001:db8::/64"], HOUR);
    target.pass(&both, clock).await.unwrap();
    let open = ours().len();

    target.flush().await.unwrap();

    assert_eq!((open, ours().len()), (2, 0));
    assert!(!before.is_empty() && foreign() == before, "{before:?}");
}

fn host(n: u8) -> Network {
    Network::host([198, 51, 100, n].into())
}
