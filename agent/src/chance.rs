//! Random numbers for the jitter of retries.

/// Answers a random number, every value equally likely.
pub(crate) type Chance = fn() -> u64;

/// Asks the system.
pub(crate) fn system() -> u64 {
    // Jitter is a courtesy: without a random source the waits are merely the longest ones.
    getrandom::u64().unwrap_or(u64::MAX)
}
