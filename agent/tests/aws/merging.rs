//! Allowlists that hold more than AWS has room for. The witness is the fake's own state.

use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::aws::{AwsAccess, PrefixLists, SecurityGroup};
use postern_agent::target::marked::{Fitted, Marked, Shape};
use postern_shared::network::{Family, Network};
use postern_shared::policy::LocalPolicy;

use crate::fake::{FakeEc2, List, Temper};
use crate::provider::{Either, hosts_until};
use crate::scene::{self, Clock, Provider};
use crate::transport::{self, Hostility};

const HOUR: Duration = Duration::from_secs(3600);
/// What AWS has room for in each family; one place of it is somebody else's.
const ROOM: usize = 4;

type Merged = Either<Fitted<Marked<SecurityGroup>>, Fitted<Marked<PrefixLists>>>;

fn furnished(kind: Provider) -> FakeEc2 {
    let fake = FakeEc2::new(1, Temper { rules_max: ROOM, ..Temper::default() });
    scene::furnish(&fake);
    fake.state().lists.insert(scene::V4_LIST.to_owned(), List::new(Family::V4, ROOM));
    scene::meddle(kind, &fake, "203.0.113.9/32".parse().unwrap(), "theirs");
    fake
}

fn start(kind: Provider, fake: &FakeEc2) -> Merged {
    let (ec2, _) = transport::client(fake, 1, Hostility::NONE, AwsAccess::CALLS_PER_MINUTE);
    let policy = LocalPolicy::default();
    match kind {
        Provider::SecurityGroup => Either::One(
            Fitted::new(scene::security_group_of(ec2, ROOM), Shape::ANY)
                .merging(|marked| marked.provider().room(), &policy),
        ),
        Provider::PrefixList => Either::Other(
            Fitted::new(scene::prefix_lists(ec2), Shape::ANY)
                .merging(|marked| marked.provider().room(), &policy),
        ),
    }
}

fn held(kind: Provider, fake: &FakeEc2) -> Vec<String> {
    scene::ours(kind, fake).keys().map(Network::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_merged_exactly_and_taken_apart_again() {
    for kind in Provider::ALL {
        let (fake, clock) = (furnished(kind), Clock::start());
        let mut target = start(kind, &fake);

        target.pass(&hosts_until(&[(4, 60), (5, 60), (9, 60)]), clock).await.unwrap();
        let three = ["198.51.100.4/32", "198.51.100.5/32", "198.51.100.9/32"];
        assert_eq!(held(kind, &fake), three, "{kind:?}");

        let five = hosts_until(&[(4, 60), (5, 60), (6, 30), (7, 60), (9, 60)]);
        target.pass(&five, clock).await.unwrap();
        assert_eq!(held(kind, &fake), ["198.51.100.4/30", "198.51.100.9/32"], "{kind:?}");
        let merged = scene::ours(kind, &fake)[&"198.51.100.4/30".parse().unwrap()];
        let left = merged.left_at(clock.now()).unwrap();
        assert!(left <= HOUR / 2, "{kind:?}: nobody is let in longer than it was said: {left:?}");

        assert_eq!(target.pass(&five, clock).await.unwrap(), 0, "{kind:?}");
        start(kind, &fake).pass(&five, clock).await.unwrap();
        let left = held(kind, &fake);
        assert_eq!(left, ["198.51.100.4/30", "198.51.100.9/32"], "{kind:?}: a fresh agent's");

        target.pass(&hosts_until(&[(4, 60), (5, 60), (7, 60)]), clock).await.unwrap();
        let three = ["198.51.100.4/32", "198.51.100.5/32", "198.51.100.7/32"];
        assert_eq!(held(kind, &fake), three, "{kind:?}");
        assert_eq!(scene::foreign(kind, &fake).len(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_merging_makes_fit_is_refused_before_anything_is_opened() {
    for kind in Provider::ALL {
        let (fake, clock) = (furnished(kind), Clock::start());
        let apart = hosts_until(&[(1, 60), (3, 60), (5, 60), (7, 60)]);

        let full = start(kind, &fake).pass(&apart, clock).await;

        let is_full = matches!(full, Err(TargetError::Full { wanted: 5, capacity: ROOM }));
        assert!(is_full, "{kind:?}: {full:?}");
        assert!(held(kind, &fake).is_empty(), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_family_that_has_room_is_left_as_it_is() {
    for kind in Provider::ALL {
        let (fake, clock) = (furnished(kind), Clock::start());
        let v4 = hosts_until(&[(4, 60), (5, 60), (6, 60), (7, 60)]);
        let v6 = scene::wanted(clock, &["2001:db8:0:2::/64", "2001:db8:0:3::/64"], HOUR);
        let wanted = v4.iter().chain(v6.iter()).collect();

        start(kind, &fake).pass(&wanted, clock).await.unwrap();

        let left = ["198.51.100.4/30", "2001:db8:0:2::/64", "2001:db8:0:3::/64"];
        assert_eq!(held(kind, &fake), left, "{kind:?}");
    }
}
