//! Single things that go wrong, each for itself.

use std::time::Duration;

use postern_agent::target::cloudflare::{Cloudflare, IpList};
use postern_agent::target::marked::{Edits, Fitted, Marked, Provider as _};
use postern_agent::target::{Target as _, TargetError};
use postern_shared::allowlist::Allowlist;
use postern_shared::network::Network;
use postern_shared::policy::LocalPolicy;
use tokio::time::Instant;

use crate::alike;
use crate::fake::{FakeCloudflare, List, Temper};
use crate::scene::{self, Clock, LIST, OTHER_LIST, OWNER, Provider};
use crate::transport::{self, Hostility};

const HOUR: Duration = Duration::from_secs(3600);

fn furnished(temper: Temper) -> FakeCloudflare {
    let fake = FakeCloudflare::new(1, temper);
    scene::furnish(&fake);
    fake
}

fn client(fake: &FakeCloudflare) -> Cloudflare {
    transport::client(fake, 1, Hostility::NONE, Cloudflare::CALLS_PER_MINUTE_MAX).0
}

fn put(networks: impl IntoIterator<Item = Network>) -> Edits {
    let put = networks.into_iter().map(|network| (network, format!("postern {OWNER} ")));
    Edits { put: put.collect(), ..Edits::default() }
}

fn hosts(count: u8) -> impl Iterator<Item = Network> {
    (0..count).map(|last| Network::host([198, 51, 100, last].into()))
}

fn list(fake: &FakeCloudflare) -> IpList {
    IpList::new(client(fake), scene::list_config(), OWNER)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_expired_is_called_so() {
    for kind in Provider::ALL {
        let fake = furnished(Temper::default());
        fake.state().is_expired = true;

        let refused =
            scene::start(kind, client(&fake)).pass(&Allowlist::new(), Clock::start()).await;

        let error = refused.unwrap_err();
        assert!(matches!(error, TargetError::Unreachable { .. }), "{error:?}");
        assert!(error.to_string().contains("token for Cloudflare is expired"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_gone_says_what_to_do() {
    let fake = furnished(Temper::default());
    let mut target = list(&fake);
    target.read().await.unwrap();
    fake.state().lists.remove(LIST);

    let written = target.write(&put(hosts(1))).await.unwrap_err();
    let read = target.read().await.unwrap_err();
    let afresh = list(&fake).read().await.unwrap_err();
    let mut of_names = List::new();
    of_names.kind = "hostname";
    fake.state().lists.insert(LIST.to_owned(), of_names);
    let of_other_kind = list(&fake).read().await.unwrap_err();

    for refused in [written, read, afresh, of_other_kind] {
        assert!(matches!(refused, TargetError::Rejected { .. }), "{refused:?}");
        assert!(refused.to_string().contains("make one of kind `ip`"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_was_deleted_is_in_sync_again_once_it_is_there_again() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let wanted = scene::wanted(clock, &["198.51.100.7/32", "2001:db8::/64"], HOUR);
    let mut target = scene::start(Provider::List, client(&fake));
    target.pass(&wanted, clock).await.unwrap();
    fake.state().lists.remove(LIST).unwrap();
    tokio::time::sleep(HOUR / 60).await;

    let refused = target.pass(&wanted, clock).await.unwrap_err();
    fake.state().lists.insert(LIST.to_owned(), List::new());
    tokio::time::sleep(HOUR / 60).await;
    target.pass(&wanted, clock).await.unwrap();
    let again = target.pass(&wanted, clock).await.unwrap();

    assert!(matches!(refused, TargetError::Rejected { .. }), "{refused:?}");
    assert_eq!((scene::ours(Provider::List, &fake).len(), again), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_somebody_else_is_waited_for() {
    for says_when in [true, false] {
        let fake = furnished(Temper { says_when, ..Temper::default() });
        let mut target = list(&fake);
        target.read().await.unwrap();
        fake.state().keep_busy(OTHER_LIST, Duration::from_secs(8));
        let began = Instant::now();

        target.write(&put(hosts(1))).await.unwrap();

        assert!(
            Duration::from_secs(8) <= began.elapsed() && began.elapsed() < Duration::from_secs(20)
        );
        assert_eq!(fake.state().lists[LIST].items.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_has_a_deadline() {
    let fake = furnished(Temper::default());
    let mut target = list(&fake);
    target.read().await.unwrap();
    fake.state().keep_busy(OTHER_LIST, HOUR);

    let refused = target.write(&put(hosts(1))).await.unwrap_err();

    assert!(matches!(refused, TargetError::Throttled { .. }), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_never_ends_is_left_and_waited_for_later() {
    let fake = furnished(Temper { working_max: 4 * HOUR, ..Temper::default() });
    let mut target = list(&fake);
    target.read().await.unwrap();

    let slow = target.write(&put(hosts(1))).await.unwrap_err();
    tokio::time::sleep(4 * HOUR).await;
    // A fresh process: nothing is remembered, and the change has been made meanwhile.
    let mut afresh = list(&fake);
    afresh.read().await.unwrap();
    fake.take_calls();
    afresh.write(&put(hosts(1))).await.unwrap();

    assert!(slow.to_string().contains("has not come to an end"), "{slow}");
    assert!(!fake.take_calls().contains_key("CreateItems"), "it was made");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_breaks_off_is_finished() {
    let fake = furnished(Temper { breaks_once_in: 1, ..Temper::default() });
    let mut target = list(&fake);
    target.read().await.unwrap();

    let broken = target.write(&put(hosts(9))).await.unwrap_err();
    let half = fake.state().lists[LIST].items.len();
    fake.state().temper.breaks_once_in = 0;
    target.write(&put(hosts(9))).await.unwrap();

    assert!(broken.to_string().contains("a change of the list failed"), "{broken}");
    assert!(0 < half && half < 9, "{half}");
    assert_eq!(fake.state().lists[LIST].items.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_said_before_and_refused_as_a_whole() {
    let fake = furnished(Temper::default());
    let mut config = scene::list_config();
    config.items_max = 3;
    let mut target = IpList::new(client(&fake), config, OWNER);
    target.read().await.unwrap();

    let said = target.preview(&put(hosts(3)));
    let refused = target.write(&put(hosts(3))).await;
    let untouched = fake.state().lists[LIST].items.len();
    target.write(&put(hosts(2))).await.unwrap();
    let gone = hosts(1).collect();
    let third = put(hosts(3).skip(2)).put;
    target.write(&Edits { remove: gone, put: third }).await.unwrap();

    assert!(
        said.contains("items now 0; all lists of the account now 1, then 4; limit 3"),
        "{said}"
    );
    assert!(matches!(refused, Err(TargetError::Full { wanted: 4, capacity: 3 })), "{refused:?}");
    assert_eq!(untouched, 0);
    let left: Vec<Network> = fake.state().lists[LIST].items.keys().copied().collect();
    assert_eq!(left, hosts(3).skip(1).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_open_holds_up_nothing_that_closes() {
    let fake = furnished(Temper { items_max: 2, ..Temper::default() });
    let mut target = list(&fake);
    target.read().await.unwrap();
    target.write(&put(hosts(1))).await.unwrap();

    let edits = Edits { remove: hosts(1).collect(), put: put(hosts(5).skip(1)).put };
    let refused = target.write(&edits).await.unwrap_err();

    assert!(refused.to_string().contains("maximum number"), "{refused}");
    assert!(fake.state().lists[LIST].items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_reads_do_not_show_yet_is_taken_away_all_the_same() {
    let fake = furnished(Temper { behind_max: Duration::from_secs(10), ..Temper::default() });
    let mut target = list(&fake);
    target.read().await.unwrap();
    target.write(&put(hosts(2))).await.unwrap();

    target.write(&Edits { remove: hosts(2).collect(), ..Edits::default() }).await.unwrap();

    assert!(fake.state().lists[LIST].items.is_empty());
}

#[tokio::test(start_paused = true)]
async fn items_of_others_stay_as_they_are() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let (theirs, ours) = ("198.51.100.1/32", "198.51.100.2/32");
    let mut target = scene::start(Provider::List, client(&fake));
    target.pass(&Allowlist::new(), clock).await.unwrap();
    // Since the last read of the agent's.
    tokio::time::sleep(Duration::from_secs(20)).await;
    scene::meddle(Provider::List, &fake, theirs.parse().unwrap(), "office");

    target.pass(&scene::wanted(clock, &[theirs, ours], HOUR), clock).await.unwrap();
    let open = scene::ours(Provider::List, &fake);
    target.pass(&Allowlist::new(), clock).await.unwrap();
    target.flush().await.unwrap();

    assert_eq!(open.into_keys().collect::<Vec<_>>(), [ours.parse().unwrap()]);
    let left = fake.state().lists[LIST].items.clone();
    assert_eq!(left.len(), 1);
    assert_eq!(left[&theirs.parse().unwrap()].comment, "office");
}

#[tokio::test(start_paused = true)]
async fn what_is_narrower_than_a_list_takes_is_refused_and_holds_up_nothing() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let mut target = scene::start(Provider::List, client(&fake));
    let wanted = scene::wanted(clock, &["198.51.100.1/32", "2001:db8::7/128"], HOUR);

    let refused = target.pass(&wanted, clock).await.unwrap_err();
    let open = scene::ours(Provider::List, &fake);
    fake.take_calls();
    let again = target.pass(&wanted, clock).await.unwrap_err();

    for refused in [refused, again] {
        let said = refused.to_string();
        assert!(said.contains("2001:db8::7/128 is narrower than /64"), "{said}");
        assert!(said.contains("`widen_v6: true`"), "{said}");
    }
    assert_eq!(open.into_keys().collect::<Vec<_>>(), ["198.51.100.1/32".parse().unwrap()]);
    assert!(fake.take_calls().is_empty(), "nothing is asked for what is refused here");
}

#[tokio::test(start_paused = true)]
async fn where_the_operator_says_so_a_host_opens_its_whole_64() {
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let start = |fake: &FakeCloudflare| {
        let marked = Marked::new("edge", OWNER, [scene::group()].into(), list(fake));
        Fitted::new(marked, IpList::shape(Some(LocalPolicy::default())))
    };
    let two = ["2001:db8::7/128", "2001:db8::8/128"];
    let wide: Network = "2001:db8::/64".parse().unwrap();
    let open = || scene::ours(Provider::List, &fake).into_keys().collect::<Vec<_>>();

    scene::pass(&mut start(&fake), &scene::wanted(clock, &two, HOUR), clock).await.unwrap();
    let both = open();
    // A fresh process knows neither; what stands there is what is wanted.
    let mut afresh = start(&fake);
    let one = scene::wanted(clock, &two[1..], HOUR);
    scene::pass(&mut afresh, &one, clock).await.unwrap();
    let still = open();
    let settled = scene::pass(&mut afresh, &one, clock).await.unwrap();
    scene::pass(&mut afresh, &Allowlist::new(), clock).await.unwrap();

    assert_eq!((both, still, settled), (vec![wide], vec![wide], 0));
    assert!(afresh.is_settled() && open().is_empty());
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
async fn a_rule_of_somebody_else_in_our_place_stays_and_is_told_where_it_shuts_out() {
    for kind in [Provider::AccountRules, Provider::ZoneRules] {
        let fake = furnished(Temper::default());
        let clock = Clock::start();
        let [allows, blocks, ours] = ["198.51.100.1/32", "198.51.100.2/32", "198.51.100.3/32"];
        let [allowed, blocked]: [Network; 2] = [allows, blocks].map(|text| text.parse().unwrap());
        fake.state().put_rule(scene::rule(kind, allowed, "whitelist", "office"));
        fake.state().put_rule(scene::rule(kind, blocked, "block", "abuse"));
        let before = scene::foreign(kind, &fake);
        let mut target = scene::start(kind, client(&fake));

        let wanted = scene::wanted(clock, &[allows, blocks, ours], HOUR);
        let refused = target.pass(&wanted, clock).await.unwrap_err().to_string();
        let open = scene::ours(kind, &fake);
        target.pass(&scene::wanted(clock, &[allows, ours], HOUR), clock).await.unwrap();
        fake.take_calls();
        let again = target.pass(&scene::wanted(clock, &[allows, ours], HOUR), clock).await.unwrap();
        let asked = fake.take_calls();
        target.pass(&Allowlist::new(), clock).await.unwrap();

        assert!(refused.contains(blocks) && refused.contains("says `block`"), "{refused}");
        assert_eq!(open.into_keys().collect::<Vec<_>>(), [ours.parse().unwrap()]);
        assert_eq!((again, asked.len()), (0, 0), "nothing is left to do");
        assert_eq!(scene::foreign(kind, &fake), before);
        assert!(scene::ours(kind, &fake).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_of_ours_that_somebody_lets_block_lets_in_again() {
    let kind = Provider::ZoneRules;
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let wanted = scene::wanted(clock, &["198.51.100.1/32"], HOUR);
    let mut target = scene::start(kind, client(&fake));
    target.pass(&wanted, clock).await.unwrap();
    for rule in fake.state().rules.now.values_mut() {
        rule.mode = "block".to_owned();
    }

    tokio::time::sleep(Duration::from_secs(60)).await;
    target.pass(&wanted, clock).await.unwrap();

    assert_eq!(scene::ours(kind, &fake).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_range_that_access_rules_do_not_take_is_exactly_as_many_that_they_do() {
    let kind = Provider::AccountRules;
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let wanted = scene::wanted(clock, &["198.51.100.8/30", "203.0.112.0/23"], HOUR);
    let mut target = scene::start(kind, client(&fake));

    target.pass(&wanted, clock).await.unwrap();
    let open: Vec<String> = scene::ours(kind, &fake).keys().map(ToString::to_string).collect();
    let again = target.pass(&wanted, clock).await.unwrap();
    // A fresh process finds the pieces, and that they are what is wanted.
    let mut afresh = scene::start(kind, client(&fake));
    fake.take_calls();
    afresh.pass(&wanted, clock).await.unwrap();
    let changed = fake.take_calls().into_keys().any(|call| call != "ListAccessRules");
    afresh.pass(&Allowlist::new(), clock).await.unwrap();

    let pieces = ["198.51.100.8/32", "198.51.100.9/32", "198.51.100.10/32", "198.51.100.11/32"];
    assert_eq!(open, [&pieces[..], &["203.0.112.0/24", "203.0.113.0/24"]].concat());
    assert!(again == 0 && !changed);
    assert!(scene::ours(kind, &fake).is_empty());
}

#[tokio::test(start_paused = true)]
async fn calls_are_kept_for_what_must_close() {
    let kind = Provider::AccountRules;
    let fake = furnished(Temper::default());
    let clock = Clock::start();
    let (few, _) = transport::client(&fake, 1, Hostility::NONE, 20);
    let mut target = scene::start(kind, few);
    let mut wanted = scene::wanted(clock, &["198.51.100.1/32"], HOUR);
    target.pass(&wanted, clock).await.unwrap();
    for network in hosts(200).skip(2) {
        wanted.set(network, scene::wanted(clock, &["::/0"], HOUR).iter().next().unwrap().1);
    }

    let spent = target.pass(&wanted, clock).await.unwrap_err();
    wanted.remove("198.51.100.1/32".parse().unwrap());
    let still = target.pass(&wanted, clock).await.unwrap_err();

    for refused in [spent, still] {
        assert!(matches!(refused, TargetError::Throttled { .. }), "{refused:?}");
    }
    let open = scene::ours(kind, &fake);
    assert!(10 < open.len() && open.len() < 20, "{}", open.len());
    assert!(!open.contains_key(&"198.51.100.1/32".parse().unwrap()), "it closes all the same");
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_waits_and_comes_through() {
    for (kind, says_when) in
        Provider::ALL.into_iter().flat_map(|kind| [(kind, true), (kind, false)])
    {
        let fake = furnished(Temper { calls_max: 2, says_when, ..Temper::default() });
        let clock = Clock::start();
        let mut target = scene::start(kind, client(&fake));
        let wanted = scene::wanted(clock, &["198.51.100.7/32"], HOUR);

        let mut waits = Vec::new();
        while let Err(error) = target.pass(&wanted, clock).await {
            let TargetError::Throttled { wait } = error else { panic!("{error}") };
            waits.push(wait);
            tokio::time::sleep(wait).await;
            fake.state().temper.calls_max = 1200;
        }

        assert_eq!(scene::ours(kind, &fake).len(), 1);
        assert!(!waits.is_empty() && waits.len() < 12, "{waits:?}");
    }
}
