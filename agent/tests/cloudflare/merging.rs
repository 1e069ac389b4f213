//! Lists that hold more than an account has room for. The witness is the fake's own state.

use std::collections::BTreeSet;
use std::time::Duration;

use postern_agent::target::cloudflare::{IpList, ListConfig};
use postern_agent::target::marked::{Fitted, Marked};
use postern_agent::target::{Target as _, TargetError};
use postern_shared::policy::LocalPolicy;

use crate::fake::{FakeCloudflare, Temper};
use crate::provider::{hosts_until, pass};
use crate::scene::{self, Clock, OWNER};
use crate::transport::{self, Hostility};

const HOUR: Duration = Duration::from_secs(3600);
/// What the account holds; one item of it is in somebody else's list.
const ITEMS_MAX: usize = 4;

type Merged = Fitted<Marked<IpList>>;

fn furnished() -> FakeCloudflare {
    let fake = FakeCloudflare::new(1, Temper { items_max: ITEMS_MAX, ..Temper::default() });
    scene::furnish(&fake);
    fake
}

fn start(fake: &FakeCloudflare) -> Merged {
    let (cloudflare, _) = transport::client(fake, 1, Hostility::NONE, 120);
    let config = ListConfig { items_max: ITEMS_MAX, ..scene::list_config() };
    let provider = IpList::new(cloudflare, config, OWNER);
    let marked = Marked::new("edge", OWNER, BTreeSet::from([scene::group()]), provider);
    Fitted::new(marked, IpList::shape(None))
        .merging(|marked| marked.provider().room(), &LocalPolicy::default())
}

fn items(fake: &FakeCloudflare) -> Vec<String> {
    let ours = scene::ours(scene::Provider::List, fake);
    ours.keys().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_merged_exactly_and_taken_apart_again() {
    let (fake, clock) = (furnished(), Clock::start());
    let mut target = start(&fake);

    pass(&mut target, &hosts_until(&[(4, 60), (5, 60), (9, 60)]), clock).await.unwrap();
    assert_eq!(items(&fake), ["198.51.100.4/32", "198.51.100.5/32", "198.51.100.9/32"]);

    let five = hosts_until(&[(4, 60), (5, 60), (6, 30), (7, 60), (9, 60)]);
    pass(&mut target, &five, clock).await.unwrap();
    assert_eq!(items(&fake), ["198.51.100.4/30", "198.51.100.9/32"]);
    let left = scene::ours(scene::Provider::List, &fake);
    let earliest = left[&"198.51.100.4/30".parse().unwrap()].left_at(clock.now()).unwrap();
    assert!(earliest <= HOUR / 2, "nobody is let in longer than it was said: {earliest:?}");

    let again = pass(&mut target, &five, clock).await.unwrap();
    assert!(again == 0 && target.is_settled(), "{again}");
    pass(&mut start(&fake), &five, clock).await.unwrap();
    assert_eq!(items(&fake), ["198.51.100.4/30", "198.51.100.9/32"], "a fresh agent leaves it so");

    pass(&mut target, &hosts_until(&[(4, 60), (5, 60), (7, 60)]), clock).await.unwrap();
    assert_eq!(items(&fake), ["198.51.100.4/32", "198.51.100.5/32", "198.51.100.7/32"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_merging_makes_fit_is_refused_before_anything_is_opened() {
    let (fake, clock) = (furnished(), Clock::start());
    let mut target = start(&fake);

    let apart = hosts_until(&[(1, 60), (3, 60), (5, 60), (7, 60)]);
    let full = pass(&mut target, &apart, clock).await;

    assert!(matches!(full, Err(TargetError::Full { wanted: 5, capacity: 4 })), "{full:?}");
    assert!(items(&fake).is_empty());
}
