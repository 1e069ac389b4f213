//! Targets at a provider that has no timeouts: every entry carries a mark with its deadlines.
//!
//! Whoever reads the marks knows what is overdue, without any list and any memory. So this agent
//! sweeps after a restart that forgot everything, and so does another in its place.

pub(crate) mod budget;
mod fitted;
mod mark;
pub(crate) mod mirror;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::plan::{Observed, Plan};
use postern_shared::time::{Expiry, Timestamp};
use tokio::time::Instant;

pub use fitted::{Fitted, Room, Shape};
pub use mark::{Mark, first_words, latest_deadline};
pub use sweep::{Swept, sweep};

use super::{Refresh, Target, TargetError, TargetInfo};

/// How long what was read is taken for true. Who else writes there is found out by then.
const READ_EVERY: Duration = Duration::from_secs(50);
/// The same where we do not know what our last call has done, or that of the process before.
const DOUBT_EVERY: Duration = Duration::from_secs(12);
const DOUBT: Duration = Duration::from_secs(30);
/// How long a provider may take for one read or write: the agent's other tasks are not to be taken
/// for hanging with it.
const CALLS_MAX: Duration = Duration::from_secs(75);
/// A later deadline is written when so little is left of the one that stands there, at least.
const RENEW_MARGIN: Duration = Duration::from_secs(130);
/// Deadlines that differ by less are the same.
const SLACK: Duration = Duration::from_millis(500);

/// What we need of a provider: where entries are, and how they are changed.
pub trait Provider: Send + 'static {
    /// As the configuration spells it.
    const KIND: &'static str;

    /// A later deadline is written once only one part in so many is left of the time until it:
    /// every renewal is a call, and at some providers a moment without the entry.
    const RENEW_PART: u32;

    /// Whether a change goes on after its answer: then one of the process before may still show itself.
    const LINGERS: bool = false;

    /// Reads what is there.
    fn read(&mut self) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// What is ours of what was read, or was written since.
    fn held(&self) -> BTreeMap<Network, Held>;

    /// Says whether an entry that is not ours lets the network in, so that ours cannot stand there.
    fn is_taken(&self, network: Network) -> bool;

    /// Says what the edits come to, quotas first. Needs no rights.
    fn preview(&self, edits: &Edits) -> String;

    /// Carries edits out. What goes, goes even where what is new does not fit.
    fn write(&mut self, edits: &Edits) -> impl Future<Output = Result<(), TargetError>> + Send;

    /// Says whether all else than entries is as it should be; where it is not, edits are written
    /// even when they are none.
    fn is_settled(&self) -> bool {
        true
    }

    /// Why what is held is no proof of what is open, for a sweep, which has no list to put it right
    /// by.
    fn doubt(&self) -> Option<String> {
        None
    }

    /// Whether a write, perhaps of a process before, did not come to its end.
    fn is_unfinished(&self) -> bool {
        false
    }

    /// Hears the time, before each read and write.
    fn tell_time(&mut self, _now: Timestamp) {}

    /// Resolves when what was read may have been changed by others, as far as the provider tells.
    /// Dropping the future loses nothing.
    fn disturbed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// An entry of ours, as a provider holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// What it says of itself: one description, or several where pieces of it differ.
    pub descriptions: BTreeSet<String>,
    /// Whether all the pieces are there that make one entry.
    pub is_whole: bool,
}

/// What is to change at a provider, by networks; what is there and not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    /// Networks to take away.
    pub remove: BTreeSet<Network>,
    /// Networks to allow, or to describe otherwise, with their descriptions.
    pub put: BTreeMap<Network, String>,
}

/// A provider's entries, kept equal to groups.
#[derive(Debug)]
pub struct Marked<P> {
    info: TargetInfo,
    provider: P,
    owner: String,
    groups: BTreeSet<GroupId>,
    kept: BTreeMap<Network, Kept>,
    observed: BTreeMap<GroupId, Observed>,
    /// When what we know was read, if it can be trusted.
    read_at: Option<Instant>,
    doubted_at: Option<Instant>,
    made_at: Instant,
    /// Our time, and tokio's at that moment.
    now: (Timestamp, Instant),
    is_standing: bool,
    /// Since when something that was to be taken away is not known to be gone.
    lingers_since: Option<Timestamp>,
}

/// An entry as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Kept {
    /// What stands there.
    written: Mark,
    /// What it is to be: where only deadlines are later, it is written in time, not at once.
    promised: Mark,
    is_whole: bool,
}

impl<P: Provider> Marked<P> {
    /// Makes the target; nothing is asked yet. `owner` tells this target of this agent from others.
    pub fn new(name: &str, owner: &str, groups: BTreeSet<GroupId>, provider: P) -> Marked<P> {
        let info = TargetInfo { name: name.to_owned(), kind: P::KIND, strategy: String::new() };
        Marked {
            info,
            provider,
            owner: owner.to_owned(),
            observed: groups.iter().map(|group| (*group, Observed::new())).collect(),
            groups,
            kept: BTreeMap::new(),
            read_at: None,
            doubted_at: None,
            made_at: Instant::now(),
            now: (Timestamp::EPOCH, Instant::now()),
            is_standing: false,
            lingers_since: None,
        }
    }

    /// The provider below, for tests.
    pub fn provider(&self) -> &P {
        &self.provider
    }

    fn hear(&mut self, now: Timestamp) {
        self.now = (now, Instant::now());
        self.provider.tell_time(now);
    }

    fn is_doubted(&self) -> bool {
        self.doubted_at.is_some_and(|at| at.elapsed() < DOUBT)
    }

    /// Says whether calls may still show themselves of which we know nothing: of a process before
    /// this one, or of our own.
    fn may_be_behind(&self) -> bool {
        self.is_doubted() || P::LINGERS && self.made_at.elapsed() < DOUBT
    }

    /// Our time now, as far as it was told.
    fn now(&self) -> Timestamp {
        self.now.0.saturating_add(self.now.1.elapsed())
    }

    fn take(&mut self) -> usize {
        let mut before = std::mem::take(&mut self.kept);
        let mut drift = 0;
        for (network, held) in self.provider.held() {
            let found = self.kept_of(&held);
            let kept = match before.remove(&network) {
                Some(known)
                    if known.written == found.written && known.is_whole == found.is_whole =>
                {
                    known
                }
                Some(_) | None => {
                    drift += 1;
                    found
                }
            };
            self.kept.insert(network, kept);
        }
        for (network, known) in before {
            if self.provider.is_taken(network) {
                self.kept.insert(network, known);
            } else {
                drift += 1;
            }
        }
        drift
    }

    /// Of pieces that differ, the earliest deadline of each group counts.
    fn kept_of(&self, held: &Held) -> Kept {
        let mut written = Mark::default();
        for text in &held.descriptions {
            let mark = Mark::read(text, &self.owner, &self.groups).unwrap_or_default();
            for (group, expiry) in mark.0 {
                let earliest = written.0.entry(group).or_insert(expiry);
                *earliest = expiry.min(*earliest);
            }
        }
        let is_whole = held.is_whole && held.descriptions.len() == 1;
        Kept { promised: written.clone(), written, is_whole }
    }

    fn show(&mut self) {
        let mut observed: BTreeMap<GroupId, Observed> =
            self.groups.iter().map(|group| (*group, Observed::new())).collect();
        for (network, kept) in &self.kept {
            for (group, expiry) in &kept.promised.0 {
                observed.entry(*group).or_default().insert(*network, *expiry);
            }
        }
        self.observed = observed;
    }

    /// What the entries are to be once the plans are carried out, without what has expired.
    fn wanted(&self, plans: &BTreeMap<GroupId, Plan>, now: Timestamp) -> BTreeMap<Network, Mark> {
        let mut wanted: BTreeMap<Network, Mark> =
            self.kept.iter().map(|(network, kept)| (*network, kept.promised.clone())).collect();
        for (group, plan) in plans {
            for network in plan.remove.keys() {
                wanted.entry(*network).or_default().0.remove(group);
            }
            for (network, expiry) in plan.add.iter().chain(&plan.renew) {
                wanted.entry(*network).or_default().0.insert(*group, *expiry);
            }
        }
        for mark in wanted.values_mut() {
            mark.0.retain(|_, expiry| expiry.is_live_at(now));
        }
        wanted
    }

    fn edits(&self, wanted: &BTreeMap<Network, Mark>, now: Timestamp) -> Edits {
        let mut edits = Edits::default();
        for (network, mark) in wanted {
            let kept = self.kept.get(network);
            if mark.0.is_empty() {
                if kept.is_some() {
                    edits.remove.insert(*network);
                }
            } else if kept.is_none_or(|kept| is_due::<P>(kept, mark, now)) {
                edits.put.insert(*network, mark.write(&self.owner));
            }
        }
        edits
    }
}

/// Says whether what stands there must be written anew to be what is wanted.
fn is_due<P: Provider>(kept: &Kept, wanted: &Mark, now: Timestamp) -> bool {
    let written = &kept.written.0;
    let is_late = |group: &GroupId, wanted: &Expiry| match (written.get(group), wanted) {
        (None, _) => true,
        (Some(Expiry::Never), Expiry::Never) => false,
        (Some(Expiry::Never), Expiry::At(_)) => true,
        (Some(Expiry::At(there)), Expiry::Never) => there.since(now) < RENEW_MARGIN,
        (Some(Expiry::At(there)), Expiry::At(wanted)) if *wanted < *there => {
            SLACK < there.since(*wanted)
        }
        (Some(Expiry::At(there)), Expiry::At(wanted)) => {
            let part = wanted.since(now) / P::RENEW_PART;
            SLACK < wanted.since(*there) && there.since(now) < part.max(RENEW_MARGIN)
        }
    };
    let is_for_others = written.keys().any(|group| !wanted.0.contains_key(group));
    !kept.is_whole || is_for_others || wanted.0.iter().any(|(group, wanted)| is_late(group, wanted))
}

async fn in_time(calls: impl Future<Output = Result<(), TargetError>>) -> Result<(), TargetError> {
    let done = tokio::time::timeout(CALLS_MAX, calls).await;
    done.unwrap_or_else(|_| {
        let step = format!("the provider did not come to an end in {} s", CALLS_MAX.as_secs());
        let source = std::io::ErrorKind::TimedOut.into();
        Err(TargetError::Unreachable { step, source })
    })
}

impl<P: Provider> Target for Marked<P> {
    fn info(&self) -> &TargetInfo {
        &self.info
    }

    async fn refresh(&mut self, now: Timestamp) -> Result<Refresh, TargetError> {
        self.hear(now);
        let is_doubted = self.is_doubted();
        let every = if self.may_be_behind() { DOUBT_EVERY } else { READ_EVERY };
        if self.read_at.is_some_and(|at| at.elapsed() < every) {
            return Ok(Refresh::Unchanged);
        }
        let is_first = !self.is_standing && self.kept.is_empty();
        let was_settled = self.provider.is_settled();
        in_time(self.provider.read()).await?;
        self.read_at = Some(Instant::now());
        let drift = self.take() + usize::from(was_settled && !self.provider.is_settled());
        self.show();
        let is_ours = is_first || is_doubted;
        Ok(Refresh::Reread { drift: if is_ours { 0 } else { drift } })
    }

    fn observed(&self) -> &BTreeMap<GroupId, Observed> {
        &self.observed
    }

    fn is_settled(&self) -> bool {
        let now = self.now();
        let promised: BTreeMap<Network, Mark> = self.wanted(&BTreeMap::new(), now);
        let edits = self.edits(&promised, now);
        self.is_standing && edits == Edits::default() && self.provider.is_settled()
    }

    fn preview(&self, plans: &BTreeMap<GroupId, Plan>) -> String {
        let now = self.now();
        self.provider.preview(&self.edits(&self.wanted(plans, now), now))
    }

    async fn apply(
        &mut self,
        plans: &BTreeMap<GroupId, Plan>,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        if self.read_at.is_none() {
            return Err(TargetError::Changed);
        }
        self.hear(now);
        let wanted = self.wanted(plans, now);
        let edits = self.edits(&wanted, now);
        if edits != Edits::default() || !self.provider.is_settled() {
            self.lingers_since = self.earliest_deadline().filter(|deadline| *deadline <= now);
            // Unknown until the provider has answered, or was read again.
            let doubted_at = self.doubted_at.replace(Instant::now());
            let read_at = self.read_at.take();
            in_time(self.provider.write(&edits)).await?;
            self.read_at = read_at;
            self.doubted_at = doubted_at.filter(|_| P::LINGERS);
        }
        for (network, promised) in wanted {
            if promised.0.is_empty() {
                self.kept.remove(&network);
                continue;
            }
            let kept = self.kept.entry(network).or_default();
            if edits.put.contains_key(&network) {
                (kept.written, kept.is_whole) = (promised.clone(), true);
            }
            kept.promised = promised;
        }
        self.is_standing = true;
        self.lingers_since = None;
        self.show();
        Ok(())
    }

    async fn disturbed(&mut self) {
        let deadlines = self.kept.values().flat_map(|kept| kept.written.0.values());
        let next = deadlines.filter_map(|expiry| expiry.deadline()).min();
        let next = next.map(|deadline| self.now.1 + deadline.since(self.now.0));
        let again =
            self.read_at.filter(|_| P::LINGERS && self.may_be_behind()).map(|at| at + DOUBT_EVERY);
        let due = async {
            match next.into_iter().chain(again).min() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = self.provider.disturbed() => self.read_at = None,
        }
    }

    fn earliest_deadline(&self) -> Option<Timestamp> {
        // An entry may be there for another group still.
        let last = |kept: &Kept| kept.written.0.values().max().and_then(|expiry| expiry.deadline());
        self.kept.values().filter_map(last).chain(self.lingers_since).min()
    }

    async fn flush(&mut self) -> Result<(), TargetError> {
        self.read_at = None;
        in_time(self.provider.read()).await?;
        let remove = self.provider.held().into_keys().collect();
        in_time(self.provider.write(&Edits { remove, put: BTreeMap::new() })).await?;
        self.kept.clear();
        self.show();
        self.is_standing = false;
        Ok(())
    }
}
