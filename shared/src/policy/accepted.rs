//! What one group's list may open on this host, kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::LocalPolicy;
use crate::allowlist::Allowlist;
use crate::network::Network;
use crate::time::{Expiry, Timestamp};

/// A snapshot may shrink lists up to this size as it likes.
const BRAKE_ENTRIES_MIN: usize = 5;

/// An entry that ends this soon is no withdrawal when a snapshot leaves it out: the two sides'
/// clocks may disagree by as much.
const BRAKE_SLACK: Duration = Duration::from_secs(1);

/// The list of one group that is in force here, in local time, and what the policy keeps out.
///
/// An offered entry is in exactly one place:
///
/// | place | within the policy | open |
/// | --- | --- | --- |
/// | `granted` | yes | yes, at most until the policy's longest time |
/// | `withheld` | yes | no: the list was suspect, or the lease ran out unheard |
/// | `refused` | no | no, and while there is one (or too many entries) the list is suspect |
///
/// From a suspect list only withdrawals and renewals of what is open are taken. `granted` holds
/// two things more: the fail-safe networks, always; and what a snapshot left out while the brake
/// holds it (`held`), until its deadline.
///
/// Methods that change it answer the networks whose entry in force they touched; what merely
/// expires is not touched. Their cost is that of the change, whatever the size of the list.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub(super) policy: LocalPolicy,
    pub(super) granted: Allowlist,
    /// Of the granted entries those that are offered for longer than granted, with that expiry.
    pub(super) leased: BTreeMap<Network, Expiry>,
    leases_by_end: BTreeSet<(Timestamp, Network)>,
    pub(super) withheld: Allowlist,
    pub(super) refused: Allowlist,
    pub(super) held: BTreeSet<Network>,
}

impl Accepted {
    /// Starts with nothing but the policy's fail-safe networks.
    pub fn new(policy: LocalPolicy, now: Timestamp) -> Accepted {
        let mut accepted = Accepted {
            policy: policy.tidied(),
            granted: Allowlist::new(),
            leased: BTreeMap::new(),
            leases_by_end: BTreeSet::new(),
            withheld: Allowlist::new(),
            refused: Allowlist::new(),
            held: BTreeSet::new(),
        };
        accepted.advance(now, &mut BTreeSet::new());
        accepted
    }

    /// What is to be open. Every entry has a deadline, of which none is later than the policy
    /// allows; entries that expired since the last call of a method with `now` are still in it.
    pub fn in_force(&self) -> &Allowlist {
        &self.granted
    }

    /// Takes a whole list, in local time, in place of the one before.
    ///
    /// `heard` is when the control plane said it: `now`, or earlier for a list from the cache.
    /// Leases count from then. Where the list leaves out more than half of what is open, what it
    /// leaves out is held; a second list that still does, or [`Accepted::confirm`], withdraws it.
    pub fn take_list(
        &mut self,
        list: &BTreeMap<Network, Expiry>,
        heard: Timestamp,
        now: Timestamp,
    ) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.advance(now, &mut touched);
        let (confirmed, absent): (Vec<_>, Vec<_>) = self
            .left_out_by(list)
            .into_iter()
            .partition(|(network, _)| self.held.contains(network));
        for (network, _) in confirmed {
            self.revoke(network, &mut touched);
        }
        let open = self.granted.len() - self.policy.failsafe.len();
        let soon = Expiry::At(now.saturating_add(BRAKE_SLACK));
        let withdrawn = absent.iter().filter(|(_, expiry)| soon < *expiry).count();
        let brake = BRAKE_ENTRIES_MIN < open && open < withdrawn.saturating_mul(2);
        for (network, _) in absent {
            if brake {
                self.unlease(network);
                self.held.insert(network);
            } else {
                self.revoke(network, &mut touched);
            }
        }
        self.offer_list(list, heard, now, &mut touched);
        touched
    }

    /// Takes the list that it has once more, because its local times are others now. Unlike
    /// another list this confirms nothing that the brake holds.
    pub fn retake_list(
        &mut self,
        list: &BTreeMap<Network, Expiry>,
        heard: Timestamp,
        now: Timestamp,
    ) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.advance(now, &mut touched);
        self.offer_again(list, heard, now, &mut touched);
        touched
    }

    /// Takes changes of the list: each network with its new expiry, or `None` where it was
    /// removed. All of them are judged together.
    pub fn take_changes(
        &mut self,
        changes: &BTreeMap<Network, Option<Expiry>>,
        now: Timestamp,
    ) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.advance(now, &mut touched);
        for (network, expiry) in changes {
            self.offer(*network, *expiry, now, now, &mut touched);
        }
        self.settle(now, now, &mut touched);
        touched
    }

    /// Withdraws all of the list, because the group is gone or not for this agent any more.
    pub fn withdraw(&mut self, now: Timestamp) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.advance(now, &mut touched);
        for (network, _) in self.left_out_by(&BTreeMap::new()) {
            self.revoke(network, &mut touched);
        }
        (self.withheld, self.refused) = (Allowlist::new(), Allowlist::new());
        touched
    }

    /// Withdraws what the brake holds, because the operator says so.
    pub fn confirm(&mut self, now: Timestamp) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.advance(now, &mut touched);
        for network in std::mem::take(&mut self.held) {
            self.revoke(network, &mut touched);
        }
        touched
    }

    /// Does what time brings: lets go of what has expired, keeps the fail-safe networks armed,
    /// and, while the control plane is `followed`, prolongs leases of which half is used up.
    pub fn tend(&mut self, followed: bool, now: Timestamp) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.advance(now, &mut touched);
        if followed {
            let due = self.leases_by_end.iter().take_while(|(end, _)| self.is_due(*end, now));
            for (_, network) in due.copied().collect::<Vec<_>>() {
                let offered = self.leased[&network];
                self.grant(network, offered, now, now, &mut touched);
            }
            self.settle(now, now, &mut touched);
        }
        touched
    }

    /// When [`Accepted::tend`] is to be called next; a time that has passed means at once.
    pub fn next_change(&self, followed: bool, now: Timestamp) -> Option<Timestamp> {
        let half = self.policy.ttl_max.as_duration() / 2;
        let failsafe = self.policy.failsafe.iter().filter_map(|net| self.granted.get(*net));
        let due = failsafe.filter_map(Expiry::deadline).min();
        let lease = self.leases_by_end.first().map(|(end, _)| *end).filter(|_| followed);
        let due = due.into_iter().chain(lease).map(|end| end.saturating_sub(half));
        // Expiry can bring a suspect list back within the policy.
        let lists = [&self.granted, &self.withheld, &self.refused];
        let deadlines = lists.into_iter().filter_map(|list| list.next_deadline_after(now));
        let ready = !self.withheld.is_empty() && !self.is_suspect();
        let lists = deadlines.filter(|_| self.is_suspect()).chain(ready.then_some(now));
        due.chain(lists.filter(|_| followed)).min()
    }

    /// Puts another policy in force. `list` is the whole list as the control plane last said it,
    /// in local time, and `heard` the time when it was last heard. The brake plays no part.
    pub fn replace_policy(
        &mut self,
        policy: LocalPolicy,
        list: &BTreeMap<Network, Expiry>,
        heard: Timestamp,
        now: Timestamp,
    ) -> BTreeSet<Network> {
        let mut touched = BTreeSet::new();
        self.policy = policy.tidied();
        for network in self.policy.failsafe.clone() {
            self.unlease(network);
            self.held.remove(&network);
        }
        self.advance(now, &mut touched);
        self.offer_again(list, heard, now, &mut touched);
        touched
    }

    /// Lets go of what has expired and keeps the fail-safe networks armed.
    fn advance(&mut self, now: Timestamp, touched: &mut BTreeSet<Network>) {
        while let Some((end, network)) = self.leases_by_end.first().copied()
            && end <= now
        {
            self.leases_by_end.remove(&(end, network));
            let offered = self.leased.remove(&network).expect("both say which entries are leased");
            self.withheld.set(network, offered);
        }
        for network in self.granted.drop_expired(now) {
            self.held.remove(&network);
        }
        self.withheld.drop_expired(now);
        self.refused.drop_expired(now);

        let end = now.saturating_add(self.policy.ttl_max.as_duration());
        for network in &self.policy.failsafe {
            let present = self.granted.get(*network).and_then(Expiry::deadline);
            if present.is_none_or(|present| end < present || self.is_due(present, now)) {
                self.granted.set(*network, Expiry::At(end));
                touched.insert(*network);
            }
        }
    }

    /// Offers the list that was offered before, after the policy or the times changed.
    fn offer_again(
        &mut self,
        list: &BTreeMap<Network, Expiry>,
        heard: Timestamp,
        now: Timestamp,
        touched: &mut BTreeSet<Network>,
    ) {
        for (network, _) in self.left_out_by(list) {
            if !self.held.contains(&network) || self.policy.judge(network).is_some() {
                self.revoke(network, touched);
            }
        }
        self.offer_list(list, heard, now, touched);
    }

    fn offer_list(
        &mut self,
        list: &BTreeMap<Network, Expiry>,
        heard: Timestamp,
        now: Timestamp,
        touched: &mut BTreeSet<Network>,
    ) {
        (self.withheld, self.refused) = (Allowlist::new(), Allowlist::new());
        // Most lists can be opened entry by entry, without the way over `withheld`.
        let is_welcome = list.len() <= self.policy.entries_max
            && list.keys().all(|network| self.policy.judge(*network).is_none());
        for (network, expiry) in list {
            if is_welcome && expiry.is_live_at(now) && !self.policy.is_failsafe(*network) {
                self.held.remove(network);
                self.grant(*network, *expiry, heard, now, touched);
            } else {
                self.offer(*network, Some(*expiry), heard, now, touched);
            }
        }
        self.settle(heard, now, touched);
    }

    /// Takes what the list says of one network. New entries are withheld until the whole change
    /// is known, see [`Accepted::settle`].
    fn offer(
        &mut self,
        network: Network,
        expiry: Option<Expiry>,
        heard: Timestamp,
        now: Timestamp,
        touched: &mut BTreeSet<Network>,
    ) {
        if self.policy.is_failsafe(network) {
            return;
        }
        self.held.remove(&network);
        self.withheld.remove(network);
        self.refused.remove(network);
        let Some(expiry) = expiry.filter(|expiry| expiry.is_live_at(now)) else {
            return self.revoke(network, touched);
        };
        if self.policy.judge(network).is_some() {
            self.revoke(network, touched);
            self.refused.set(network, expiry);
        } else if self.granted.get(network).is_some() {
            self.grant(network, expiry, heard, now, touched);
        } else {
            self.withheld.set(network, expiry);
        }
    }

    /// Opens what was withheld, unless the list is suspect.
    fn settle(&mut self, heard: Timestamp, now: Timestamp, touched: &mut BTreeSet<Network>) {
        let is_too_late = heard.saturating_add(self.policy.ttl_max.as_duration()) <= now;
        if self.withheld.is_empty() || self.is_suspect() || is_too_late {
            return;
        }
        let withheld = std::mem::take(&mut self.withheld);
        for (network, expiry) in withheld.iter() {
            self.grant(network, expiry, heard, now, touched);
        }
        if self.granted.len() < withheld.len().saturating_mul(2) {
            self.granted.compact();
        }
    }

    /// Opens `network` until `offered`, or as a lease where that is later than the policy allows.
    /// A lease of which more than half is left stays as it is, so that it is renewed rarely.
    fn grant(
        &mut self,
        network: Network,
        offered: Expiry,
        heard: Timestamp,
        now: Timestamp,
        touched: &mut BTreeSet<Network>,
    ) {
        let latest = heard.saturating_add(self.policy.ttl_max.as_duration());
        let present = self.granted.get(network);
        self.unlease(network);
        let end = match present.and_then(Expiry::deadline) {
            _ if offered <= Expiry::At(latest) => offered,
            Some(present) if present <= latest && !self.is_due(present, heard) => {
                Expiry::At(present)
            }
            Some(_) | None => Expiry::At(latest),
        };
        if !end.is_live_at(now) {
            self.revoke(network, touched);
            self.withheld.set(network, offered);
            return;
        }
        if let Some(end) = end.deadline().filter(|end| Expiry::At(*end) < offered) {
            self.leased.insert(network, offered);
            self.leases_by_end.insert((end, network));
        }
        if present != Some(end) {
            self.granted.set(network, end);
            touched.insert(network);
        }
    }

    fn revoke(&mut self, network: Network, touched: &mut BTreeSet<Network>) {
        self.unlease(network);
        self.held.remove(&network);
        if self.granted.remove(network).is_some() {
            touched.insert(network);
        }
    }

    /// Leaves the entry in force, but not to be prolonged any more.
    fn unlease(&mut self, network: Network) {
        if self.leased.remove(&network).is_some()
            && let Some(end) = self.granted.get(network).and_then(Expiry::deadline)
        {
            self.leases_by_end.remove(&(end, network));
        }
    }

    /// What is in force, not by the local policy, and not in `list`.
    fn left_out_by(&self, list: &BTreeMap<Network, Expiry>) -> Vec<(Network, Expiry)> {
        let is_left_out =
            |network: Network| !list.contains_key(&network) && !self.policy.is_failsafe(network);
        self.granted.iter().filter(|(network, _)| is_left_out(*network)).collect()
    }

    /// Says whether half of a lease that ends at `end` is used up.
    fn is_due(&self, end: Timestamp, now: Timestamp) -> bool {
        end.since(now) <= self.policy.ttl_max.as_duration() / 2
    }

    fn is_suspect(&self) -> bool {
        !self.refused.is_empty() || self.policy.entries_max < self.offered_count()
    }

    /// How many entries the list has.
    pub(super) fn offered_count(&self) -> usize {
        let granted = self.granted.len() - self.policy.failsafe.len() - self.held.len();
        granted + self.withheld.len() + self.refused.len()
    }
}
