//! From commits to followers: what changed of each list, kept for a while.
//!
//! A follower waits for a group's newest revision to move, then asks what leads from what it has
//! to what there is: nothing, a few deltas, or a whole list. Each delta is written once, whatever
//! the number of followers. A follower that is slow finds more than one delta, or a snapshot;
//! nothing is queued for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use postern_shared::ids::{Epoch, GroupId};
use postern_shared::position::{Position, Revision};
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{Delta, Entry, Same, Snapshot, StreamEvent, Withdrawn};
use tokio::sync::watch;

use crate::domain::{ListChange, Resolved, State};

/// Most deltas that are kept of one group; who is further behind gets a snapshot.
const DELTAS_MAX: usize = 64;
/// Most networks in one delta; a larger change is told as a snapshot.
const DELTA_NETWORKS_MAX: usize = 4_096;

/// The newest changes of every list that somebody follows.
#[derive(Debug, Default)]
pub struct Feed {
    groups: RwLock<BTreeMap<GroupId, Arc<Channel>>>,
}

/// What leads a follower on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catch {
    /// Server-sent events, to be sent in this order.
    pub events: Vec<Bytes>,
    /// What the follower then has; `None` when the group is gone.
    pub position: Option<(Epoch, Revision)>,
}

#[derive(Debug)]
struct Channel {
    deltas: Mutex<VecDeque<Arc<Published>>>,
    newest: watch::Sender<Revision>,
}

#[derive(Debug)]
struct Published {
    delta: Delta,
    text: OnceLock<Bytes>,
}

impl Feed {
    /// Answers with what moves whenever the list of `group` changes, and ends when the group is
    /// gone. `None` where there is no such group.
    pub fn subscribe(&self, state: &State, group: GroupId) -> Option<watch::Receiver<Revision>> {
        let revision = state.group(group)?.list_revision;
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let channel = groups.entry(group).or_insert_with(|| Arc::new(Channel::new(revision)));
        Some(channel.newest.subscribe())
    }

    /// Tells followers what a commit did, at the plane's time `as_of`.
    pub fn publish(&self, epoch: Epoch, resolved: Resolved, as_of: Timestamp) {
        for gone in &resolved.gone {
            self.groups.write().unwrap_or_else(PoisonError::into_inner).remove(gone);
        }
        for change in resolved.lists {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            let Some(channel) = groups.get(&change.group).map(Arc::clone) else { continue };
            drop(groups);
            let revision = change.revision;
            if channel.newest.receiver_count() == 0 {
                // Nobody follows: whoever comes back after that begins with a whole list.
                channel.deltas().clear();
            } else {
                channel.keep(delta(epoch, change, as_of));
            }
            channel.newest.send_replace(revision);
        }
    }

    /// Forgets all changes and wakes every follower: a new epoch has begun, in which each of them
    /// begins with a whole list.
    pub fn begin_anew(&self) {
        for channel in self.groups.read().unwrap_or_else(PoisonError::into_inner).values() {
            channel.deltas().clear();
            channel.newest.send_modify(|_| {});
        }
    }

    /// Says what leads from `have` to what there is of `group` now. `state` must be read under
    /// one lock with the call, so that no commit comes between.
    pub fn catch_up(
        &self,
        state: &State,
        epoch: Epoch,
        group: GroupId,
        have: Option<(Epoch, Revision)>,
        now: Timestamp,
    ) -> Catch {
        let Some(row) = state.group(group) else {
            let withdrawn = StreamEvent::Withdrawn(Withdrawn { group });
            return Catch { events: vec![encode(&withdrawn)], position: None };
        };
        let position = Some((epoch, row.list_revision));
        let from = have.filter(|(theirs, _)| *theirs == epoch).map(|(_, revision)| revision);
        let events = match from {
            Some(from) if from == row.list_revision => {
                vec![encode(&StreamEvent::Same(Same {
                    group,
                    epoch,
                    revision: row.list_revision,
                    as_of: now,
                    digest: row.list.digest_at(now),
                }))]
            }
            Some(from) => self
                .deltas_since(group, from, row.list_revision)
                .unwrap_or_else(|| vec![encode(&snapshot(state, epoch, group, now))]),
            None => vec![encode(&snapshot(state, epoch, group, now))],
        };
        Catch { events, position }
    }

    /// Says the same to somebody who has just come. Deltas were made when they happened, and their
    /// times with them, so `same` follows on them: it carries the time that it is now, to which a
    /// follower can hold its own clock.
    pub fn welcome(
        &self,
        state: &State,
        epoch: Epoch,
        group: GroupId,
        have: Option<(Epoch, Revision)>,
        now: Timestamp,
    ) -> Catch {
        let mut catch = self.catch_up(state, epoch, group, have, now);
        let newest = state.group(group).map(|row| (epoch, row.list_revision));
        let is_behind = have.is_some_and(|have| have.0 == epoch) && have != newest;
        if is_behind && newest.is_some() {
            catch.events.extend(self.catch_up(state, epoch, group, newest, now).events);
        }
        catch
    }

    /// The deltas from `from` to `newest`, if all of them are still here.
    fn deltas_since(&self, group: GroupId, from: Revision, newest: Revision) -> Option<Vec<Bytes>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        let deltas = groups.get(&group)?.deltas();
        let start = deltas.iter().position(|published| published.delta.from == from)?;
        let chain: Vec<&Arc<Published>> = deltas.iter().skip(start).collect();
        let ends_well = chain.last().is_some_and(|last| last.delta.revision == newest);
        ends_well.then(|| chain.into_iter().map(|published| published.text()).collect())
    }
}

/// Says whether a follower's word shows that this store is older than what it once told: it was
/// restored, and its revisions must not be taken for the old ones.
pub fn is_ahead(have: Position, epoch: Epoch, newest: Revision) -> bool {
    have.epoch == epoch && newest < have.revision
}

fn delta(epoch: Epoch, change: ListChange, as_of: Timestamp) -> Delta {
    let entry = |(cidr, expires_at)| Entry { cidr, expires_at };
    Delta {
        group: change.group,
        epoch,
        from: change.from,
        base: change.base,
        revision: change.revision,
        as_of,
        digest: change.digest,
        add: change.add.into_iter().map(entry).collect(),
        remove: change.remove,
    }
}

fn snapshot(state: &State, epoch: Epoch, group: GroupId, now: Timestamp) -> StreamEvent {
    let Some(row) = state.group(group) else {
        return StreamEvent::Withdrawn(Withdrawn { group });
    };
    let entries = row.list.live_at(now);
    StreamEvent::Snapshot(Snapshot {
        group,
        epoch,
        revision: row.list_revision,
        as_of: now,
        digest: row.list.digest_at(now),
        entries: entries.map(|(cidr, expires_at)| Entry { cidr, expires_at }).collect(),
    })
}

fn encode(event: &StreamEvent) -> Bytes {
    let text = event.to_sse().expect("events have fields of plain types and text for keys");
    Bytes::from(text)
}

impl Channel {
    fn new(revision: Revision) -> Channel {
        Channel { deltas: Mutex::default(), newest: watch::Sender::new(revision) }
    }

    fn deltas(&self) -> MutexGuard<'_, VecDeque<Arc<Published>>> {
        self.deltas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, delta: Delta) {
        let mut deltas = self.deltas();
        if DELTA_NETWORKS_MAX < delta.add.len() + delta.remove.len() {
            deltas.clear();
            return;
        }
        if DELTAS_MAX <= deltas.len() {
            deltas.pop_front();
        }
        deltas.push_back(Arc::new(Published { delta, text: OnceLock::new() }));
    }
}

impl Published {
    fn text(&self) -> Bytes {
        let encode = || encode(&StreamEvent::Delta(self.delta.clone()));
        self.text.get_or_init(encode).clone()
    }
}
