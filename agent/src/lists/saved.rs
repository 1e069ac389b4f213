//! What of the lists goes to the disk, and how it comes back.

use std::time::Duration;

use postern_shared::follow::{Follower, PlaneClock, Rejected, Restored};
use postern_shared::ids::GroupId;
use postern_shared::network::Network;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::wire::v1::{Entry, Snapshot};

use super::{Group, Lists};
use crate::status::ListState;

/// What is kept of a group on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Its list, and entries that the brake holds beyond it, all in the plane's time; and for how
    /// long the plane had not been heard, which no restart makes shorter.
    List { snapshot: Snapshot, held: Vec<Entry>, unheard: Duration },
    /// The plane took it away.
    Withdrawn,
}

impl Lists {
    /// Takes what an earlier run saved. `elapsed` is the time since, where it is known.
    pub(crate) fn restore(
        &self,
        group: GroupId,
        saved: Saved,
        elapsed: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), Rejected> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(present) = state.groups.get_mut(&group) else { return Ok(()) };
        if present.list != ListState::Missing {
            return Ok(());
        }
        match saved {
            Saved::Withdrawn => present.list = ListState::Withdrawn,
            Saved::List { snapshot, held, unheard } => {
                let Restored { follower, clock, list, heard } =
                    Follower::restore(&snapshot, elapsed, now)?;
                let heard = heard.saturating_sub(unheard);
                if let Some(clock) = clock {
                    // The union first: so that what the brake holds stays held.
                    let local =
                        |entry: &Entry| (entry.cidr, clock.expiry_to_local(entry.expires_at));
                    let mut union = list.clone();
                    union.extend(held.iter().map(local));
                    drop(present.accepted.take_list(&union, heard, now));
                    state.clock.get_or_insert(clock);
                }
                drop(present.accepted.take_list(&list, heard, now));
                (present.follower, present.list, present.heard) =
                    (follower, ListState::Cached, heard);
            }
        }
        state.touch_all(group);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits until there is something that is not on the disk.
    pub(crate) async fn unsaved(&self) {
        self.unsaved.notified().await;
    }

    /// Lets [`Lists::unsaved`] resolve again, after what could not be saved.
    pub(crate) fn ring_unsaved(&self) {
        self.unsaved.notify_one();
    }

    /// What is to go to the disk, one group a call: what changed, or with `anyway` whatever there
    /// is behind `after`.
    pub(crate) fn take_unsaved(
        &self,
        after: Option<GroupId>,
        anyway: bool,
        now: Timestamp,
    ) -> Option<(GroupId, Saved)> {
        let mut state = self.lock();
        let plane = state.clock;
        let behind = |id: &GroupId| after.is_none_or(|after| after < *id);
        for (id, group) in state.groups.iter_mut().filter(|(id, _)| behind(id)) {
            if !std::mem::take(&mut group.is_unsaved) && !anyway {
                continue;
            }
            if group.list == ListState::Withdrawn {
                return Some((*id, Saved::Withdrawn));
            }
            let Some(clock) = plane else { continue };
            if let Some(snapshot) = group.follower.save(clock.to_plane(now)) {
                let (held, unheard) = (group.held(clock, now), now.since(group.heard));
                return Some((*id, Saved::List { snapshot, held, unheard }));
            }
        }
        None
    }

    /// Notes that a group's list could not be saved.
    pub(crate) fn not_saved(&self, group: GroupId) {
        if let Some(group) = self.lock().groups.get_mut(&group) {
            group.is_unsaved = true;
        }
    }
}

impl Group {
    /// What is open because the brake holds it, in the plane's time.
    fn held(&self, clock: PlaneClock, now: Timestamp) -> Vec<Entry> {
        if self.accepted.findings().held_count == 0 {
            return Vec::new();
        }
        let listed = self.follower.list(clock).unwrap_or_default();
        let unlisted = |(network, _): &(Network, Expiry)| !listed.contains_key(network);
        let entry = |(cidr, expiry): (Network, Expiry)| {
            let expires_at = expiry.deadline().map(|deadline| clock.to_plane(deadline)).into();
            Entry { cidr, expires_at }
        };
        self.accepted.in_force().live_at(now).filter(unlisted).map(entry).collect()
    }
}
