//! The control plane's time in terms of the local clock.

use std::time::Duration;

use crate::time::{Expiry, Timestamp};

/// How far the control plane's clock is ahead of the local one.
///
/// Paired from the time of a message and the local time at which its request was sent, which was
/// earlier: so a deadline never comes out late, and early by no more than the request took. It is
/// held over connections, so that deadlines do not tremble, unless it moves by more than
/// [`PlaneClock::HELD_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaneClock {
    ahead_ms: i64,
}

impl PlaneClock {
    /// How far two connections may disagree before the newer one is believed.
    pub const HELD_MAX: Duration = Duration::from_millis(500);

    /// Pairs the first message of a connection, made at the plane's `as_of`, with the local time
    /// at which the request for it was sent.
    pub fn pair(as_of: Timestamp, sent_at: Timestamp) -> PlaneClock {
        PlaneClock { ahead_ms: signed(as_of) - signed(sent_at) }
    }

    /// Pairs the first message of a later connection. Says whether the clock moved: then every
    /// list is to be put into local time anew, from [`super::Follower::list`] by
    /// [`crate::policy::Accepted::retake_list`].
    #[must_use]
    pub fn pair_again(&mut self, as_of: Timestamp, sent_at: Timestamp) -> bool {
        let newer = PlaneClock::pair(as_of, sent_at);
        let moved =
            PlaneClock::HELD_MAX < Duration::from_millis(newer.ahead_ms.abs_diff(self.ahead_ms));
        if moved {
            *self = newer;
        }
        moved
    }

    /// The local time at which it is `plane` for the control plane.
    pub fn to_local(self, plane: Timestamp) -> Timestamp {
        clamped(signed(plane) - self.ahead_ms)
    }

    /// What time it is for the control plane when it is `local` here.
    pub fn to_plane(self, local: Timestamp) -> Timestamp {
        clamped(signed(local) + self.ahead_ms)
    }

    /// The local time at which an entry closes.
    pub fn expiry_to_local(self, expiry: Expiry) -> Expiry {
        expiry.deadline().map(|deadline| self.to_local(deadline)).into()
    }
}

/// Times end in the year 9999, so that sums of three fit many times over.
fn signed(time: Timestamp) -> i64 {
    i64::try_from(time.unix_ms()).expect("times end in the year 9999")
}

fn clamped(ms: i64) -> Timestamp {
    let ms = u64::try_from(ms).unwrap_or(0);
    Timestamp::from_unix_ms(ms).unwrap_or(Timestamp::MAX)
}
