//! Networks that a provider does not take as they are: in pieces, wider, or not at all.
//!
//! A piece is exact: together the pieces let in what the network does. Wider is more than anybody
//! asked for, so it happens only where the operator says so, and within the local policy. Where a
//! provider has no room for all entries, adjacent ones become one by the same option: exact, too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use postern_shared::aggregate::{Deadlines, Widest, aggregate};
use postern_shared::allowlist::Allowlist;
use postern_shared::ids::GroupId;
use postern_shared::network::{Family, Network};
use postern_shared::plan::{Observed, Plan, Scope, plan};
use postern_shared::policy::LocalPolicy;
use postern_shared::time::{Expiry, Timestamp};

use crate::target::{Refresh, Target, TargetError, TargetInfo};

/// Most pieces of one network.
const PIECES_MAX: u128 = 256;
/// Most networks that a refusal names.
const NAMED_MAX: usize = 5;

/// What a provider takes, and what is done with the rest.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The prefix lengths of IPv4 that it takes, shortest first.
    pub v4: &'static [RangeInclusive<u8>],
    /// The same of IPv6.
    pub v6: &'static [RangeInclusive<u8>],
    /// The policy within which what is too narrow may become wider; nothing does where there is none.
    pub widen_within: Option<LocalPolicy>,
}

/// How many entries of ours there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Both families share it.
    Together(usize),
    /// Each family has its own.
    Each {
        /// Of IPv4.
        v4: usize,
        /// Of IPv6.
        v6: usize,
    },
}

/// Entries of all groups, by what is there for them.
type Entries = BTreeMap<Network, Deadlines<GroupId>>;

impl Room {
    /// The same in fewer entries, where there is no room for all and there is a way. Else it is for
    /// the target to say that they do not fit.
    fn fit(self, mut entries: Entries, widest: Widest) -> Entries {
        let fewer = |entries: Entries, room| aggregate(&entries, room, widest).unwrap_or(entries);
        match self {
            Room::Together(room) => fewer(entries, room),
            Room::Each { v4, v6 } => {
                let is_v4 = |network: &Network, _: &mut _| network.family() == Family::V4;
                let mut of_v4 = fewer(entries.extract_if(.., is_v4).collect(), v4);
                of_v4.append(&mut fewer(entries, v6));
                of_v4
            }
        }
    }
}

impl Shape {
    /// Takes every network as it is.
    pub const ANY: Shape = Shape { v4: &[0..=32], v6: &[0..=128], widen_within: None };

    /// What stands at the provider for a network, or why nothing can.
    fn fit(&self, network: Network) -> Result<Vec<Network>, String> {
        let prefix = network.prefix();
        let taken = match network.family() {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        let next = taken.iter().find(|range| prefix <= *range.end());
        let next = next.map(|range| prefix.max(*range.start()));
        if let Some(pieces) = next.filter(|next| is_few(prefix, *next)) {
            let pieces = network.as_ipnet().subnets(pieces).expect("no piece is wider");
            let piece = |net: ipnet::IpNet| Network::containing(net.addr(), net.prefix_len());
            return Ok(pieces.filter_map(piece).collect());
        }
        let wider = taken.iter().rev().find(|range| *range.end() < prefix).map(RangeInclusive::end);
        let Some(wider) = wider else {
            return Err(format!("{network} is wider than anything that this target takes"));
        };
        let wide = Network::containing(network.address(), *wider).expect("it is shorter");
        let Some(policy) = &self.widen_within else {
            return Err(format!(
                "{network} is narrower than /{wider}, the narrowest that this target takes; list a \
                 wider network, or set `widen_v6: true`, which lets in all of {wide} for it"
            ));
        };
        match policy.judge(wide) {
            None => Ok(vec![wide]),
            Some(reason) => Err(format!("{network} would become {wide}, which {reason}")),
        }
    }
}

fn is_few(prefix: u8, pieces: u8) -> bool {
    1_u128.checked_shl(u32::from(pieces - prefix)).is_some_and(|count| count <= PIECES_MAX)
}

/// A target that holds networks in another shape than the lists do.
#[derive(Debug)]
pub struct Fitted<T> {
    inner: T,
    shape: Shape,
    /// In the words of the lists, as far as this process knows which those were.
    observed: BTreeMap<GroupId, Observed>,
    /// What the target was last to hold.
    put: BTreeMap<GroupId, Observed>,
    merging: Option<Merging<T>>,
    now: Timestamp,
}

/// When entries are merged, and how far.
struct Merging<T> {
    room: fn(&T) -> Room,
    widest: Widest,
}

/// Plans in the provider's shape.
struct Fit {
    /// What the lists will see.
    asked: BTreeMap<GroupId, Observed>,
    /// What the target will hold.
    put: BTreeMap<GroupId, Observed>,
    plans: BTreeMap<GroupId, Plan>,
    refused: BTreeSet<String>,
}

impl<T: Target> Fitted<T> {
    /// Puts the shape between the lists and the target.
    pub fn new(inner: T, shape: Shape) -> Fitted<T> {
        let observed = inner.observed().clone();
        let put = observed.clone();
        Fitted { inner, shape, observed, put, merging: None, now: Timestamp::EPOCH }
    }

    /// Merges entries where there are more than `room`, within what the policy lets be one entry.
    /// The shape must take all lengths of prefixes from its widest on.
    pub fn merging(mut self, room: fn(&T) -> Room, policy: &LocalPolicy) -> Fitted<T> {
        let shortest =
            |taken: &[RangeInclusive<u8>]| taken.first().map_or(0, |range| *range.start());
        let widest = Widest {
            v4: policy.widest_v4.max(shortest(self.shape.v4)),
            v6: policy.widest_v6.max(shortest(self.shape.v6)),
        };
        self.merging = Some(Merging { room, widest });
        self
    }

    /// The target below, for tests.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    /// Shows what stands there in the words of the lists: what was asked for where all of it is
    /// there, and what belongs to nothing as it is.
    fn show(&mut self) {
        for (group, there) in self.inner.observed() {
            let asked = self.observed.remove(group).unwrap_or_default();
            let (mut shown, mut covered) = (Observed::new(), BTreeSet::new());
            for (network, expiry) in asked {
                let pieces = self.shape.fit(network).unwrap_or_default();
                let put = self.put.get(group);
                let mut earliest = |earliest: Expiry, piece: &Network| {
                    let (holder, found) = holder(*piece, there)?;
                    covered.insert(holder);
                    // What was merged has the earliest deadline of its parts.
                    let is_as_put = put.and_then(|put| put.get(&holder)) == Some(&found);
                    let is_merged = holder != *piece && is_as_put;
                    Some(if is_merged { earliest } else { earliest.min(found) })
                };
                if let Some(expiry) = pieces.iter().try_fold(expiry, &mut earliest) {
                    shown.insert(network, expiry);
                }
            }
            let alone = there.iter().filter(|(network, _)| !covered.contains(network));
            shown.extend(alone.map(|(network, expiry)| (*network, *expiry)));
            self.observed.insert(*group, shown);
        }
    }

    fn fit(&self, plans: &BTreeMap<GroupId, Plan>, now: Timestamp) -> Fit {
        let (mut asked, mut put, mut refused) =
            (self.observed.clone(), BTreeMap::new(), BTreeSet::new());
        for (group, asked) in &mut asked {
            if let Some(plan) = plans.get(group) {
                plan.carry_out(asked);
            }
            let mut wanted = Observed::new();
            asked.retain(|network, expiry| match self.shape.fit(*network) {
                _ if !expiry.is_live_at(now) => false,
                Ok(pieces) => {
                    for piece in pieces {
                        let latest = wanted.entry(piece).or_insert(*expiry);
                        *latest = (*latest).max(*expiry);
                    }
                    true
                }
                Err(why) => {
                    refused.insert(why);
                    false
                }
            });
            put.insert(*group, wanted);
        }
        let put = self.merged(put);
        let plan = |(group, wanted): (&GroupId, &Observed)| {
            let wanted: Allowlist = wanted.iter().map(|(net, expiry)| (*net, *expiry)).collect();
            let there = &self.inner.observed()[group];
            (*group, plan(&wanted, there, Scope::All, Duration::ZERO, now))
        };
        let plans = put.iter().map(plan).collect();
        Fit { asked, put, plans, refused }
    }

    /// The same, merged where there is no room for it.
    fn merged(&self, put: BTreeMap<GroupId, Observed>) -> BTreeMap<GroupId, Observed> {
        let Some(Merging { room, widest }) = &self.merging else { return put };
        let mut entries = Entries::new();
        for (group, wanted) in &put {
            for (network, expiry) in wanted {
                entries.entry(*network).or_default().insert(*group, *expiry);
            }
        }
        let mut merged: BTreeMap<GroupId, Observed> =
            put.into_keys().map(|group| (group, Observed::new())).collect();
        for (network, deadlines) in room(&self.inner).fit(entries, *widest) {
            for (group, expiry) in deadlines {
                merged.entry(group).or_default().insert(network, expiry);
            }
        }
        merged
    }
}

/// What lets a piece in: itself, or the narrowest network that it was merged into.
fn holder(piece: Network, there: &Observed) -> Option<(Network, Expiry)> {
    let prefixes = (0..=piece.prefix()).rev();
    let mut networks = prefixes.filter_map(|prefix| Network::containing(piece.address(), prefix));
    networks.find_map(|network| Some((network, *there.get(&network)?)))
}

impl<T> std::fmt::Debug for Merging<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Merging").field("widest", &self.widest).finish_non_exhaustive()
    }
}

fn reasons(refused: &BTreeSet<String>) -> String {
    let named: Vec<&str> = refused.iter().take(NAMED_MAX).map(String::as_str).collect();
    match refused.len().saturating_sub(NAMED_MAX) {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

impl<T: Target> Target for Fitted<T> {
    fn info(&self) -> &TargetInfo {
        self.inner.info()
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        self.now = now;
        let refresh = self.inner.refresh(now).await?;
        self.show();
        Ok(refresh)
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        self.inner.is_settled()
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        let Fit { plans, refused, .. } = self.fit(plans, self.now);
        let refused: String = refused.iter().map(|why| format!("refused: {why}\n")).collect();
        refused + &self.inner.preview(&plans)
    }

    /// What can be held is carried out, whatever is refused.
    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        self.now = now;
        let Fit { asked, put, plans, refused } = self.fit(plans, now);
        self.inner.apply(&plans, now).await?;
        (self.observed, self.put) = (asked, put);
        if refused.is_empty() {
            return Ok(());
        }
        Err(TargetError::Rejected { reason: reasons(&refused) })
    }

    async fn disturbed(&mut self) {
        self.inner.disturbed().await;
    }

    fn earliest_deadline(&self) -> Option<Timestamp> {
        self.inner.earliest_deadline()
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        self.inner.flush().await?;
        self.show();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { v4: &[16..=16, 24..=24, 32..=32], v6: &[48..=48, 64..=64], widen_within: None };

    fn fit(shape: &Shape, network: &str) -> Result<Vec<String>, String> {
        let fit = shape.fit(network.parse().unwrap());
        fit.map(|pieces| pieces.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_network_is_held_as_it_is_or_in_exact_pieces() {
        assert_eq!(fit(&SHAPE, "198.51.100.7/32").unwrap(), ["198.51.100.7/32"]);
        assert_eq!(fit(&SHAPE, "2001:db8::/64").unwrap(), ["2001:db8::/64"]);
        assert_eq!(fit(&SHAPE, "198.51.100.4/31").unwrap(), ["198.51.100.4/32", "198.51.100.5/32"]);
        assert_eq!(fit(&SHAPE, "198.51.0.0/17").unwrap().len(), 128);
        assert_eq!(fit(&SHAPE, "2001:db8::/40").unwrap().len(), 256);
        let (many, wide) = (fit(&SHAPE, "198.0.0.0/7"), fit(&SHAPE, "2001:db8::/39"));
        assert!(many.unwrap_err().contains("wider") && wide.unwrap_err().contains("wider"));
    }

    #[test]
    fn nothing_becomes_wider_but_by_option_and_within_the_policy() {
        let policy = LocalPolicy {
            denied: vec!["2001:db8:0:1:8000::/65".parse().unwrap()],
            ..LocalPolicy::default()
        };
        let widening = Shape { widen_within: Some(policy), ..SHAPE };

        let refused = fit(&SHAPE, "2001:db8::7/128").unwrap_err();
        let denied = fit(&widening, "2001:db8:0:1::7/128").unwrap_err();

        assert!(refused.contains("/64") && refused.contains("widen_v6"), "{refused}");
        assert_eq!(fit(&widening, "2001:db8::7/128").unwrap(), ["2001:db8::/64"]);
        assert!(denied.contains("2001:db8:0:1::/64") && denied.contains("denies"), "{denied}");
    }
}
