//! How many calls may be made in a minute, counted before they are.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);
/// One part in so many of a budget is a good part.
const PART: usize = 3;
/// And one in so many is kept for what must close.
const KEPT_PART: usize = 4;

/// Never more than so many calls in any sixty seconds, repetitions included. Nobody waits in here:
/// whoever comes too early is told when to come again.
///
/// Once it is spent nothing goes out until a good part of it is there again: whoever used each call
/// as it comes back would spend all of them on beginnings.
#[derive(Debug)]
pub(crate) struct Budget {
    calls_max: usize,
    made: Mutex<Made>,
}

#[derive(Debug, Default)]
struct Made {
    calls: VecDeque<Instant>,
    not_before: Option<Instant>,
}

/// The calls of a minute have been made.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the budget of {calls_max} calls a minute is spent; raise `calls_per_minute` if that is often"
)]
pub(crate) struct Spent {
    calls_max: usize,
    /// How long until the next.
    pub(crate) wait: Duration,
}

impl Budget {
    pub(crate) fn new(calls_per_minute: u16) -> Budget {
        Budget { calls_max: usize::from(calls_per_minute.max(1)), made: Mutex::default() }
    }

    /// Counts a call that is about to be made.
    pub(crate) fn take(&self) -> Result<(), Spent> {
        let now = Instant::now();
        let Made { calls, not_before } =
            &mut *self.made.lock().expect("nobody panics while holding it");
        while calls.front().is_some_and(|first| *first + WINDOW <= now) {
            calls.pop_front();
        }
        if self.calls_max <= calls.len() {
            let last = calls[self.calls_max.div_ceil(PART) - 1];
            *not_before = Some(last + WINDOW);
        }
        if let Some(at) = not_before.filter(|at| now < *at) {
            return Err(Spent { calls_max: self.calls_max, wait: at.duration_since(now) });
        }
        calls.push_back(now);
        Ok(())
    }

    /// Says whether more calls are left than the part that is kept for what must close; counts none.
    pub(crate) fn has_spare(&self) -> Result<(), Spent> {
        let now = Instant::now();
        let made = self.made.lock().expect("nobody panics while holding it");
        let recent = made.calls.iter().filter(|at| now < **at + WINDOW);
        let spare = self.calls_max - self.calls_max.div_ceil(KEPT_PART);
        let count = recent.clone().count();
        let Some(over) = (count + 1).checked_sub(spare).filter(|over| 0 < *over) else {
            return Ok(());
        };
        let enough = (over + spare / PART).min(count).saturating_sub(1);
        let last = recent.clone().nth(enough).copied().unwrap_or(now);
        let wait = (last + WINDOW).duration_since(now);
        Err(Spent { calls_max: self.calls_max, wait })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_calls_than_allowed() {
        let budget = Budget::new(6);
        let second = Duration::from_secs(1);
        for _ in 0..6 {
            budget.take().unwrap();
            tokio::time::advance(5 * second).await;
        }

        let early = budget.take().unwrap_err();
        tokio::time::advance(early.wait - second).await;
        let still = budget.take().unwrap_err();
        tokio::time::advance(still.wait).await;

        assert_eq!((early.wait, still.wait), (35 * second, second), "two of six are there again");
        budget.take().unwrap();
        budget.take().unwrap();
        assert_eq!(budget.take().unwrap_err().wait, 10 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_kept_for_what_must_close() {
        let budget = Budget::new(8);
        for _ in 0..6 {
            budget.has_spare().unwrap();
            budget.take().unwrap();
            tokio::time::advance(Duration::from_secs(5)).await;
        }

        let none_to_spare = budget.has_spare().unwrap_err();
        budget.take().unwrap();
        budget.take().unwrap();
        tokio::time::advance(none_to_spare.wait).await;

        assert_eq!(none_to_spare.wait, Duration::from_secs(40), "three of six are there again");
        budget.has_spare().unwrap();
    }
}
