//! The key that signs the audit's chain.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use postern_shared::time::Timestamp;

use super::bytes::{Hash, Hex};
use super::chain::{Lane, SignedBegin, SignedHead, Tip};

/// Bytes of the seed of a key.
pub const AUDIT_KEY_BYTES: usize = 32;

/// An Ed25519 key, kept outside the store.
pub struct AuditKey {
    pair: Ed25519KeyPair,
    is_new: bool,
}

/// A seed that makes no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no Ed25519 seed")]
pub struct SeedError;

impl AuditKey {
    /// Makes the key of a seed.
    pub fn from_seed(seed: &[u8; AUDIT_KEY_BYTES]) -> Result<AuditKey, SeedError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SeedError)?;
        Ok(AuditKey { pair, is_new: false })
    }

    /// Says that the key was made just now: that it has signed nothing yet proves nothing.
    #[must_use]
    pub fn as_new(self) -> AuditKey {
        AuditKey { is_new: true, ..self }
    }

    /// Whether the key was made just now.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The public half.
    pub fn public(&self) -> Hex<32> {
        let bytes = self.pair.public_key().as_ref();
        Hex(bytes.try_into().expect("an Ed25519 public key has 32 bytes"))
    }

    /// Signs that the chain has come to `tip`.
    pub fn sign_head(&self, lane: Lane, tip: Tip, at: Timestamp) -> SignedHead {
        let unsigned = SignedHead {
            lane,
            number: tip.number,
            at,
            hash: tip.hash,
            key: self.public(),
            signature: Hex([0; 64]),
        };
        SignedHead { signature: self.sign(&unsigned.message()), ..unsigned }
    }

    /// Signs that everything before the link `number` is gone.
    pub fn sign_begin(
        &self,
        lane: Lane,
        number: u64,
        previous: Hash,
        at: Timestamp,
    ) -> SignedBegin {
        let unsigned =
            SignedBegin { lane, number, at, previous, key: self.public(), signature: Hex([0; 64]) };
        SignedBegin { signature: self.sign(&unsigned.message()), ..unsigned }
    }

    fn sign(&self, message: &[u8]) -> Hex<64> {
        let signature = self.pair.sign(message);
        Hex(signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes"))
    }
}

impl SignedHead {
    /// Says whether the key that it names has signed it.
    pub fn is_signed(&self) -> bool {
        is_signed(&self.key, &self.message(), &self.signature)
    }
}

impl SignedBegin {
    /// Says whether the key that it names has signed it.
    pub fn is_signed(&self) -> bool {
        is_signed(&self.key, &self.message(), &self.signature)
    }
}

fn is_signed(key: &Hex<32>, message: &[u8], signature: &Hex<64>) -> bool {
    UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message, signature.as_bytes()).is_ok()
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditKey({})", self.public())
    }
}
