//! Single things that go wrong, each for itself.

use std::time::Duration;

use postern_agent::target::TargetError;
use postern_agent::target::aws::{
    AwsAccess, Ec2, PrefixLists, PrefixListsConfig, SecurityGroup, SecurityGroupConfig,
};
use postern_agent::target::marked::{Edits, Provider as _};
use postern_agent::target::nft::{Ports, Protocol};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::{Family, Network};

use crate::alike;
use crate::fake::{FakeEc2, List, Temper};
use crate::scene::{self, Clock, GROUP, OWNER, Provider, V4_LIST};
use crate::transport::{self, Hostility};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn furnished(temper: Temper) -> FakeEc2 {
    let fake = FakeEc2::new(1, temper);
    scene::furnish(&fake);
    fake
}

fn client(fake: &FakeEc2) -> Ec2 {
    transport::client(fake, 1, Hostility::NONE, AwsAccess::CALLS_PER_MINUTE).0
}

fn put(networks: impl IntoIterator<Item = Network>) -> Edits {
    let put = networks.into_iter().map(|network| (network, format!("postern {OWNER} ")));
    Edits { put: put.collect(), ..Edits::default() }
}

fn hosts(count: u8) -> impl Iterator<Item = Network> {
    (0..count).map(|last| Network::host([198, 51, 100, last].into()))
}

fn lists(fake: &FakeEc2, v4: &str, grow_to: Option<usize>) -> PrefixLists {
    let config = PrefixListsConfig { v4: Some(v4.to_owned()), v6: None, grow_to };
    PrefixLists::new(client(fake), config, OWNER)
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_called_so() {
    for kind in Provider::ALL {
        let fake = furnished(Temper::default());
        fake.state().is_expired = true;
        let clock = Clock::start();

        let refused = scene::start(kind, client(&fake)).pass(&Allowlist::new(), clock).await;

        let error = refused.unwrap_err();
        assert!(matches!(error, TargetError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("credentials for AWS are expired"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_throttled_waits_and_comes_through() {
    let fake = furnished(Temper { bucket: (1.0, 0.2), ..Temper::default() });
    let clock = Clock::start();
    let mut target = scene::start(Provider::SecurityGroup, client(&fake));
    let wanted = scene::wanted(clock, &["198.51.100.7/32"], HOUR);

    while let Err(error) = target.pass(&wanted, clock).await {
        let TargetError::Throttled { wait } = error else { panic!("{error}") };
        tokio::time::sleep(wait).await;
    }

    assert_eq!(scene::ours(Provider::SecurityGroup, &fake).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_somebody_else_edits_is_read_again() {
    let fake = furnished(Temper::default());
    let mut target = lists(&fake, V4_LIST, None);
    target.read().await.unwrap();
    let theirs: Network = "203.0.113.1/32".parse().unwrap();
    scene::meddle(Provider::PrefixList, &fake, theirs, "office");

    let refused = target.write(&put(hosts(1))).await;
    target.read().await.unwrap();
    target.write(&put(hosts(1))).await.unwrap();

    assert!(matches!(refused, Err(TargetError::Changed)), "{refused:?}");
    let entries: Vec<Network> = fake.state().lists[V4_LIST].entries().keys().copied().collect();
    assert_eq!(entries, hosts(1).chain([theirs]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_list_grows_only_where_that_is_allowed_and_no_more_than_that() {
    let fake = furnished(Temper::default());
    let small = "pl-0000000000000005a";
    fake.state().lists.insert(small.to_owned(), List::new(Family::V4, 3));
    let (mut fixed, mut growing) = (lists(&fake, small, None), lists(&fake, small, Some(12)));
    fixed.read().await.unwrap();

    let said = fixed.preview(&put(hosts(4)));
    let refused = fixed.write(&put(hosts(4))).await;
    let untouched = fake.state().lists[small].versions.len();
    growing.read().await.unwrap();
    growing.write(&put(hosts(4))).await.unwrap();
    let grown = fake.state().lists[small].entries_max;
    growing.read().await.unwrap();
    let beyond = growing.write(&put(hosts(13))).await;

    assert!(said.contains("entries now 0; then 4; limit 3"), "{said}");
    assert!(matches!(refused, Err(TargetError::Full { wanted: 4, capacity: 3 })), "{refused:?}");
    assert_eq!((untouched, grown), (1, 10));
    assert!(matches!(beyond, Err(TargetError::Full { wanted: 13, capacity: 10 })), "{beyond:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_gone_is_told_and_holds_up_nothing_of_the_other() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let mut target = scene::start(Provider::PrefixList, client(&fake));
    let (v4, v6) = ("198.51.100.7/32", "2001:db8::/64");
    target.pass(&scene::wanted(clock, &[v4, v6], HOUR), clock).await.unwrap();
    fake.state().lists.remove(V4_LIST);
    tokio::time::sleep(MINUTE).await;

    let other = scene::wanted(clock, &[v4, "2001:db8:1::/64"], HOUR);
    let refused = target.pass(&other, clock).await.unwrap_err();
    let open: Vec<Network> = scene::ours(Provider::PrefixList, &fake).into_keys().collect();
    // The agent may have no word of who is to get in, and what is over must end all the same.
    tokio::time::sleep(2 * HOUR).await;
    let swept = target.sweep(clock).await.unwrap_err();
    let left = scene::ours(Provider::PrefixList, &fake);

    for refused in [refused, swept] {
        assert!(matches!(refused, TargetError::Rejected { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains(V4_LIST) && said.contains("give the target another one"), "{said}");
    }
    assert_eq!(open, ["2001:db8:1::/64".parse().unwrap()]);
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_in_sync_again_once_it_is_there_again() {
    for kind in Provider::ALL {
        let fake = furnished(Temper::default());
        let clock = Clock::start();
        let wanted = scene::wanted(clock, &["198.51.100.7/32", "2001:db8::/64"], HOUR);
        let mut target = scene::start(kind, client(&fake));
        target.pass(&wanted, clock).await.unwrap();
        let groups = std::mem::take(&mut fake.state().groups);
        let lists = std::mem::take(&mut fake.state().lists);
        assert!(!groups.is_empty() && !lists.is_empty());
        tokio::time::sleep(MINUTE).await;

        let refused = target.pass(&wanted, clock).await.unwrap_err();
        // Empty, and at its first version: what the target knows of it is about another one.
        scene::furnish(&fake);
        tokio::time::sleep(MINUTE).await;
        target.pass(&wanted, clock).await.unwrap();
        let again = target.pass(&wanted, clock).await.unwrap();

        assert!(matches!(refused, TargetError::Rejected { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("does not exist; give the target another one"), "{said}");
        assert_eq!((scene::ours(kind, &fake).len(), again), (2, 0), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_the_other_family_is_refused() {
    let fake = furnished(Temper::default());
    let mut target = lists(&fake, scene::V6_LIST, None);

    let refused = target.read().await.unwrap_err();

    assert!(refused.to_string().contains("other family"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_one_rule_is_refused_for_holds_up_no_other() {
    let fake = furnished(Temper { behind_max: Duration::from_secs(10), ..Temper::default() });
    let ports = vec![Ports { protocol: Protocol::Tcp, first: 22, last: 22 }];
    let config = SecurityGroupConfig { group: GROUP.to_owned(), ports, rules_max: 60 };
    let mut target = SecurityGroup::new(client(&fake), config, OWNER);
    target.read().await.unwrap();
    for network in hosts(3) {
        scene::meddle(Provider::SecurityGroup, &fake, network, "office");
    }

    target.write(&put(hosts(30))).await.unwrap();

    let rules = fake.state().groups[GROUP].rules.clone();
    assert_eq!(rules.len(), 30);
    assert_eq!(rules.values().filter(|rule| rule.description == "office").count(), 3);
    assert!(fake.take_calls()["AuthorizeSecurityGroupIngress"] <= 12);
}

#[tokio::test(start_paused = true)]
async fn a_fresh_agent_sweeps_what_is_overdue_and_keeps_what_is_not() {
    for kind in Provider::ALL {
        let fake = furnished(Temper::default());
        let start = || scene::start(kind, client(&fake));
        alike::a_fresh_agent_sweeps(start, || scene::ours(kind, &fake)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn flush_takes_ours_and_nothing_else() {
    for kind in Provider::ALL {
        let fake = furnished(Temper::default());
        scene::meddle(kind, &fake, "203.0.113.1/32".parse().unwrap(), "office");
        let (ours, foreign) = (|| scene::ours(kind, &fake), || scene::foreign(kind, &fake));
        alike::flush_takes_ours(scene::start(kind, client(&fake)), ours, foreign).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_tag_and_mark_together_make_a_rule_ours() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let (untagged, unmarked) = ("198.51.100.1/32", "198.51.100.2/32");
    scene::start(Provider::SecurityGroup, client(&fake))
        .pass(&scene::wanted(clock, &[untagged, unmarked], HOUR), clock)
        .await
        .unwrap();
    for rule in fake.state().groups.get_mut(GROUP).unwrap().rules.values_mut() {
        match rule.network == untagged.parse().unwrap() {
            true => rule.tags.clear(),
            false => rule.description = "office".to_owned(),
        }
    }
    let theirs = fake.state().groups[GROUP].rules.clone();

    let mut target = scene::start(Provider::SecurityGroup, client(&fake));
    target.pass(&scene::wanted(clock, &[untagged], HOUR), clock).await.unwrap();
    target.pass(&Allowlist::new(), clock).await.unwrap();
    target.flush().await.unwrap();

    assert_eq!(fake.state().groups[GROUP].rules, theirs);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_others_that_nobody_shows_us_holds_up_nothing() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let hidden = ("sgr-list".to_owned(), "pl-0000000000000009a".to_owned());
    fake.state().groups.get_mut(GROUP).unwrap().lists.extend([hidden]);

    let mut target = scene::start(Provider::SecurityGroup, client(&fake));
    target.pass(&scene::wanted(clock, &["198.51.100.1/32"], HOUR), clock).await.unwrap();

    assert_eq!(scene::ours(Provider::SecurityGroup, &fake).len(), 1);
}
