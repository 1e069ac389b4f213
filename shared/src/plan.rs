//! The difference between what should be and what is really there, as a value.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::allowlist::Allowlist;
use crate::network::Network;
use crate::time::{Expiry, Timestamp};

/// What a target was seen to hold of one group, in local time.
pub type Observed = BTreeMap<Network, Expiry>;

/// Which networks a plan looks at.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// Every network that either side names.
    All,
    /// Only these, whatever the size of the list: what one change touched.
    Only(&'a BTreeSet<Network>),
}

/// The steps that make a target equal to an allowlist. No network is in two of its maps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Entries to take away, with the expiry that they were seen with.
    pub remove: BTreeMap<Network, Expiry>,
    /// Entries to put where there is nothing.
    pub add: BTreeMap<Network, Expiry>,
    /// Entries to replace by the same network with this other expiry: a delete and an add.
    pub renew: BTreeMap<Network, Expiry>,
}

/// Computes what makes `observed` equal to what `wanted` allows at `now`, within `scope`.
///
/// Deadlines at most `slack` apart are equal, since targets round them; what is not wanted counts
/// as wanted until `now`. So after the plan nothing stays open longer than `slack` past its time,
/// and no step names an entry that is about to close by itself. What has expired is neither
/// wanted nor there.
pub fn plan(
    wanted: &Allowlist,
    observed: &Observed,
    scope: Scope<'_>,
    slack: Duration,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let mut compare = |network: Network, wanted: Option<Expiry>, observed: Option<Expiry>| {
        let wanted = wanted.filter(|expiry| expiry.is_live_at(now));
        let observed = observed.filter(|expiry| expiry.is_live_at(now));
        match (wanted, observed) {
            (Some(wanted), None) => drop(plan.add.insert(network, wanted)),
            (Some(wanted), Some(observed)) if !is_close(wanted, observed, slack) => {
                plan.renew.insert(network, wanted);
            }
            (None, Some(observed)) if !is_close(Expiry::At(now), observed, slack) => {
                plan.remove.insert(network, observed);
            }
            (Some(_), Some(_)) | (None, Some(_)) | (None, None) => {}
        }
    };
    match scope {
        Scope::Only(networks) => {
            for network in networks {
                compare(*network, wanted.get(*network), observed.get(network).copied());
            }
        }
        Scope::All => {
            for (network, expiry) in wanted.iter() {
                compare(network, Some(expiry), observed.get(&network).copied());
            }
            for (network, expiry) in observed {
                if wanted.get(*network).is_none() {
                    compare(*network, None, Some(*expiry));
                }
            }
        }
    }
    plan
}

fn is_close(one: Expiry, other: Expiry, slack: Duration) -> bool {
    match (one, other) {
        (Expiry::At(one), Expiry::At(other)) => {
            one.since(other) <= slack && other.since(one) <= slack
        }
        (Expiry::Never, Expiry::Never) => true,
        (Expiry::At(_), Expiry::Never) | (Expiry::Never, Expiry::At(_)) => false,
    }
}

impl Plan {
    /// Says whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many networks the plan changes.
    pub fn len(&self) -> usize {
        self.remove.len() + self.add.len() + self.renew.len()
    }

    /// How many entries the plan takes away before their time: those that would still be open at
    /// `now`.
    pub fn withdrawals(&self, now: Timestamp) -> usize {
        self.remove.values().filter(|expiry| expiry.is_live_at(now)).count()
    }

    /// Makes `observed` what it is once the plan was carried out.
    pub fn carry_out(&self, observed: &mut Observed) {
        for network in self.remove.keys() {
            observed.remove(network);
        }
        let put = self.renew.iter().chain(&self.add).map(|(network, expiry)| (*network, *expiry));
        if observed.len() < self.add.len() {
            // A map that is built at once takes half the memory of one that grows.
            observed.append(&mut put.collect());
        } else {
            observed.extend(put);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLACK: Duration = Duration::from_millis(3);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms).unwrap()
    }

    /// Few networks and few instants, so that the two sides of a comparison often meet.
    fn any_entries() -> impl Strategy<Value = Observed> {
        let network = (0u8..12, 30u8..=32).prop_map(|(last, prefix)| {
            Network::containing([192, 0, 2, last].into(), prefix).unwrap()
        });
        let expiry = prop::option::weighted(0.9, 0u64..24).prop_map(|ms| Expiry::from(ms.map(at)));
        prop::collection::btree_map(network, expiry, 0..20)
    }

    fn list(entries: &Observed) -> Allowlist {
        entries.iter().map(|(network, expiry)| (*network, *expiry)).collect()
    }

    fn any_scope() -> impl Strategy<Value = BTreeSet<Network>> {
        any_entries().prop_map(|entries| entries.into_keys().collect())
    }

    #[test]
    fn a_step_of_each_kind() {
        let net = |last: u8| Network::host([192, 0, 2, last].into());
        let wanted = list(&BTreeMap::from([
            (net(1), Expiry::At(at(100))),
            (net(2), Expiry::At(at(100))),
            (net(3), Expiry::At(at(100))),
            (net(4), Expiry::At(at(10))),
        ]));
        let observed = BTreeMap::from([
            (net(2), Expiry::At(at(103))),
            (net(3), Expiry::At(at(104))),
            (net(5), Expiry::At(at(100))),
            (net(6), Expiry::At(at(10))),
            (net(7), Expiry::At(at(13))),
        ]);

        let plan = plan(&wanted, &observed, Scope::All, SLACK, at(10));

        assert_eq!(plan.add, BTreeMap::from([(net(1), Expiry::At(at(100)))]));
        assert_eq!(plan.renew, BTreeMap::from([(net(3), Expiry::At(at(100)))]));
        assert_eq!(plan.remove, BTreeMap::from([(net(5), Expiry::At(at(100)))]));
    }

    proptest! {
        #[test]
        fn carrying_out_the_plan_leaves_nothing_to_do(
            wanted in any_entries(), observed in any_entries(), now in 0u64..24,
        ) {
            let (wanted, mut observed) = (list(&wanted), observed);
            plan(&wanted, &observed, Scope::All, SLACK, at(now)).carry_out(&mut observed);

            let again = plan(&wanted, &observed, Scope::All, SLACK, at(now));

            prop_assert!(again.is_empty(), "{again:?}");
        }

        #[test]
        fn carried_out_the_target_is_open_to_the_wanted_give_or_take_the_slack(
            wanted in any_entries(), observed in any_entries(), now in 0u64..24, later in 0u64..24,
        ) {
            let (wanted, mut observed) = (list(&wanted), observed);
            plan(&wanted, &observed, Scope::All, SLACK, at(now)).carry_out(&mut observed);

            let (early, late) = (at(now + later), at(now + later).saturating_add(SLACK));
            for (network, _) in observed.iter().filter(|(_, expiry)| expiry.is_live_at(late)) {
                prop_assert!(wanted.get(*network).is_some_and(|e| e.is_live_at(early)));
            }
            for (network, _) in wanted.live_at(late) {
                prop_assert!(observed.get(&network).is_some_and(|e| e.is_live_at(early)));
            }
        }

        #[test]
        fn expiry_is_never_a_withdrawal(entries in any_entries(), now in 0u64..24) {
            let mut left = list(&entries);
            left.drop_expired(at(now));

            let plan = plan(&left, &entries, Scope::All, Duration::ZERO, at(now));

            prop_assert!(plan.is_empty());
            prop_assert_eq!(plan.withdrawals(at(now)), 0);
        }

        #[test]
        fn what_ended_while_the_plan_waited_is_no_withdrawal(
            wanted in any_entries(), observed in any_entries(), now in 0u64..24, later in 0u64..24,
        ) {
            let plan = plan(&list(&wanted), &observed, Scope::All, SLACK, at(now));

            let open = |net: &&Network| observed[*net].is_live_at(at(now + later));
            let withdrawn = plan.remove.keys().filter(open).count();
            prop_assert_eq!(plan.withdrawals(at(now + later)), withdrawn);
        }

        #[test]
        fn removals_and_renewals_name_only_what_is_observed_and_additions_what_is_not(
            wanted in any_entries(), observed in any_entries(), now in 0u64..24,
        ) {
            let plan = plan(&list(&wanted), &observed, Scope::All, SLACK, at(now));

            let there = |net: &Network| observed.get(net).is_some_and(|e| e.is_live_at(at(now)));
            prop_assert!(plan.remove.keys().all(there));
            prop_assert!(plan.renew.keys().all(there));
            prop_assert!(!plan.add.keys().any(there));
            prop_assert!(plan.remove.iter().all(|(net, expiry)| observed[net] == *expiry));
            prop_assert!(plan.add.values().chain(plan.renew.values()).all(|e| e.is_live_at(at(now))));
        }

        #[test]
        fn a_scope_gives_its_part_of_the_whole_plan(
            wanted in any_entries(), observed in any_entries(), scope in any_scope(), now in 0u64..24,
        ) {
            let wanted = list(&wanted);
            let mut whole = plan(&wanted, &observed, Scope::All, SLACK, at(now));
            for steps in [&mut whole.remove, &mut whole.add, &mut whole.renew] {
                steps.retain(|network, _| scope.contains(network));
            }

            let part = plan(&wanted, &observed, Scope::Only(&scope), SLACK, at(now));

            prop_assert_eq!(part, whole);
        }

        #[test]
        fn a_deadline_seen_too_late_is_always_renewed_down(
            entries in any_entries(), beyond in 4u64..20,
        ) {
            let wanted = list(&entries);
            let late = |expiry: Expiry| match expiry {
                Expiry::At(at) => Expiry::At(at.saturating_add(Duration::from_millis(beyond))),
                Expiry::Never => Expiry::Never,
            };
            let observed = entries.iter().map(|(net, expiry)| (*net, late(*expiry))).collect();

            let plan = plan(&wanted, &observed, Scope::All, SLACK, Timestamp::EPOCH);

            let timed = |(_, expiry): &(Network, Expiry)| expiry.deadline().is_some();
            let timed: BTreeMap<_, _> = wanted.live_at(Timestamp::EPOCH).filter(timed).collect();
            prop_assert_eq!(plan.renew, timed);
        }
    }
}
