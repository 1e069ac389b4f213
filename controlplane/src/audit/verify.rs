//! Holds lines of the audit to its chain, and names the first thing that is wrong.

use std::collections::VecDeque;
use std::fmt;

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use serde::Serialize;

use super::bytes::{Hash, Hex, from_hex};
use super::chain::{BareLink, LANE, Place, SignedBegin, SignedHead, Tagged, Tip, record_hash, tag};
use super::export::{Exported, Line, Opening, VERSION};
use super::view::RecordView;
use crate::domain::AuditRecord;
use crate::store::decode;

/// Most heads that are taken: one for each key there ever was.
const HEADS_MAX: usize = 1_000;

/// Takes lines in their order. It keeps one link of them, whatever their number.
#[derive(Debug, Default)]
pub struct Verifier {
    key: Option<Hex<32>>,
    known: Option<Tip>,
    opening: Option<Opening>,
    heads: Vec<SignedHead>,
    begin: Option<SignedBegin>,
    tip: Option<Tip>,
    pending: VecDeque<(Place, Tagged)>,
    verified: Verified,
}

/// What was found to be in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whose records; those of all orgs when null.
    pub org: Option<OrgId>,
    /// The first link, and the last.
    pub first: u64,
    /// The last link; one less than the first when there is none.
    pub last: u64,
    /// The hash of the last link.
    pub hash: Option<Hash>,
    /// How many records there are.
    pub records: u64,
    /// When the first record was written, and the last.
    pub since: Option<Timestamp>,
    /// When the last record was written.
    pub until: Option<Timestamp>,
    /// The last link that is signed.
    pub signed: Option<u64>,
    /// The key that signed it.
    pub key: Option<Hex<32>>,
    /// Whether that key was known before, and is not just the one that the chain names: anybody may
    /// write a chain that agrees with itself, and sign it with a key of their own.
    pub is_key_known: bool,
    /// Until when records were pruned.
    pub pruned: Option<Timestamp>,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{}{what}", shown_place(.place, .org))]
pub struct Broken {
    /// The record, where it is one.
    pub place: Option<Place>,
    /// Whose it is, where that is known.
    pub org: Option<OrgId>,
    /// What is wrong.
    #[serde(flatten)]
    pub what: What,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are those of the sentences in `Display`")]
pub enum What {
    /// A link has it, and it is not there.
    RecordMissing,
    /// It is not what was written.
    RecordAltered { hash: Hash },
    /// It stood somewhere else.
    RecordMoved { from: Place },
    /// It is there, and no link has it.
    RecordExtra,
    /// Its text does not say what its bytes say.
    RecordMisshown,
    /// A link is not there.
    LinkMissing { number: u64 },
    /// A link does not follow on the one before.
    LinkBroken { number: u64 },
    /// A head is not signed by the key that it names.
    HeadForged { number: u64 },
    /// The link is not the one that was signed.
    HeadMismatch { number: u64 },
    /// The chain ends before the link that was signed.
    ChainCut { last: u64, signed: u64 },
    /// Nothing is signed.
    HeadMissing,
    /// The plane's key has not signed; another has, or none.
    OtherKey { key: Hex<32> },
    /// The chain begins later than it should, and no key's holder says why.
    BeginMissing { number: u64 },
    /// Where the chain begins is not signed as it should be.
    BeginForged { number: u64 },
    /// The link that was seen earlier is another one.
    KnownMismatch { number: u64 },
    /// The lines are not in their order, or of another form.
    Malformed { reason: &'static str },
}

impl Verifier {
    /// Begins. `key` is the public key that must have signed, where it is known; `known` a link
    /// that was seen earlier and must still be there.
    pub fn new(key: Option<Hex<32>>, known: Option<Tip>) -> Verifier {
        Verifier { key, known, ..Verifier::default() }
    }

    /// Takes the next line.
    pub fn take(&mut self, line: Line) -> Result<(), Broken> {
        match line {
            Line::Audit(opening) => self.open(opening),
            Line::Head(head) => self.take_head(head),
            Line::Begin(begin) => self.take_begin(begin),
            Line::Link(link) => self.take_link(link),
            Line::Record(record) => self.take_record(&record),
        }
    }

    /// Ends: nothing may be missing.
    pub fn finish(mut self) -> Result<Verified, Broken> {
        let opening = self.opening()?;
        let (first, last) = (opening.first, opening.last);
        self.no_record_missing()?;
        let end = self.tip.map_or(first.saturating_sub(1), |tip| tip.number);
        if end < last {
            return Err(whole(What::LinkMissing { number: end + 1 }));
        }
        let beyond = self.heads.iter().map(|head| head.number).max();
        if let Some(signed) = beyond.filter(|signed| end < *signed) {
            return Err(whole(What::ChainCut { last: end, signed }));
        }
        if let Some(known) = self.known.filter(|known| end < known.number) {
            return Err(whole(What::ChainCut { last: end, signed: known.number }));
        }
        self.verified.hash = self.tip.map(|tip| tip.hash);
        // An empty chain has nothing that could be signed.
        if self.tip.is_none() && self.heads.is_empty() {
            return Ok(self.verified);
        }
        let by_key = |head: &&SignedHead| self.key.is_none_or(|key| key == head.key);
        let newest = self.heads.iter().filter(by_key).max_by_key(|head| head.number);
        match (newest, self.heads.first()) {
            (Some(head), _) => {
                (self.verified.signed, self.verified.key) = (Some(head.number), Some(head.key));
                self.verified.is_key_known = self.key.is_some();
                Ok(self.verified)
            }
            (None, Some(other)) => Err(whole(What::OtherKey { key: other.key })),
            (None, None) => Err(whole(What::HeadMissing)),
        }
    }

    fn open(&mut self, opening: Opening) -> Result<(), Broken> {
        if self.opening.is_some() || opening.version != VERSION {
            return Err(malformed("there must be one opening, of version 1"));
        }
        self.verified.org = opening.org;
        (self.verified.first, self.verified.last) = (opening.first, opening.last);
        self.opening = Some(opening);
        Ok(())
    }

    fn take_head(&mut self, head: SignedHead) -> Result<(), Broken> {
        self.opening()?;
        if self.tip.is_some() || HEADS_MAX <= self.heads.len() {
            return Err(malformed("the heads must come before the links, and be few"));
        }
        if !head.is_signed() {
            return Err(whole(What::HeadForged { number: head.number }));
        }
        self.heads.push(head);
        Ok(())
    }

    fn take_begin(&mut self, begin: SignedBegin) -> Result<(), Broken> {
        let first = self.opening()?.first;
        let number = begin.number;
        let is_known = self.heads.iter().any(|head| head.key == begin.key);
        if !begin.is_signed() || !is_known || number != first || self.tip.is_some() {
            return Err(whole(What::BeginForged { number }));
        }
        self.verified.pruned = Some(begin.at);
        self.begin = Some(begin);
        Ok(())
    }

    fn take_link(&mut self, bare: BareLink) -> Result<(), Broken> {
        let opening = self.opening()?;
        let (first, is_whole) = (opening.first, opening.is_whole);
        let (org, has_records) = (opening.org, bare.number <= opening.records_to);
        self.no_record_missing()?;
        let number = bare.number;
        let expected = self.tip.map_or(first, |tip| tip.number + 1);
        if bare.lane != LANE || number != expected {
            return Err(whole(What::LinkMissing { number: expected }));
        }
        let previous = match (self.tip, self.begin) {
            (Some(tip), _) => Some(tip.hash),
            (None, Some(begin)) => Some(begin.previous),
            (None, None) if number == 1 => Some(Hex([0; 32])),
            (None, None) if is_whole => return Err(whole(What::BeginMissing { number })),
            // What came before is not part of the lines.
            (None, None) => None,
        };
        if previous.is_some_and(|previous| previous != bare.previous) {
            return Err(whole(What::LinkBroken { number }));
        }
        let hash = bare.hash();
        let is_signed_else = |head: &SignedHead| head.number == number && head.hash != hash;
        if self.heads.iter().any(is_signed_else) {
            return Err(whole(What::HeadMismatch { number }));
        }
        if self.known.is_some_and(|known| known.number == number && known.hash != hash) {
            return Err(whole(What::KnownMismatch { number }));
        }
        if has_records {
            let own = org.map(|org| tag(org, LANE, number));
            let places = (0..).map(|index| Place { lane: LANE, number, index });
            let wanted = places.zip(&bare.records);
            let wanted = wanted.filter(|(_, tagged)| own.is_none_or(|own| own == tagged.tag));
            self.pending.extend(wanted.map(|(place, tagged)| (place, *tagged)));
        }
        self.tip = Some(Tip { number, hash });
        Ok(())
    }

    fn take_record(&mut self, record: &Exported) -> Result<(), Broken> {
        let place = record.id;
        let broken = |what| Err(Broken { place: Some(place), org: Some(record.org), what });
        let Some(&(expected, tagged)) = self.pending.front() else {
            return broken(What::RecordExtra);
        };
        if place != expected {
            let is_later = self.pending.iter().any(|(later, _)| *later == place);
            return if is_later { self.no_record_missing() } else { broken(What::RecordExtra) };
        }
        let Some(bytes) = from_hex(&record.bytes) else {
            return Err(malformed("the bytes of a record are no hexadecimal digits"));
        };
        let hash = record_hash(&bytes);
        if hash != tagged.hash {
            let beside = self.pending.iter().find(|(_, other)| other.hash == hash);
            return broken(match beside {
                Some((from, _)) => What::RecordMoved { from: *from },
                None => What::RecordAltered { hash },
            });
        }
        let decoded = decode::<AuditRecord>(&bytes).ok();
        let is_own = decoded.as_ref().is_none_or(|decoded| decoded.org == record.org);
        if !is_own || tag(record.org, LANE, place.number) != tagged.tag {
            return broken(What::RecordMisshown);
        }
        let shown = decoded.as_ref().map(|decoded| RecordView::of(place, decoded));
        if shown != record.shown {
            return broken(What::RecordMisshown);
        }
        if let Some(decoded) = decoded {
            self.verified.since.get_or_insert(decoded.at);
            self.verified.until = Some(decoded.at);
        }
        self.verified.records += 1;
        self.pending.pop_front();
        Ok(())
    }

    fn opening(&self) -> Result<&Opening, Broken> {
        self.opening.as_ref().ok_or_else(|| malformed("the first line must be the opening"))
    }

    fn no_record_missing(&self) -> Result<(), Broken> {
        let org = self.verified.org;
        match self.pending.front() {
            Some((place, _)) => Err(Broken { place: Some(*place), org, what: What::RecordMissing }),
            None => Ok(()),
        }
    }
}

/// Finds the place where a record with a certain hash belongs.
#[derive(Debug)]
pub struct Locator(Hash);

impl Locator {
    /// Begins to look for the record that was found with `hash`, where it is that.
    pub fn of(broken: &Broken) -> Option<Locator> {
        if let What::RecordAltered { hash } = broken.what { Some(Locator(hash)) } else { None }
    }

    /// Looks at a line; answers the place.
    pub fn look(&self, line: &Line) -> Option<Place> {
        let Line::Link(link) = line else { return None };
        let index = link.records.iter().position(|tagged| tagged.hash == self.0)?;
        Some(Place { lane: link.lane, number: link.number, index: u32::try_from(index).ok()? })
    }
}

fn whole(what: What) -> Broken {
    Broken { place: None, org: None, what }
}

fn malformed(reason: &'static str) -> Broken {
    whole(What::Malformed { reason })
}

fn shown_place(place: &Option<Place>, org: &Option<OrgId>) -> String {
    match (place, org) {
        (Some(place), Some(org)) => format!("record {place} of the org {org} "),
        (Some(place), None) => format!("record {place} "),
        (None, _) => String::new(),
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::RecordMissing => f.write_str("is missing"),
            What::RecordAltered { .. } => f.write_str("was altered"),
            What::RecordMoved { from } => write!(f, "was moved there from {from}"),
            What::RecordExtra => f.write_str("was put in: no link of the chain has it"),
            What::RecordMisshown => f.write_str("does not say what its bytes say"),
            What::LinkMissing { number } => write!(f, "link {number} of the chain is missing"),
            What::LinkBroken { number } => {
                let before = number.saturating_sub(1);
                write!(f, "link {number} does not follow on link {before}: one of them was altered")
            }
            What::HeadForged { number } => {
                write!(f, "the signature over link {number} is not of the key that it names")
            }
            What::HeadMismatch { number } => {
                write!(f, "link {number} is not the one that was signed")
            }
            What::ChainCut { last, signed } => {
                write!(f, "the chain ends at link {last}, and had come to link {signed}")
            }
            What::HeadMissing => f.write_str("nothing of the chain is signed"),
            What::OtherKey { key } => {
                write!(f, "the chain is signed with the key {key}, which is not the plane's")
            }
            What::BeginMissing { number } => {
                write!(f, "the chain begins at link {number}, and nobody signed that it was pruned")
            }
            What::BeginForged { number } => {
                write!(f, "that the chain begins at link {number} is not signed as it should be")
            }
            What::KnownMismatch { number } => {
                write!(f, "link {number} is not the one that was seen earlier")
            }
            What::Malformed { reason } => write!(f, "these are no lines of an audit: {reason}"),
        }
    }
}
