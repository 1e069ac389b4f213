//! Where random bytes come from.

use std::sync::Mutex;

use postern_shared::token::{Token, TokenKind};

/// A source of random bytes.
pub trait Chance: Send + Sync {
    /// Fills `buffer`.
    fn fill(&self, buffer: &mut [u8]);
}

/// The operating system's source, fit for secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsChance;

/// A source that repeats itself for the same seed, for tests.
#[derive(Debug)]
pub struct SeededChance(Mutex<u64>);

impl dyn Chance + '_ {
    /// Draws the 16 bytes of an id.
    pub fn id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        bytes
    }

    /// Draws a number.
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    /// Draws a secret.
    pub fn token(&self, kind: TokenKind) -> Token {
        Token::generate(kind, |buffer| self.fill(buffer))
    }
}

impl Chance for OsChance {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the kernel's random source answers once the system is up");
    }
}

impl SeededChance {
    /// Makes a source for a seed.
    pub fn new(seed: u64) -> SeededChance {
        SeededChance(Mutex::new(seed))
    }
}

impl Chance for SeededChance {
    /// SplitMix64: short, and no two neighbouring seeds give the same bytes.
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().expect("drawing does not panic");
        for chunk in buffer.chunks_mut(8) {
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}
