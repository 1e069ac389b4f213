//! How long to wait before another try: exponential back-off with full jitter.

use std::time::Duration;

/// The waits between tries of one thing that keeps failing.
///
/// The wait after the n-th failure in a row is random between nothing and `base * 2^n`, at most
/// `cap`: whoever failed together comes back spread over the whole span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// Longest `Retry-After` that is obeyed, so that a mistaken one silences nobody for ever.
    pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

    /// Makes a back-off without failures. The first wait is at most `base`, none is above `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Backoff {
        Backoff { base, cap, failures: 0 }
    }

    /// Counts a failure and answers how long to wait now.
    ///
    /// `chance` is a random number, every value equally likely. What the other side asked for as
    /// `retry_after` is waited in full, with the jitter on top of it.
    pub fn failed(&mut self, chance: u64, retry_after: Option<Duration>) -> Duration {
        let span = self.base.saturating_mul(2u32.saturating_pow(self.failures)).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        let floor = retry_after.unwrap_or_default().min(Self::RETRY_AFTER_MAX);
        floor.saturating_add(share(span, chance))
    }

    /// Forgets the failures, after a success.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How many failures there were in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// The part of `span` that `chance` is of all of `u64`.
pub fn share(span: Duration, chance: u64) -> Duration {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let part = u128::from(ms) * u128::from(chance) / u128::from(u64::MAX);
    Duration::from_millis(u64::try_from(part).expect("a part is no longer than the whole"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_secs(1);
    const CAP: Duration = Duration::from_secs(60);

    #[test]
    fn the_longest_wait_doubles_up_to_the_cap_and_starts_anew_after_a_success() {
        let mut backoff = Backoff::new(BASE, CAP);

        let longest: Vec<u64> = (0..8).map(|_| backoff.failed(u64::MAX, None).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.failures(), 8);

        backoff.succeeded();
        assert_eq!(backoff.failed(u64::MAX, None), BASE);
    }

    #[test]
    fn chance_spreads_the_wait_over_the_whole_span() {
        let wait = |chance| Backoff::new(CAP, CAP).failed(chance, None).as_secs();

        assert_eq!([0, u64::MAX / 4, u64::MAX / 2, u64::MAX].map(wait), [0, 14, 29, 60]);
    }

    #[test]
    fn retry_after_is_waited_in_full_within_reason() {
        let mut backoff = Backoff::new(BASE, CAP);

        assert_eq!(backoff.failed(0, Some(Duration::from_secs(90))), Duration::from_secs(90));
        assert_eq!(backoff.failed(u64::MAX, Some(Duration::MAX)), Duration::from_secs(3_602));
    }

    proptest! {
        #[test]
        fn no_wait_leaves_its_bounds(
            base_ms in 0u64..100_000, cap_ms in 0u64..1_000_000, failures in 0usize..80,
            chance: u64, floor_ms in prop::option::of(0u64..10_000_000),
        ) {
            let cap = Duration::from_millis(cap_ms);
            let mut backoff = Backoff::new(Duration::from_millis(base_ms), cap);
            for _ in 0..failures {
                backoff.failed(chance, None);
            }

            let asked = floor_ms.map(Duration::from_millis);
            let wait = backoff.failed(chance, asked);

            let floor = asked.unwrap_or_default().min(Backoff::RETRY_AFTER_MAX);
            prop_assert!(floor <= wait && wait <= floor + cap);
        }
    }
}
