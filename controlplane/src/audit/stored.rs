//! Where records, links and heads lie in the store.

use postern_shared::ids::OrgId;

use super::bytes::Hex;
use super::chain::{ChainLink, Lane, Place, SignedBegin, SignedHead};
use crate::domain::AuditRecord;
use crate::store::{Item, Key, Operation, Precondition, Table, Versioned, encode};

/// Signed heads and beginnings lie among the settings, under these names.
const HEAD: &[u8] = b"audit-head/";
const BEGIN: &[u8] = b"audit-begin/";

// Records and links are hashed as they are, and so are never rewritten: a later form has to be
// read beside this one.
impl Versioned for AuditRecord {
    const VERSION: u8 = 2;
}

impl Versioned for ChainLink {
    const VERSION: u8 = 2;
}

impl Versioned for SignedHead {
    const VERSION: u8 = 1;
}

impl Versioned for SignedBegin {
    const VERSION: u8 = 1;
}

/// A record lies with those of its org, in the order of the chain.
pub fn record_key(org: OrgId, place: Place) -> Key {
    Key::new(Table::Audit, [&org.as_bytes()[..], &place.to_bytes()].concat())
}

/// Reads the key of a record; `None` where it has another form.
pub fn record_place(id: &[u8]) -> Option<(OrgId, Place)> {
    let (org, place) = id.split_at_checked(16)?;
    let org = OrgId::from_bytes(org.try_into().ok()?);
    Some((org, Place::from_bytes(place.try_into().ok()?)))
}

/// A link.
pub fn link_key(lane: Lane, number: u64) -> Key {
    Key::new(Table::Chain, [&lane.to_be_bytes()[..], &number.to_be_bytes()].concat())
}

/// The newest head that `public` has signed: each key has its own, so that a new key takes nothing
/// away from what an old one said.
pub fn head_key(lane: Lane, public: Hex<32>) -> Key {
    Key::new(Table::Settings, [&head_prefix(lane), &public.0[..]].concat())
}

/// What the keys of all heads of a chain begin with.
pub fn head_prefix(lane: Lane) -> Vec<u8> {
    [HEAD, &lane.to_be_bytes()].concat()
}

/// Where the chain begins, once something was pruned.
pub fn begin_key(lane: Lane) -> Key {
    Key::new(Table::Settings, [BEGIN, &lane.to_be_bytes()].concat())
}

/// Appends a link, whose place must be free.
pub fn link_item(lane: Lane, link: &ChainLink) -> Item {
    let key = link_key(lane, link.number);
    Item {
        preconditions: vec![Precondition::Absent(key.clone())],
        operations: vec![Operation::Put(key, encode(link))],
    }
}

/// Puts a head in the place of the same key's last one.
pub fn head_operation(head: &SignedHead) -> Operation {
    Operation::Put(head_key(head.lane, head.key), encode(head))
}
