//! How often requests were refused, counted in memory until the audit gets the count.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;

use crate::domain::{Actor, Command, Order, Refusal};

/// Most actors and kinds that are counted apart; those on top of it are counted as nobody known.
const COUNTED_MAX: usize = 1_024;

/// Whose the records are that belong to no org: no org has this id.
pub const NO_ORG: OrgId = OrgId::FIRST;

/// Counts of refused requests.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<Who, Count>>);

/// Whose requests were refused, and why.
type Who = (OrgId, Actor, Refusal);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    count: u32,
    since: Timestamp,
    last: IpAddr,
}

/// A count that is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted(Who, Count);

impl Refusals {
    /// Counts a request of `who`, or of nobody known.
    pub(crate) fn count(
        &self,
        who: Option<(OrgId, Actor)>,
        refusal: Refusal,
        source: IpAddr,
        now: Timestamp,
    ) {
        let (org, actor) = who.unwrap_or((NO_ORG, Actor::Unknown));
        self.add((org, actor, refusal), Count { count: 1, since: now, last: source });
    }

    /// Takes all counts; counting begins anew.
    pub(crate) fn take(&self) -> Vec<Counted> {
        let counts = std::mem::take(&mut *self.counts());
        counts.into_iter().map(|(who, count)| Counted(who, count)).collect()
    }

    /// Adds a count again that could not be recorded.
    pub(crate) fn give_back(&self, counted: &Counted) {
        self.add(counted.0, counted.1);
    }

    fn add(&self, who: Who, more: Count) {
        let mut counts = self.counts();
        let has_room = counts.len() < COUNTED_MAX || counts.contains_key(&who);
        let (_, _, refusal) = who;
        // Kinds are few: for these there is always room.
        let who = if has_room { who } else { (NO_ORG, Actor::Unknown, refusal) };
        let count = counts.entry(who).or_insert(Count { count: 0, ..more });
        count.count = count.count.saturating_add(more.count);
        count.since = count.since.min(more.since);
        count.last = more.last;
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Who, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// The order to record it.
    pub(crate) fn order(&self) -> Order {
        let Counted((org, actor, refusal), Count { count, since, last }) = *self;
        let command = Command::NoteRefusals { org, refusal, count, since };
        Order { actor, source: Some(last), command }
    }
}

#[cfg(test)]
mod tests {
    use postern_shared::ids::KeyId;

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_ms(secs * 1_000).unwrap()
    }

    fn key(n: u32) -> Option<(OrgId, Actor)> {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Some((OrgId::from_bytes([1; 16]), Actor::Key(KeyId::from_bytes(bytes))))
    }

    #[test]
    fn each_actor_and_kind_is_counted_apart_with_its_last_address() {
        let refusals = Refusals::default();
        let (first, last) = ([203, 0, 113, 1].into(), [203, 0, 113, 2].into());
        refusals.count(key(1), Refusal::ForbiddenOrigin, first, at(1));
        refusals.count(key(1), Refusal::ForbiddenOrigin, last, at(2));
        refusals.count(key(1), Refusal::RateLimited, first, at(3));
        refusals.count(None, Refusal::WrongSecret, first, at(4));

        let counted = refusals.take();

        assert_eq!(counted.len(), 3);
        assert_eq!(counted[1].1, Count { count: 2, since: at(1), last });
        assert!(refusals.take().is_empty());
        refusals.count(key(1), Refusal::ForbiddenOrigin, first, at(5));
        refusals.give_back(&counted[1]);
        assert_eq!(refusals.take()[0].1, Count { count: 3, since: at(1), last });
    }

    #[test]
    fn a_crowd_takes_no_more_room_than_there_is() {
        let refusals = Refusals::default();
        let source = [203, 0, 113, 1].into();
        for n in 0..5_000 {
            refusals.count(key(n), Refusal::ForbiddenOrigin, source, at(1));
        }

        let counted = refusals.take();

        assert!(counted.len() <= COUNTED_MAX + 4);
        let total: u32 = counted.iter().map(|Counted(_, count)| count.count).sum();
        assert_eq!(total, 5_000, "none is lost");
    }
}
