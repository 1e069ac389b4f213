//! The audit as lines of JSON, with all that is needed to verify them without the plane.
//!
//! First the opening, the signed heads and where the chain begins; then link by link, each before
//! the records of it that are exported. Verifying a store reads the same lines.

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::bytes::to_hex;
use super::chain::{BareLink, LANE, Place, SignedBegin, SignedHead};
use super::read::{AuditError, AuditView};
use super::view::RecordView;
use crate::domain::AuditRecord;
use crate::store::{Order, decode};

/// The version of the lines.
pub(super) const VERSION: u32 = 1;

/// Most links of one part.
const PART_LINKS_MAX: usize = 256;
/// A part ends behind the link that brings it to so many bytes of records.
const PART_BYTES_MAX: usize = 512 * 1024;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What the lines are; the first one.
    Audit(Opening),
    /// A signature over the chain; of each key the newest.
    Head(SignedHead),
    /// Where the chain begins, once something was pruned.
    Begin(SignedBegin),
    /// The next link.
    Link(BareLink),
    /// The next record of the link before.
    Record(Exported),
}

/// What the lines are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The version of the form.
    pub version: u32,
    /// When they were read.
    pub as_of: Timestamp,
    /// Whose records they are; those of all orgs when null.
    pub org: Option<OrgId>,
    /// Whether the chain is there from its beginning.
    pub is_whole: bool,
    /// The first link.
    pub first: u64,
    /// The last link; one less than the first when there is none.
    pub last: u64,
    /// The last link whose records are there: all of them from the first link on.
    pub records_to: u64,
}

/// A record with the bytes that are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// Its place in the chain.
    pub id: Place,
    /// Whose it is.
    pub org: OrgId,
    /// The bytes as they are stored, in hexadecimal digits.
    pub bytes: String,
    /// What they say; null where this program cannot read them.
    pub shown: Option<RecordView>,
}

/// Some of the lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The lines.
    pub lines: Vec<Line>,
    /// With which link to go on; none at the end.
    pub next: Option<u64>,
}

impl AuditView<'_> {
    /// Says what the lines for an org, or for all, would be, and gives those that come first.
    pub fn open(
        &self,
        org: Option<OrgId>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        as_of: Timestamp,
    ) -> Result<(Opening, Vec<Line>), AuditError> {
        let begin = self.begin()?;
        let start = begin.map_or(1, |begin| begin.number);
        let first = since.map_or(Ok(start), |since| self.first_link_since(since))?.max(start);
        let last = self.end_link(Order::Descending)?.map_or(start - 1, |link| link.number);
        // A chain that was cut at its end still has its first link looked for.
        let first = first.min(last + 1);
        let records_to = match until {
            Some(until) => self.first_link_since(until)?.saturating_sub(1).min(last),
            None => last,
        };
        let is_whole = since.is_none();
        let opening = Opening { version: VERSION, as_of, org, is_whole, first, last, records_to };
        let mut lines = vec![Line::Audit(opening.clone())];
        lines.extend(self.heads()?.into_iter().map(Line::Head));
        lines.extend(begin.filter(|_| is_whole).map(Line::Begin));
        Ok((opening, lines))
    }

    /// The lines from the link `from` on, as far as one answer goes.
    pub fn part(&self, opening: &Opening, from: u64) -> Result<Part, AuditError> {
        let links = self.links(from, opening.last, PART_LINKS_MAX)?;
        let is_full = links.len() == PART_LINKS_MAX;
        let (mut lines, mut bytes, mut last) = (Vec::new(), 0, None);
        for link in &links {
            lines.push(Line::Link(link.bare(LANE)));
            last = Some(link.number);
            if link.number <= opening.records_to {
                for (index, linked) in (0..).zip(&link.records) {
                    if opening.org.is_some_and(|org| org != linked.org) {
                        continue;
                    }
                    let place = Place { lane: LANE, number: link.number, index };
                    // One that is missing is for whoever verifies to name.
                    if let Some(record) = self.record(linked.org, place)? {
                        bytes += record.len();
                        lines.push(Line::Record(Exported::of(linked.org, place, &record)));
                    }
                }
            }
            if PART_BYTES_MAX <= bytes {
                break;
            }
        }
        let is_cut = is_full || PART_BYTES_MAX <= bytes;
        let next = last.filter(|last| is_cut && *last < opening.last).map(|last| last + 1);
        Ok(Part { lines, next })
    }
}

impl Exported {
    fn of(org: OrgId, place: Place, bytes: &[u8]) -> Exported {
        let shown = decode::<AuditRecord>(bytes).ok();
        let shown = shown.map(|record| RecordView::of(place, &record));
        Exported { id: place, org, bytes: to_hex(bytes), shown }
    }
}
