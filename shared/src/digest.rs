//! A short value that two allowlists share exactly when they hold the same entries.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::network::Network;
use crate::time::Expiry;

/// The digest of a set of entries (network and deadline): the sum, modulo 2^128, of the first
/// half of each entry's SHA-256.
///
/// A sum, so that one change costs one hash whatever the size of the list, and so that order
/// plays no part. It finds lost and doubled changes; it is no signature, the connection is what
/// authenticates the sender. Shown as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

impl Digest {
    /// The digest of no entries.
    pub const EMPTY: Digest = Digest(0);

    /// The digest with one more entry.
    #[must_use]
    pub fn with(self, network: Network, expiry: Expiry) -> Digest {
        Digest(self.0.wrapping_add(hash(network, expiry)))
    }

    /// The digest without an entry that it counts.
    #[must_use]
    pub fn without(self, network: Network, expiry: Expiry) -> Digest {
        Digest(self.0.wrapping_sub(hash(network, expiry)))
    }

    /// The digest as bytes, the most significant first.
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// Hashes address octets, prefix length and deadline (milliseconds, big-endian; all ones for
/// never). The families differ in length, so no two entries have the same encoding.
fn hash(network: Network, expiry: Expiry) -> u128 {
    let mut hasher = Sha256::new();
    match network.address() {
        IpAddr::V4(v4) => hasher.update(v4.octets()),
        IpAddr::V6(v6) => hasher.update(v6.octets()),
    }
    hasher.update([network.prefix()]);
    hasher.update(expiry.deadline().map_or(u64::MAX, |at| at.unix_ms()).to_be_bytes());
    let full = hasher.finalize();
    let (half, _) = full.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
    u128::from_be_bytes(*half)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 32 lower-case hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(DigestError);
        }
        u128::from_str_radix(text, 16).map(Digest).map_err(|_| DigestError)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        use serde::de::Error;
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
