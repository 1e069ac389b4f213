use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::network::Network;
use crate::time::{Expiry, Timestamp};

type List = BTreeMap<Network, Expiry>;

const TTL: u64 = 100_000;
const ENTRIES_MAX: usize = 12;

fn net(text: &str) -> Network {
    text.parse().unwrap()
}

fn host(last: u8) -> Network {
    Network::host([203, 0, 113, last].into())
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms).unwrap()
}

fn until(ms: u64) -> Expiry {
    Expiry::At(at(ms))
}

fn policy() -> LocalPolicy {
    LocalPolicy {
        entries_max: ENTRIES_MAX,
        ttl_max: Ttl::from_secs(TTL / 1000).unwrap(),
        denied: vec![net("203.0.113.64/28")],
        allow_private: false,
        failsafe: vec![net("10.9.0.0/16"), net("203.0.113.200/32")],
        ..LocalPolicy::default()
    }
}

fn hosts(lasts: std::ops::Range<u8>, expiry: Expiry) -> List {
    lasts.map(|last| (host(last), expiry)).collect()
}

fn took(list: List) -> Accepted {
    let mut accepted = Accepted::new(policy(), at(0));
    accepted.take_list(&list, at(0), at(0));
    accepted
}

/// What is open at `now` besides the fail-safe networks.
fn open(accepted: &Accepted, now: Timestamp) -> List {
    let live = accepted.in_force().live_at(now);
    live.filter(|(network, _)| !policy().failsafe.contains(network)).collect()
}

#[test]
fn each_reason_says_what_is_wrong() {
    let strict = policy();
    for (text, refusal) in [
        ("0.0.0.0/0", "0.0.0.0/0 holds unspecified addresses, which are never opened"),
        ("ff02::1", "ff02::1/128 holds multicast addresses, which are never opened"),
        (
            "198.51.0.0/16",
            "198.51.0.0/16 is wider than /24, the widest that the local policy accepts",
        ),
        (
            "2001:db8::/32",
            "2001:db8::/32 is wider than /48, the widest that the local policy accepts",
        ),
        (
            "203.0.113.0/24",
            "203.0.113.0/24 overlaps 203.0.113.64/28, which the local policy denies",
        ),
        ("10.8.0.1", "10.8.0.1/32 is private, which the local policy does not accept"),
    ] {
        let network = net(text);
        let reason = strict.judge(network).unwrap();
        assert_eq!(Refusal { network, reason }.to_string(), refusal);
    }
    for text in ["198.51.100.0/24", "2001:db8::/48", "203.0.113.1", "10.9.3.0/24", "10.9.0.0/16"] {
        assert_eq!(strict.judge(net(text)), None, "{text}");
    }
    assert_eq!(LocalPolicy::default().judge(net("10.8.0.1")), None);
}

#[test]
fn a_list_beyond_the_policy_renews_and_withdraws_but_opens_nothing() {
    let mut accepted = took(hosts(1..3, until(1_000)));

    let touched = accepted.take_changes(
        &BTreeMap::from([
            (net("198.0.0.0/8"), Some(Expiry::Never)),
            (host(1), None),
            (host(2), Some(until(2_000))),
            (host(3), Some(until(3_000))),
        ]),
        at(10),
    );

    assert_eq!(touched, BTreeSet::from([host(1), host(2)]));
    assert_eq!(open(&accepted, at(10)), BTreeMap::from([(host(2), until(2_000))]));
    let findings = accepted.findings();
    assert_eq!((findings.refused_count, findings.withheld_count), (1, 1));
    insta::assert_snapshot!(findings, @"198.0.0.0/8 is wider than /24, the widest that the local policy accepts; not opened until the list is within the local policy: 1 entry");

    let touched = accepted.take_changes(&BTreeMap::from([(net("198.0.0.0/8"), None)]), at(20));

    assert_eq!(touched, BTreeSet::from([host(3)]));
    assert!(accepted.findings().is_empty());
}

#[test]
fn too_many_entries_open_nothing_until_there_are_fewer() {
    let mut accepted = took(hosts(0..12, until(1_000)));

    accepted.take_changes(&BTreeMap::from([(host(12), Some(until(2_000)))]), at(10));

    assert_eq!(open(&accepted, at(10)).len(), 12);
    assert_eq!(accepted.findings().too_many, Some(13));
    assert_eq!(accepted.next_change(true, at(10)), Some(at(1_000)));

    assert_eq!(accepted.tend(true, at(1_000)), BTreeSet::from([host(12)]));
    assert_eq!(open(&accepted, at(1_000)), BTreeMap::from([(host(12), until(2_000))]));
}

#[test]
fn a_lease_is_prolonged_at_half_time_while_followed_and_ends_unheard() {
    let mut accepted = took(BTreeMap::from([(host(1), Expiry::Never)]));
    assert_eq!(open(&accepted, at(0)), BTreeMap::from([(host(1), until(TTL))]));
    assert_eq!(accepted.next_change(true, at(0)), Some(at(TTL / 2)));

    assert!(!accepted.tend(true, at(TTL / 2 - 1)).contains(&host(1)));
    assert!(accepted.tend(true, at(TTL / 2)).contains(&host(1)));
    assert_eq!(open(&accepted, at(TTL / 2))[&host(1)], until(TTL / 2 + TTL));

    assert!(!accepted.tend(false, at(TTL / 2 + TTL - 1)).contains(&host(1)));
    assert_eq!(open(&accepted, at(TTL / 2 + TTL - 1)).len(), 1);
    accepted.tend(false, at(TTL / 2 + TTL));
    assert_eq!(open(&accepted, at(TTL / 2 + TTL)), BTreeMap::new());
    assert_eq!(accepted.findings().withheld_count, 1);

    assert!(accepted.tend(true, at(5 * TTL)).contains(&host(1)));
    assert_eq!(open(&accepted, at(5 * TTL)), BTreeMap::from([(host(1), until(6 * TTL))]));
}

#[test]
fn a_list_from_the_cache_is_leased_from_when_it_was_heard() {
    let list = BTreeMap::from([(host(1), Expiry::Never), (host(2), until(TTL + 40_000))]);
    let mut accepted = Accepted::new(policy(), at(TTL));

    accepted.take_list(&list, at(30_000), at(TTL));

    let leased = until(30_000 + TTL);
    assert_eq!(open(&accepted, at(TTL)), BTreeMap::from([(host(1), leased), (host(2), leased)]));

    let mut accepted = Accepted::new(policy(), at(TTL));
    accepted.take_list(&list, at(0), at(TTL));
    assert_eq!(open(&accepted, at(TTL)), BTreeMap::new());
    accepted.tend(true, at(TTL));
    assert_eq!(open(&accepted, at(TTL)).len(), 2);
}

#[test]
fn a_snapshot_that_shrinks_most_of_a_list_is_held_until_a_second_one_says_the_same() {
    let mut accepted = took(hosts(0..8, until(50_000)));
    let shrunk = BTreeMap::from([(host(0), until(60_000)), (host(9), until(60_000))]);

    let touched = accepted.take_list(&shrunk, at(10), at(10));

    assert_eq!(touched, BTreeSet::from([host(0), host(9)]), "the rest of the snapshot is taken");
    assert_eq!(open(&accepted, at(10)).len(), 9);
    assert_eq!(accepted.findings().held_count, 7);
    insta::assert_snapshot!(accepted.findings(), @"left out by a new list, but open until `postern-agent accept` or their deadline: 7 entries");
    assert_eq!(accepted.why([203, 0, 113, 1].into(), at(10))[0].standing, Standing::Held);

    let touched = accepted.take_list(&shrunk, at(20), at(20));

    assert_eq!(touched, (1..8).map(host).collect());
    assert_eq!(open(&accepted, at(20)), shrunk);
}

#[test]
fn what_the_brake_holds_goes_when_the_operator_says_so_or_by_itself() {
    let mut held = took(hosts(0..8, Expiry::Never));
    held.take_list(&BTreeMap::new(), at(10), at(10));
    assert_eq!(open(&held, at(10)).len(), 8);

    let mut confirmed = held.clone();
    assert_eq!(confirmed.confirm(at(20)).len(), 8);
    assert_eq!(open(&confirmed, at(20)), BTreeMap::new());

    held.tend(true, at(TTL - 1));
    assert_eq!(open(&held, at(TTL - 1)).len(), 8);
    held.tend(true, at(TTL));
    assert_eq!(open(&held, at(TTL)), BTreeMap::new());
    assert!(held.findings().is_empty());
}

#[test]
fn the_brake_minds_neither_short_lists_nor_expiry_nor_what_is_named() {
    let mut short = took(hosts(0..5, until(50_000)));
    short.take_list(&BTreeMap::new(), at(10), at(10));
    assert_eq!(open(&short, at(10)), BTreeMap::new());

    let mut ending = took(hosts(0..8, until(50_000)));
    ending.take_list(&BTreeMap::new(), at(49_500), at(49_500));
    assert_eq!(open(&ending, at(49_500)), BTreeMap::new());

    let mut half = took(hosts(0..8, until(50_000)));
    half.take_list(&hosts(0..4, until(50_000)), at(10), at(10));
    assert_eq!(open(&half, at(10)).len(), 4);

    let mut named = took(hosts(0..8, until(50_000)));
    named.take_changes(&(0..8).map(|last| (host(last), None)).collect(), at(10));
    assert_eq!(open(&named, at(10)), BTreeMap::new());

    let mut withdrawn = took(hosts(0..8, until(50_000)));
    assert_eq!(withdrawn.withdraw(at(10)).len(), 8);
    assert_eq!(open(&withdrawn, at(10)), BTreeMap::new());
}

#[test]
fn why_names_every_entry_that_lets_an_address_in_the_narrowest_first() {
    let list = BTreeMap::from([
        (host(1), until(1_000)),
        (net("203.0.113.0/26"), Expiry::Never),
        (net("203.0.0.0/16"), until(9_000)),
    ]);
    let mut accepted = took(BTreeMap::from([(host(1), until(1_000))]));
    accepted.take_list(&list, at(0), at(0));

    let found: Vec<_> = accepted
        .why("::ffff:203.0.113.1".parse().unwrap(), at(10))
        .into_iter()
        .map(|found| (found.network.prefix(), found.expiry, found.standing))
        .collect();

    assert_eq!(
        found,
        [
            (32, until(1_000), Standing::Listed),
            (26, Expiry::Never, Standing::Withheld),
            (16, until(9_000), Standing::Refused(Reason::TooWide { widest: 24 })),
        ]
    );
    assert_eq!(accepted.why([203, 0, 113, 200].into(), at(10))[0].standing, Standing::FailSafe);
    assert_eq!(accepted.why([198, 51, 100, 1].into(), at(10)), []);
}

#[test]
fn a_new_policy_holds_for_what_is_open_already() {
    let list: List = hosts(0..2, Expiry::Never)
        .into_iter()
        .chain([(net("10.9.0.0/16"), until(50_000))])
        .collect();
    let mut accepted = took(list.clone());
    let next = LocalPolicy {
        denied: vec![host(0)],
        ttl_max: Ttl::from_secs(10).unwrap(),
        failsafe: vec![host(7), host(7)],
        ..policy()
    };

    let touched = accepted.replace_policy(next, &list, at(1_000), at(1_000));

    let open: List = accepted.in_force().live_at(at(1_000)).collect();
    assert_eq!(open, BTreeMap::from([(host(1), until(11_000)), (host(7), until(11_000))]));
    let gone = [net("10.9.0.0/16"), net("203.0.113.200/32"), host(0)];
    assert_eq!(touched, gone.into_iter().chain(open.into_keys()).collect());
    assert_eq!(accepted.findings().refused_count, 2);
}

#[derive(Debug, Clone)]
enum Step {
    List(List),
    Changes(BTreeMap<Network, Option<Expiry>>),
    Tend { followed: bool },
    Confirm,
    Withdraw,
    Policy,
    Retake,
}

/// Hosts and networks, some of them denied, private, too wide or fail-safe.
fn any_network() -> impl Strategy<Value = Network> {
    prop_oneof![
        12 => (0u8..10).prop_map(host),
        2 => (0u8..2).prop_map(|last| Network::containing([198, 51, 100, last].into(), 25).unwrap()),
        1 => prop::sample::select(vec![
            net("203.0.113.70/32"), net("10.8.0.1/32"), net("198.0.0.0/8"), net("127.0.0.1/32"),
        ]),
        1 => prop::sample::select(policy().failsafe),
    ]
}

fn any_expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![(0..4 * TTL).prop_map(until), Just(Expiry::Never)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let change = prop::option::weighted(0.7, any_expiry());
    prop_oneof![
        2 => prop::collection::btree_map(any_network(), any_expiry(), 0..16).prop_map(Step::List),
        5 => prop::collection::btree_map(any_network(), change, 0..5).prop_map(Step::Changes),
        2 => any::<bool>().prop_map(|followed| Step::Tend { followed }),
        1 => Just(Step::Confirm),
        1 => Just(Step::Withdraw),
        1 => Just(Step::Policy),
        1 => Just(Step::Retake),
    ]
}

/// The rules said again over plain maps, with no regard to cost.
struct Model {
    told: List,
    open: List,
    held: BTreeSet<Network>,
}

impl Model {
    fn live_told(&self, now: Timestamp) -> impl Iterator<Item = (Network, Expiry)> + '_ {
        let is_plain = |net: &Network| !policy().failsafe.contains(net);
        let live =
            move |(net, expiry): &(&Network, &Expiry)| is_plain(net) && expiry.is_live_at(now);
        self.told.iter().filter(live).map(|(net, expiry)| (*net, *expiry))
    }

    fn is_suspect(&self, now: Timestamp) -> bool {
        let beyond = |(network, _)| policy().judge(network).is_some();
        ENTRIES_MAX < self.live_told(now).count() || self.live_told(now).any(beyond)
    }

    fn step(&mut self, step: &Step, now: Timestamp) {
        self.open.retain(|_, expiry| expiry.is_live_at(now));
        self.held.retain(|network| self.open.contains_key(network));
        let mut heard = true;
        match step {
            Step::List(list) => {
                let confirmed: Vec<_> =
                    self.held.iter().filter(|net| !list.contains_key(net)).copied().collect();
                self.open.retain(|network, _| !confirmed.contains(network));
                self.held.clear();
                let absent: List = self
                    .open
                    .clone()
                    .into_iter()
                    .filter(|(net, _)| !list.contains_key(net))
                    .collect();
                let soon = until(now.unix_ms() + 1_000);
                let withdrawn = absent.values().filter(|expiry| soon < **expiry).count();
                if 5 < self.open.len() && self.open.len() < 2 * withdrawn {
                    self.held = absent.into_keys().collect();
                }
                self.told = list.clone();
            }
            Step::Changes(changes) => {
                for (network, expiry) in changes {
                    self.held.remove(network);
                    self.told.remove(network);
                    self.told.extend(expiry.map(|expiry| (*network, expiry)));
                }
            }
            Step::Tend { followed } => heard = *followed,
            Step::Confirm => {
                self.open.retain(|network, _| !self.held.contains(network));
                self.held.clear();
                heard = false;
            }
            Step::Withdraw => {
                (self.told, self.open, self.held) = Default::default();
            }
            Step::Policy | Step::Retake => {}
        }
        if !heard {
            let is_told = |net: &Network| self.live_told(now).any(|(told, _)| told == *net);
            let left: Vec<_> = self.open.keys().copied().filter(is_told).collect();
            return self.open.retain(|net, _| left.contains(net) || self.held.contains(net));
        }
        let suspect = self.is_suspect(now);
        let is_told: List = self.live_told(now).collect();
        self.open.retain(|net, _| is_told.contains_key(net) || self.held.contains(net));
        let latest = now.saturating_add(Duration::from_millis(TTL));
        for (network, offered) in is_told {
            let was_open = self.open.contains_key(&network);
            if policy().judge(network).is_none() && (was_open || !suspect) {
                self.open.insert(network, offered.min(Expiry::At(latest)));
            }
        }
    }
}

proptest! {
    #[test]
    fn the_list_in_force_follows_the_rules_whatever_comes(
        steps in prop::collection::vec((any_step(), 0..TTL), 1..30),
    ) {
        let mut now = at(0);
        let mut accepted = Accepted::new(policy(), now);
        let mut model =
            Model { told: List::new(), open: List::new(), held: BTreeSet::new() };
        let is_armed = |expiry: Expiry, by: Timestamp| {
            at(by.unix_ms() + TTL / 2) < expiry.deadline().unwrap()
        };

        for (step, wait) in steps {
            now = now.saturating_add(Duration::from_millis(wait));
            let mut before: List = accepted.in_force().live_at(now).collect();
            let touched = match &step {
                Step::List(list) => accepted.take_list(list, now, now),
                Step::Changes(changes) => accepted.take_changes(changes, now),
                Step::Tend { followed } => accepted.tend(*followed, now),
                Step::Confirm => accepted.confirm(now),
                Step::Withdraw => accepted.withdraw(now),
                Step::Policy => accepted.replace_policy(policy(), &model.told, now, now),
                Step::Retake => accepted.retake_list(&model.told, now, now),
            };
            model.step(&step, now);

            let rearms = matches!(step, Step::List(_) | Step::Policy | Step::Retake | Step::Tend { followed: true });
            let in_force: List = accepted.in_force().iter().collect();
            prop_assert_eq!(
                open(&accepted, now).into_keys().collect::<Vec<_>>(),
                model.open.keys().copied().collect::<Vec<_>>(),
                "after {:?}", step
            );
            for (network, exact) in &model.open {
                let real = in_force[network];
                let is_lease = model.told.get(network).is_some_and(|offered| real < *offered);
                prop_assert!(real <= *exact, "{network} is open for too long");
                prop_assert!(
                    real == *exact || (is_lease && (!rearms || is_armed(real, now)))
                        || model.held.contains(network),
                    "{network} ends too early after {step:?}: {real} < {exact}"
                );
            }
            // Of a lease the model knows only the bounds: from here on it has its real end.
            model.open.extend(open(&accepted, now));
            for failsafe in policy().failsafe {
                prop_assert!(is_armed(in_force[&failsafe], now));
            }
            let findings = accepted.findings();
            prop_assert_eq!(findings.held_count, model.held.len());
            let refused = model.live_told(now).filter(|(net, _)| policy().judge(*net).is_some());
            prop_assert_eq!(findings.refused_count, refused.count());
            prop_assert_eq!(
                findings.too_many,
                Some(model.live_told(now).count()).filter(|count| ENTRIES_MAX < *count)
            );

            // The touched networks are exactly those whose entry is another one now.
            for network in in_force.keys().chain(&before.clone().into_keys().collect::<Vec<_>>()) {
                let is_other = before.get(network) != in_force.get(network);
                prop_assert_eq!(touched.contains(network), is_other, "{} after {:?}", network, step);
            }
            before.extend(in_force);
            prop_assert!(touched.iter().all(|network| before.contains_key(network)));
        }
    }

    #[test]
    fn nothing_in_force_is_beyond_the_policy_or_its_longest_time(
        steps in prop::collection::vec((any_step(), 0..TTL), 1..20),
    ) {
        let mut now = at(0);
        let mut accepted = Accepted::new(policy(), now);

        for (step, wait) in steps {
            now = now.saturating_add(Duration::from_millis(wait));
            match &step {
                Step::List(list) => accepted.take_list(list, now, now),
                Step::Changes(changes) => accepted.take_changes(changes, now),
                Step::Tend { followed } => accepted.tend(*followed, now),
                Step::Confirm => accepted.confirm(now),
                Step::Withdraw | Step::Policy | Step::Retake => accepted.withdraw(now),
            };

            for (network, expiry) in accepted.in_force().live_at(now) {
                prop_assert_eq!(policy().judge(network), None);
                prop_assert!(expiry <= until(now.unix_ms() + TTL));
            }
        }
    }
}
