//! Which of the control plane's messages a follower accepts, and what they change.

mod clock;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use clock::PlaneClock;

use crate::allowlist::Allowlist;
use crate::digest::Digest;
use crate::ids::{Epoch, GroupId};
use crate::network::Network;
use crate::position::{Follow, Position, Revision};
use crate::time::{Expiry, Timestamp};
use crate::wire::v1::{Delta, Entry, Same, Snapshot, StreamEvent};

/// The follower of one group: the list as the control plane last said it, in the plane's time.
///
/// | state | `snapshot` | `delta`, `same` |
/// | --- | --- | --- |
/// | nothing yet, or withdrawn | accepted | gap |
/// | following | accepted, unless older | accepted where it fits: epoch, revision, digest |
/// | lost: something did not fit | accepted, unless older | gap |
///
/// A message is accepted whole or changes nothing, so that the list is always one that the
/// control plane had. Whoever has lost the thread keeps the list, and asks for a snapshot.
#[derive(Debug, Clone)]
pub struct Follower {
    group: GroupId,
    have: Option<Have>,
    is_lost: bool,
}

#[derive(Debug, Clone)]
struct Have {
    epoch: Epoch,
    revision: Revision,
    /// The plane's time of the message that was accepted last.
    as_of: Timestamp,
    list: Allowlist,
}

/// What an accepted message changes, in local time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the list is still the newest.
    None,
    /// The whole list.
    List(BTreeMap<Network, Expiry>),
    /// Networks with their new expiry; `None` where it was removed.
    Changes(BTreeMap<Network, Option<Expiry>>),
    /// There is no list any more for this follower.
    Withdrawn,
}

/// Why a message was not accepted. The list is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// About another group.
    #[error("the message is about group {0}, which this follower does not follow")]
    ForeignGroup(GroupId),
    /// A change of a life of the store that this follower does not know.
    #[error("the control plane was restored or replaced: epoch {theirs} needs a snapshot")]
    ForeignEpoch {
        /// The epoch of the message.
        theirs: Epoch,
    },
    /// A change of a list that this follower does not have.
    #[error("a change of revision {from} came, which is not what this follower has")]
    Gap {
        /// The revision that it applies to.
        from: Revision,
    },
    /// A change that was accepted before.
    #[error("revision {0} came a second time")]
    Duplicate(Revision),
    /// A list older than what this follower has, in the same epoch.
    #[error("revision {theirs} came, but this follower already has {ours}")]
    Older {
        /// The revision of the message.
        theirs: Revision,
        /// The revision of the list.
        ours: Revision,
    },
    /// The entries are not those that the digest was made of.
    #[error("the list does not add up to digest {theirs}")]
    Digest {
        /// The digest in the message.
        theirs: Digest,
    },
}

impl Rejected {
    /// Says whether the follower is to connect again, asking for what [`Follower::follow`] then
    /// says. Otherwise the message can be passed over.
    pub fn is_to_reconnect(self) -> bool {
        match self {
            Rejected::ForeignGroup(_) | Rejected::Duplicate(_) => false,
            Rejected::ForeignEpoch { .. }
            | Rejected::Gap { .. }
            | Rejected::Older { .. }
            | Rejected::Digest { .. } => true,
        }
    }
}

/// A follower that starts with the list that an earlier run saved.
#[derive(Debug)]
pub struct Restored {
    /// The follower.
    pub follower: Follower,
    /// The plane's clock, where the elapsed time was known.
    pub clock: Option<PlaneClock>,
    /// The list in local time.
    pub list: BTreeMap<Network, Expiry>,
    /// When, in local time, the list was saved: leases count from then. Now, where it is unknown.
    pub heard: Timestamp,
}

impl Follower {
    /// Makes a follower that has nothing yet.
    pub fn new(group: GroupId) -> Follower {
        Follower { group, have: None, is_lost: false }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// What to ask the control plane for. `plane_now` is its time now, as far as it is known.
    pub fn follow(&self, plane_now: Option<Timestamp>) -> Follow {
        let have = self.position(plane_now).filter(|_| !self.is_lost);
        Follow { group: self.group, have }
    }

    /// The position of the list that was accepted last, for receipts; its digest is that of the
    /// entries later than `plane_now`, or than the last message where that is unknown.
    pub fn position(&self, plane_now: Option<Timestamp>) -> Option<Position> {
        let have = self.have.as_ref()?;
        let digest = have.list.digest_at(plane_now.unwrap_or(have.as_of).max(have.as_of));
        Some(Position { epoch: have.epoch, revision: have.revision, digest })
    }

    /// The whole list in local time; `None` before the first one.
    pub fn list(&self, clock: PlaneClock) -> Option<BTreeMap<Network, Expiry>> {
        let have = self.have.as_ref()?;
        let local = |(network, expiry)| (network, clock.expiry_to_local(expiry));
        Some(have.list.iter().map(local).collect())
    }

    /// Takes a message.
    pub fn receive(&mut self, event: StreamEvent, clock: PlaneClock) -> Result<Change, Rejected> {
        let group = match &event {
            StreamEvent::Same(same) => same.group,
            StreamEvent::Delta(delta) => delta.group,
            StreamEvent::Snapshot(snapshot) => snapshot.group,
            StreamEvent::Withdrawn(withdrawn) => withdrawn.group,
        };
        if group != self.group {
            return Err(Rejected::ForeignGroup(group));
        }
        let result = match event {
            StreamEvent::Same(same) => self.same(&same),
            StreamEvent::Delta(delta) => self.delta(&delta, clock),
            StreamEvent::Snapshot(snapshot) => self.snapshot(&snapshot, clock),
            StreamEvent::Withdrawn(_) => {
                *self = Follower::new(self.group);
                Ok(Change::Withdrawn)
            }
        };
        match result {
            Err(Rejected::Gap { .. } | Rejected::ForeignEpoch { .. } | Rejected::Digest { .. }) => {
                self.is_lost = true;
            }
            // It has to hear what this follower has, to find out that it was restored.
            Err(Rejected::Older { .. }) => self.is_lost = false,
            Ok(_) | Err(Rejected::ForeignGroup(_) | Rejected::Duplicate(_)) => {}
        }
        result
    }

    fn same(&mut self, same: &Same) -> Result<Change, Rejected> {
        let have = self.continued(same.epoch, same.revision)?;
        if same.revision < have.revision {
            return Err(Rejected::Older { theirs: same.revision, ours: have.revision });
        }
        if have.list.digest_at(same.as_of) != same.digest {
            return Err(Rejected::Digest { theirs: same.digest });
        }
        have.advance(same.revision, same.as_of);
        Ok(Change::None)
    }

    fn delta(&mut self, delta: &Delta, clock: PlaneClock) -> Result<Change, Rejected> {
        let have = self.continued(delta.epoch, delta.from)?;
        if delta.revision <= have.revision {
            return Err(Rejected::Duplicate(delta.revision));
        }
        if delta.from != have.revision {
            return Err(Rejected::Gap { from: delta.from });
        }
        let base = have.list.digest_at(delta.as_of);
        if base != delta.base {
            return Err(Rejected::Digest { theirs: delta.base });
        }
        let removed = delta.remove.iter().map(|network| (*network, None));
        let added = delta.add.iter().map(|entry| (entry.cidr, Some(entry.expires_at)));
        let changes: BTreeMap<Network, Option<Expiry>> = removed.chain(added).collect();
        let named_once = changes.len() == delta.remove.len() + delta.add.len();
        if !named_once || have.digest_after(&changes, delta.as_of) != delta.digest {
            return Err(Rejected::Digest { theirs: delta.digest });
        }

        for (network, expiry) in &changes {
            match expiry {
                Some(expiry) => drop(have.list.set(*network, *expiry)),
                None => drop(have.list.remove(*network)),
            }
        }
        have.advance(delta.revision, delta.as_of);
        let local = |(network, expiry): (Network, Option<Expiry>)| {
            (network, expiry.map(|expiry| clock.expiry_to_local(expiry)))
        };
        Ok(Change::Changes(changes.into_iter().map(local).collect()))
    }

    fn snapshot(&mut self, snapshot: &Snapshot, clock: PlaneClock) -> Result<Change, Rejected> {
        if let Some(have) = &self.have
            && have.epoch == snapshot.epoch
            && snapshot.revision < have.revision
        {
            return Err(Rejected::Older { theirs: snapshot.revision, ours: have.revision });
        }
        self.have = Some(Have::new(snapshot)?);
        self.is_lost = false;
        Ok(self.list(clock).map_or(Change::None, Change::List))
    }

    /// The list that a message of `epoch` continues, which starts at `from`.
    fn continued(&mut self, epoch: Epoch, from: Revision) -> Result<&mut Have, Rejected> {
        let have = self.have.as_mut().filter(|_| !self.is_lost).ok_or(Rejected::Gap { from })?;
        if have.epoch == epoch { Ok(have) } else { Err(Rejected::ForeignEpoch { theirs: epoch }) }
    }

    /// What a later run needs to start with this list: a snapshot as of `plane_now`. `None` where
    /// there is nothing worth keeping. To be saved now and then even where the list does not
    /// change, since a later run counts leases from the time of the save.
    pub fn save(&self, plane_now: Timestamp) -> Option<Snapshot> {
        let have = self.have.as_ref().filter(|_| !self.is_lost)?;
        let as_of = plane_now.max(have.as_of);
        let entry = |(cidr, expires_at)| Entry { cidr, expires_at };
        Some(Snapshot {
            group: self.group,
            epoch: have.epoch,
            revision: have.revision,
            as_of,
            digest: have.list.digest_at(as_of),
            entries: have.list.live_at(as_of).map(entry).collect(),
        })
    }

    /// Starts with what an earlier run saved.
    ///
    /// `elapsed` is the time since then, no shorter than it really was. Where nobody knows,
    /// entries with a deadline are dropped, and the first word of the control plane has to be a
    /// snapshot. Fails where the saved list does not add up.
    pub fn restore(
        saved: &Snapshot,
        elapsed: Option<Duration>,
        now: Timestamp,
    ) -> Result<Restored, Rejected> {
        let mut have = Have::new(saved)?;
        let plane_now = elapsed.map(|elapsed| saved.as_of.saturating_add(elapsed));
        let before = have.list.len();
        have.list.drop_expired(plane_now.unwrap_or(Timestamp::MAX));
        have.as_of = plane_now.unwrap_or(have.as_of);

        let is_lost = plane_now.is_none() && have.list.len() < before;
        let follower = Follower { group: saved.group, have: Some(have), is_lost };
        let clock = plane_now.map(|plane_now| PlaneClock::pair(plane_now, now));
        // Without a clock no entry with a deadline is left that it could matter to.
        let list = follower.list(clock.unwrap_or(PlaneClock::pair(now, now)));
        Ok(Restored {
            clock,
            list: list.unwrap_or_default(),
            heard: now.saturating_sub(elapsed.unwrap_or_default()),
            follower,
        })
    }
}

impl Have {
    /// Takes a whole list, where it adds up.
    fn new(snapshot: &Snapshot) -> Result<Have, Rejected> {
        let list: Allowlist =
            snapshot.entries.iter().map(|entry| (entry.cidr, entry.expires_at)).collect();
        let named_once = list.len() == snapshot.entries.len();
        if !named_once || list.digest_at(snapshot.as_of) != snapshot.digest {
            return Err(Rejected::Digest { theirs: snapshot.digest });
        }
        let (epoch, revision, as_of) = (snapshot.epoch, snapshot.revision, snapshot.as_of);
        Ok(Have { epoch, revision, as_of, list })
    }

    /// What the digest at `as_of` will be after `changes`.
    fn digest_after(
        &self,
        changes: &BTreeMap<Network, Option<Expiry>>,
        as_of: Timestamp,
    ) -> Digest {
        let mut digest = self.list.digest_at(as_of);
        for (network, expiry) in changes {
            if let Some(before) = self.list.get(*network).filter(|before| before.is_live_at(as_of))
            {
                digest = digest.without(*network, before);
            }
            if let Some(after) = expiry.filter(|after| after.is_live_at(as_of)) {
                digest = digest.with(*network, after);
            }
        }
        digest
    }

    fn advance(&mut self, revision: Revision, as_of: Timestamp) {
        self.revision = revision;
        self.as_of = self.as_of.max(as_of);
        self.list.drop_expired(self.as_of);
    }
}
