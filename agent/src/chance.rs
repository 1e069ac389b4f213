//! Random numbers: for the jitter of retries, and for names that nobody can guess.

/// Answers a random number, every value equally likely.
pub(crate) type Chance = fn() -> u64;

/// Asks the system.
pub(crate) fn system() -> u64 {
    // Jitter is a courtesy: without a random source the waits are merely the longest ones.
    getrandom::u64().unwrap_or(u64::MAX)
}

/// Asks the system for bytes that nobody can guess.
pub(crate) fn bytes<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).expect("Linux has random bytes as soon as it runs programs");
    bytes
}
