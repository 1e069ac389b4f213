//! The agent's time: steady, whatever happens to the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_shared::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Tells the time. Everything below `main` asks one of these in place of the system.
pub(crate) trait Clock: Send + Sync + 'static {
    /// The time now, in the agent's own count.
    fn now(&self) -> Timestamp;
}

/// The wall clock as it stood at start, advanced by the time since: a jump of the wall clock moves
/// no deadline, and time spent suspended counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyClock {
    started: Timestamp,
    boottime_at_start: Duration,
}

impl SteadyClock {
    /// Reads the wall clock, once.
    pub(crate) fn start() -> SteadyClock {
        SteadyClock { started: wall_time(), boottime_at_start: boottime() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.started.saturating_add(boottime().saturating_sub(self.boottime_at_start))
    }
}

/// The time since the machine was started, suspended time included.
pub(crate) fn boottime() -> Duration {
    span(clock_gettime(ClockId::Boottime))
}

/// How long the machine has been suspended since it was started.
pub(crate) fn suspended() -> Duration {
    boottime().saturating_sub(span(clock_gettime(ClockId::Monotonic)))
}

/// What the wall clock says; 1970 where it says anything that cannot be.
pub(crate) fn wall_time() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(0);
    Timestamp::from_unix_ms(ms).unwrap_or(Timestamp::EPOCH)
}

fn span(time: rustix::time::Timespec) -> Duration {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;

    /// Follows tokio's clock, which tests pause and move.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct TokioClock {
        start: tokio::time::Instant,
    }

    impl TokioClock {
        /// Where a test's time begins.
        pub(crate) const START_MS: u64 = 1_700_000_000_000;

        pub(crate) fn start() -> TokioClock {
            TokioClock { start: tokio::time::Instant::now() }
        }
    }

    impl Clock for TokioClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_ms(Self::START_MS).unwrap().saturating_add(self.start.elapsed())
        }
    }

    #[test]
    fn the_steady_clock_begins_at_the_wall_clock_and_goes_on() {
        let before = wall_time();
        let clock = SteadyClock::start();
        let first = clock.now();
        let second = clock.now();

        assert!(before <= first && first <= second);
        assert!(second.since(before) < Duration::from_secs(60));
    }
}
