//! The chain over the audit: one link a commit, signed heads, and where it begins.
//!
//! What is hashed and signed, with all numbers big-endian and `lane` of 2 bytes, `number` and `at`
//! (Unix milliseconds) of 8, a hash of 32:
//!
//! | what | over |
//! | --- | --- |
//! | a record's hash | SHA-256 of its bytes as they are stored |
//! | a record's tag | the first 16 bytes of SHA-256 of `postern audit tag 1\n`, org (16), lane, number |
//! | a link's hash | SHA-256 of `postern audit link 1\n`, lane, number, at, the hash of the link before, count (4), then tag and hash of each record |
//! | a head's signature | Ed25519 over `postern audit head 1\n`, lane, number, at, the link's hash |
//! | a beginning's signature | Ed25519 over `postern audit begin 1\n`, lane, number, at, the hash of the last link that is gone |
//!
//! The tag tells who knows an org's id which records of a link are that org's, and tells nobody
//! else: so an org's export shows whether any of its records was left out, and names no other org.

use std::fmt;
use std::str::FromStr;

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::bytes::{Hash, Hex};

/// A writer's chain has its lane, so that a store with other writers has room for theirs.
pub type Lane = u16;

/// The lane of this process's writer.
pub const LANE: Lane = 0;

/// Where a record stands. Shown as `lane-number-index`; never given to another record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The chain.
    pub lane: Lane,
    /// The link, from 1 up.
    pub number: u64,
    /// The place in the link, from 0 up.
    pub index: u32,
}

/// A text that names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write the id of an audit record, such as 0-17-0")]
pub struct PlaceError;

/// One link, as it is stored: which records a commit wrote, and the link before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    /// The place in the chain, from 1 up.
    pub number: u64,
    /// When the commit was made.
    pub at: Timestamp,
    /// The hash of the link before; zeros for the first.
    pub previous: Hash,
    /// The records of the commit, in order.
    pub records: Vec<Linked>,
}

/// A record in a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// Whose it is.
    pub org: OrgId,
    /// The hash of its bytes.
    pub hash: Hash,
}

/// One link, as it is hashed and exported: it names no org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BareLink {
    /// The chain.
    pub lane: Lane,
    /// The place in the chain, from 1 up.
    pub number: u64,
    /// When the commit was made.
    pub at: Timestamp,
    /// The hash of the link before; zeros for the first.
    pub previous: Hash,
    /// The records of the commit, in order.
    pub records: Vec<Tagged>,
}

/// A record in a bare link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tagged {
    /// Whose it is, for who knows the org's id.
    pub tag: Hex<16>,
    /// The hash of its bytes.
    pub hash: Hash,
}

/// The word of the holder of a key that the chain has this link, and so all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The chain.
    pub lane: Lane,
    /// The link.
    pub number: u64,
    /// When it was signed.
    pub at: Timestamp,
    /// The hash of the link.
    pub hash: Hash,
    /// The public key.
    pub key: Hex<32>,
    /// The signature.
    pub signature: Hex<64>,
}

/// The word of the holder of a key that everything before a link was pruned, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedBegin {
    /// The chain.
    pub lane: Lane,
    /// The first link that is there.
    pub number: u64,
    /// When the last link was made that is gone: what happened until then is not known any more.
    pub at: Timestamp,
    /// The hash of that link.
    pub previous: Hash,
    /// The public key.
    pub key: Hex<32>,
    /// The signature.
    pub signature: Hex<64>,
}

/// The end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The last link.
    pub number: u64,
    /// Its hash.
    pub hash: Hash,
}

/// The hash of a record's bytes.
pub fn record_hash(bytes: &[u8]) -> Hash {
    Hex(Sha256::digest(bytes).into())
}

/// The tag of an org's records in a link.
pub fn tag(org: OrgId, lane: Lane, number: u64) -> Hex<16> {
    let digest = Sha256::new()
        .chain_update(b"postern audit tag 1\n")
        .chain_update(org.as_bytes())
        .chain_update(lane.to_be_bytes())
        .chain_update(number.to_be_bytes())
        .finalize();
    let mut tag = [0; 16];
    tag.copy_from_slice(&digest[..16]);
    Hex(tag)
}

impl ChainLink {
    /// Makes the link behind `tip`.
    pub fn after(tip: Option<Tip>, at: Timestamp, records: Vec<Linked>) -> ChainLink {
        ChainLink {
            number: tip.map_or(1, |tip| tip.number + 1),
            at,
            previous: tip.map_or(Hex([0; 32]), |tip| tip.hash),
            records,
        }
    }

    /// The link without the names of orgs.
    pub fn bare(&self, lane: Lane) -> BareLink {
        let mut last: Option<(OrgId, Hex<16>)> = None;
        let records = self.records.iter().map(|linked| {
            // A commit's records are mostly of few orgs.
            let known = last.filter(|(org, _)| *org == linked.org);
            let (_, tag) =
                known.unwrap_or_else(|| (linked.org, tag(linked.org, lane, self.number)));
            last = Some((linked.org, tag));
            Tagged { tag, hash: linked.hash }
        });
        let records = records.collect();
        BareLink { lane, number: self.number, at: self.at, previous: self.previous, records }
    }

    /// What the next link is built on.
    pub fn tip(&self, lane: Lane) -> Tip {
        Tip { number: self.number, hash: self.bare(lane).hash() }
    }
}

impl BareLink {
    /// The hash that the next link carries.
    pub fn hash(&self) -> Hash {
        let mut hash = Sha256::new()
            .chain_update(b"postern audit link 1\n")
            .chain_update(self.lane.to_be_bytes())
            .chain_update(self.number.to_be_bytes())
            .chain_update(self.at.unix_ms().to_be_bytes())
            .chain_update(self.previous.as_bytes())
            .chain_update(u32::try_from(self.records.len()).unwrap_or(u32::MAX).to_be_bytes());
        for Tagged { tag, hash: of_record } in &self.records {
            hash.update(tag.as_bytes());
            hash.update(of_record.as_bytes());
        }
        Hex(hash.finalize().into())
    }
}

impl SignedHead {
    /// What is signed.
    pub fn message(&self) -> Vec<u8> {
        message(b"postern audit head 1\n", self.lane, self.number, self.at, &self.hash)
    }
}

impl SignedBegin {
    /// What is signed.
    pub fn message(&self) -> Vec<u8> {
        message(b"postern audit begin 1\n", self.lane, self.number, self.at, &self.previous)
    }
}

fn message(domain: &[u8], lane: Lane, number: u64, at: Timestamp, hash: &Hash) -> Vec<u8> {
    [
        domain,
        &lane.to_be_bytes(),
        &number.to_be_bytes(),
        &at.unix_ms().to_be_bytes(),
        hash.as_bytes(),
    ]
    .concat()
}

impl Place {
    /// Bytes of a place in keys and cursors.
    pub const BYTES: usize = 2 + 8 + 4;

    /// The bytes that places are ordered by.
    pub fn to_bytes(self) -> [u8; Place::BYTES] {
        let mut bytes = [0; Place::BYTES];
        bytes[..2].copy_from_slice(&self.lane.to_be_bytes());
        bytes[2..10].copy_from_slice(&self.number.to_be_bytes());
        bytes[10..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// The place of the given bytes.
    pub fn from_bytes(bytes: [u8; Place::BYTES]) -> Place {
        let [l0, l1, n0, n1, n2, n3, n4, n5, n6, n7, i0, i1, i2, i3] = bytes;
        Place {
            lane: u16::from_be_bytes([l0, l1]),
            number: u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.lane, self.number, self.index)
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Place, PlaceError> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(PlaceError);
        let (lane, number, index) = (next()?, next()?, next()?);
        let place = Place {
            lane: lane.parse().map_err(|_| PlaceError)?,
            number: number.parse().map_err(|_| PlaceError)?,
            index: index.parse().map_err(|_| PlaceError)?,
        };
        // One way to write each: no signs, no leading zeros.
        if place.to_string() == text { Ok(place) } else { Err(PlaceError) }
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Place, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_in_one_way_and_ordered_as_its_bytes() {
        let place = Place { lane: 0, number: 300, index: 2 };

        assert_eq!(place.to_string(), "0-300-2");
        assert_eq!("0-300-2".parse(), Ok(place));
        assert_eq!(Place::from_bytes(place.to_bytes()), place);
        for text in ["", "0-300", "0-300-2-1", "0-0300-2", "+0-300-2", "0-300--2", "x-1-1"] {
            assert_eq!(text.parse::<Place>(), Err(PlaceError), "{text}");
        }
        let later = Place { lane: 0, number: 301, index: 0 };
        assert!(place < later && place.to_bytes() < later.to_bytes());
    }

    #[test]
    fn every_part_of_a_link_counts() {
        let org = OrgId::from_random([1; 16]);
        let linked = |byte| Linked { org, hash: Hex([byte; 32]) };
        let at = Timestamp::from_unix_ms(5).unwrap();
        let link = ChainLink::after(None, at, vec![linked(1), linked(2)]);
        let hash = |link: &ChainLink| link.tip(LANE).hash;

        let mut others = vec![link.clone(); 6];
        others[0].number += 1;
        others[1].at = Timestamp::EPOCH;
        others[2].previous = Hex([1; 32]);
        others[3].records.swap(0, 1);
        others[4].records[0].org = OrgId::from_random([2; 16]);
        others[5].records.pop();

        assert!(others.iter().all(|other| hash(other) != hash(&link)));
        assert_ne!(link.tip(1).hash, hash(&link));
    }
}
