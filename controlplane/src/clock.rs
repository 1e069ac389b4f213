//! The plane's time: steady, and never before the last commit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_shared::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// The time now; never earlier than an answer before.
    fn now(&self) -> Timestamp;
}

/// The wall clock as it was at the start, carried on by the time since boot.
///
/// A step of the wall clock moves no deadline: it shows in [`SteadyClock::skew`] and is taken
/// over by the next start. Time spent in suspend counts.
#[derive(Debug)]
pub struct SteadyClock {
    started: Timestamp,
    boot_at_start: Duration,
}

/// A clock that moves when told to, for tests.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl SteadyClock {
    /// Starts at the wall clock's time, or at `high_water` where that is later: a wall clock that
    /// was set back revives nothing that had expired.
    pub fn start(high_water: Timestamp) -> SteadyClock {
        SteadyClock { started: wall().max(high_water), boot_at_start: since_boot() }
    }

    /// How far the wall clock is from this one, in seconds; positive when the wall clock is ahead.
    pub fn skew(&self) -> f64 {
        let (wall, steady) = (wall().unix_ms() as f64, self.now().unix_ms() as f64);
        (wall - steady) / 1_000.0
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.started.saturating_add(since_boot().saturating_sub(self.boot_at_start))
    }
}

impl ManualClock {
    /// Makes a clock that stands at `now`.
    pub fn at(now: Timestamp) -> ManualClock {
        ManualClock(AtomicU64::new(now.unix_ms()))
    }

    /// Moves the clock on.
    pub fn advance(&self, span: Duration) {
        let later = self.now().saturating_add(span);
        self.0.store(later.unix_ms(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }
}

/// Moves a time that is kept in milliseconds on to `now`, never back. Most often somebody was here in this
/// millisecond, and whoever only looks is not waited for.
pub(crate) fn advance(kept: &AtomicU64, now: Timestamp) {
    if kept.load(Ordering::Relaxed) < now.unix_ms() {
        kept.fetch_max(now.unix_ms(), Ordering::Relaxed);
    }
}

fn wall() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.saturating_add(since_epoch)
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_was_set_back_is_not_followed() {
        let ahead = wall().saturating_add(Duration::from_secs(3_600));

        let clock = SteadyClock::start(ahead);

        assert!(ahead <= clock.now());
        assert!(clock.skew() < -3_590.0);
    }

    #[test]
    fn a_wall_clock_that_is_right_is_taken() {
        let clock = SteadyClock::start(Timestamp::EPOCH);

        assert!(clock.skew().abs() < 1.0);
        assert!(clock.now() <= clock.now());
    }
}
