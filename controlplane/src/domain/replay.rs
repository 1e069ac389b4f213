//! Answers that are kept, so that a request that comes again is answered and not repeated.

use std::time::Duration;

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::rejection::Rejection;
use super::state::{Row, State};

/// Names a request of one caller: made of the caller's secret and the name that it gave the
/// request, so that neither can be read out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplayId(pub [u8; 32]);

/// A request that its caller gave a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// The name.
    pub id: ReplayId,
    /// What was asked for: two requests of one name must share it.
    pub fingerprint: [u8; 32],
}

/// The answer to a request that its caller gave a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The request.
    pub id: ReplayId,
    /// The org that it changed.
    pub org: OrgId,
    /// What was asked for.
    pub fingerprint: [u8; 32],
    /// The answer, sealed under the caller's secret.
    pub answer: Vec<u8>,
    /// When it is forgotten.
    pub ends_at: Timestamp,
}

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most answers that are kept for one org: an hour and a half of its budget of writes.
pub(crate) const REPLAYS_BY_ORG_MAX: usize = 10_000;
/// Most answers that are kept altogether; a batch of orders may pass it by its length.
const REPLAYS_MAX: usize = 100_000;

impl State {
    /// The answer that is kept for a request.
    pub fn replay(&self, id: ReplayId, now: Timestamp) -> Option<&Row<Replay>> {
        self.replays.get(&id).filter(|row| now < row.record.ends_at)
    }

    /// The same, whether or not it should be forgotten by now.
    pub(crate) fn replay_row(&self, id: ReplayId) -> Option<&Row<Replay>> {
        self.replays.get(&id)
    }

    /// Answers that are kept no longer, the oldest first.
    pub(crate) fn ended_replays(&self, now: Timestamp) -> impl Iterator<Item = ReplayId> {
        self.replays_by_end.iter().take_while(move |(end, _)| *end <= now).map(|(_, id)| *id)
    }

    /// Says whether a request of the given name may be carried out: it was not yet, and there is
    /// room to keep its answer.
    pub fn may_begin(&self, org: OrgId, once: &Once, now: Timestamp) -> Result<(), Rejection> {
        if self.replay(once.id, now).is_some() {
            return Err(Rejection::Repeated);
        }
        let of_org = self.orgs.get(&org).map_or(0, |row| row.replays);
        if REPLAYS_BY_ORG_MAX <= of_org || REPLAYS_MAX <= self.replays.len() {
            let oldest = self.replays_by_end.first().map_or(now, |(end, _)| *end);
            return Err(Rejection::TooManyKept { retry_after: oldest.since(now) });
        }
        Ok(())
    }

    pub(super) fn put_replay(
        &mut self,
        replay: &Replay,
        revision: postern_shared::position::Revision,
    ) {
        self.delete_replay(replay.id);
        self.replays_by_end.insert((replay.ends_at, replay.id));
        if let Some(org) = self.orgs.get_mut(&replay.org) {
            org.replays += 1;
        }
        self.replays.insert(replay.id, Row { record: replay.clone(), revision });
    }

    pub(super) fn delete_replay(&mut self, id: ReplayId) {
        let Some(Row { record, .. }) = self.replays.remove(&id) else { return };
        self.replays_by_end.remove(&(record.ends_at, id));
        if let Some(org) = self.orgs.get_mut(&record.org) {
            org.replays -= 1;
        }
    }
}

impl Once {
    /// The record of the request's answer.
    pub(crate) fn answered(self, org: OrgId, answer: Vec<u8>, now: Timestamp) -> Replay {
        let Once { id, fingerprint } = self;
        Replay { id, org, fingerprint, answer, ends_at: now.saturating_add(KEPT) }
    }
}

#[cfg(test)]
mod tests {
    use postern_shared::position::Revision;

    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_unix_ms(1_700_000_000_000 + secs * 1_000).unwrap()
    }

    fn once(seed: usize) -> Once {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&seed.to_be_bytes());
        Once { id: ReplayId(id), fingerprint: [1; 32] }
    }

    #[test]
    fn an_answer_is_kept_for_a_day_and_then_makes_room() {
        let (mut state, org) = (State::new(), OrgId::from_random([1; 16]));
        let kept = once(1).answered(org, vec![7], at(0));
        state.put_replay(&kept, Revision(5));

        assert_eq!(state.may_begin(org, &once(1), at(86_399)), Err(Rejection::Repeated));
        assert_eq!(state.may_begin(org, &once(2), at(0)), Ok(()));
        assert_eq!(state.may_begin(org, &once(1), at(86_400)), Ok(()), "the name is free again");
        assert_eq!(state.ended_replays(at(86_399)).count(), 0);
        assert_eq!(state.ended_replays(at(86_400)).collect::<Vec<_>>(), [once(1).id]);

        state.delete_replay(once(1).id);
        assert!(state.replays.is_empty() && state.replays_by_end.is_empty());
    }

    #[test]
    fn no_more_answers_are_kept_than_there_is_room_for() {
        let (mut state, org) = (State::new(), OrgId::from_random([1; 16]));
        for seed in 0..REPLAYS_MAX {
            assert_eq!(state.may_begin(org, &once(seed), at(60)), Ok(()));
            state.put_replay(&once(seed).answered(org, Vec::new(), at(60)), Revision(5));
        }

        let refused = state.may_begin(org, &once(REPLAYS_MAX), at(100));

        let retry_after = Duration::from_secs(86_400 - 40);
        assert_eq!(refused, Err(Rejection::TooManyKept { retry_after }));
    }
}
