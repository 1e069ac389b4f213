//! How many streams may be open, and whose.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_shared::ids::OrgId;
use postern_shared::token::TokenHash;

use crate::domain::Credential;
use crate::http::ApiError;

/// Most streams of one credential or login: an agent has one, and another while it changes over.
const STREAMS_BY_HOLDER_MAX: usize = 16;
/// Most streams of one org, so that one alone cannot take the seats of all others.
const STREAMS_BY_ORG_MAX: usize = 10 * 1024;
/// Most streams altogether.
const STREAMS_MAX: usize = 12 * 1024;
/// When to try again where all streams are taken.
const FULL_RETRY: Duration = Duration::from_secs(15);

/// Who takes a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SeatHolder {
    /// Who calls the API with a secret.
    Credential(Credential),
    /// A browser in which somebody is signed in.
    Login(TokenHash),
}

/// The streams that are open.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_org: BTreeMap<OrgId, usize>,
    by_holder: BTreeMap<SeatHolder, usize>,
}

/// The right to one stream; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    org: OrgId,
    holder: SeatHolder,
}

impl Taken {
    fn show(&self) {
        metrics::gauge!("postern_streams").set(self.all as f64);
    }
}

impl Seats {
    /// Takes one, while there are any for this org and holder.
    pub(crate) fn take(
        self: &Arc<Seats>,
        org: OrgId,
        holder: SeatHolder,
    ) -> Result<Seat, ApiError> {
        let mut taken = self.lock();
        if STREAMS_MAX <= taken.all {
            let reason = "all streams are taken".to_owned();
            return Err(ApiError::Unavailable { reason, retry_after: FULL_RETRY });
        }
        let full = |what, max| ApiError::TooManyAtOnce { what, max, retry_after: FULL_RETRY };
        if STREAMS_BY_HOLDER_MAX <= count(&taken.by_holder, &holder) {
            let what = match holder {
                SeatHolder::Credential(_) => "streams of one credential",
                SeatHolder::Login(_) => "streams of one login",
            };
            return Err(full(what, STREAMS_BY_HOLDER_MAX));
        }
        if STREAMS_BY_ORG_MAX <= count(&taken.by_org, &org) {
            return Err(full("streams of one org", STREAMS_BY_ORG_MAX));
        }
        taken.all += 1;
        taken.show();
        *taken.by_holder.entry(holder).or_default() += 1;
        *taken.by_org.entry(org).or_default() += 1;
        Ok(Seat { seats: Arc::clone(self), org, holder })
    }

    /// Says whether a credential has a stream open.
    pub(crate) fn is_taken_by(&self, credential: Credential) -> bool {
        self.lock().by_holder.contains_key(&SeatHolder::Credential(credential))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        taken.show();
        give_back(&mut taken.by_holder, self.holder);
        give_back(&mut taken.by_org, self.org);
    }
}

fn count<K: Ord>(taken: &BTreeMap<K, usize>, holder: &K) -> usize {
    taken.get(holder).copied().unwrap_or(0)
}

/// Takes one off; nothing is kept of who has none left.
fn give_back<K: Ord>(taken: &mut BTreeMap<K, usize>, holder: K) {
    if let Entry::Occupied(mut count) = taken.entry(holder) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use postern_shared::ids::KeyId;

    use super::*;

    #[test]
    fn one_org_cannot_take_the_streams_of_all_others() {
        let seats = Arc::new(Seats::default());
        let (one, other) = (OrgId::from_random([1; 16]), OrgId::from_random([2; 16]));
        let take = |org: OrgId, number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let key = Credential::Key(org, KeyId::from_random(id));
            seats.take(org, SeatHolder::Credential(key))
        };

        let all: Vec<Seat> =
            (0..STREAMS_BY_ORG_MAX).map(|number| take(one, number).unwrap()).collect();

        let refused = take(one, STREAMS_BY_ORG_MAX).unwrap_err();
        assert!(matches!(refused, ApiError::TooManyAtOnce { what: "streams of one org", .. }));
        let others = STREAMS_MAX - STREAMS_BY_ORG_MAX;
        let others: Vec<Seat> = (0..others).map(|number| take(other, number).unwrap()).collect();
        assert!(matches!(take(other, others.len()).unwrap_err(), ApiError::Unavailable { .. }));
        drop((all, others));
        let taken = seats.lock();
        assert_eq!((taken.all, taken.by_org.len(), taken.by_holder.len()), (0, 0, 0));
    }
}
