//! Reading the audit of one instant of the store.

use std::ops::Bound;

use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::bytes::to_hex;
use super::chain::{ChainLink, LANE, Place, SignedBegin, SignedHead};
use super::filter::Filter;
use super::stored::{begin_key, head_prefix, link_key, record_key, record_place};
use crate::domain::AuditRecord;
use crate::store::{
    CodecError, Key, Order, ReadError, Record, SCAN_RECORDS_MAX, Scan, Snapshot, Table, Versioned,
    decode,
};

/// Most records that one page looks at: with a filter that seldom holds, a page ends early and
/// says where to go on.
const LOOKED_AT_MAX: usize = 10_000;

/// The audit as of one instant. Its calls block, for as long as a disk takes.
pub struct AuditView<'a>(&'a dyn Snapshot);

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the chain.
    pub place: Place,
    /// What it says.
    pub record: AuditRecord,
}

/// A part of an org's audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The records, the newest first.
    pub entries: Vec<Entry>,
    /// Behind which record to go on, where there may be more.
    pub next: Option<Place>,
}

/// A record that no link has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrayRecord {
    /// Its key in the store, in hexadecimal digits.
    pub key: String,
    /// Whose it is and where it stands, as far as the key says so.
    pub at: Option<(OrgId, Place)>,
}

/// Why the audit cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record is not in a form that this program reads.
    #[error(
        "the record {key} of the audit cannot be read; run `postern-controlplane audit verify`"
    )]
    Unreadable {
        /// The record.
        key: Key,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// A key has another form than those of its table.
    #[error("the key {0} does not belong into the audit; run `postern-controlplane audit verify`")]
    Key(Key),
    /// Too much of the audit is being read at once.
    #[error("as much of the audit is being read as can be at once; try again")]
    Busy,
}

impl<'a> AuditView<'a> {
    /// Looks at the audit in a snapshot.
    pub fn new(snapshot: &'a dyn Snapshot) -> AuditView<'a> {
        AuditView(snapshot)
    }

    /// Where the chain begins, if anything was pruned.
    pub fn begin(&self) -> Result<Option<SignedBegin>, AuditError> {
        self.get(&begin_key(LANE))?.map(read).transpose()
    }

    /// The newest head of each key that ever signed.
    pub fn heads(&self) -> Result<Vec<SignedHead>, AuditError> {
        let prefix = head_prefix(LANE);
        let behind = [&prefix[..], &[0xff; 33]].concat();
        let range = (Bound::Included(&prefix[..]), Bound::Included(&behind[..]));
        let found = self.scan(Table::Settings, range, Order::Ascending, SCAN_RECORDS_MAX)?;
        found.into_iter().map(read).collect()
    }

    /// A link.
    pub fn link(&self, number: u64) -> Result<Option<ChainLink>, AuditError> {
        self.get(&link_key(LANE, number))?.map(read).transpose()
    }

    /// Links from `from` up to and including `to`, at most [`SCAN_RECORDS_MAX`].
    pub fn links(&self, from: u64, to: u64, limit: usize) -> Result<Vec<ChainLink>, AuditError> {
        let (from, to) = (link_key(LANE, from).id, link_key(LANE, to).id);
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let found = self.scan(Table::Chain, range, Order::Ascending, limit)?;
        found.into_iter().map(read).collect()
    }

    /// The first link that is there, or the last one.
    pub fn end_link(&self, order: Order) -> Result<Option<ChainLink>, AuditError> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        self.scan(Table::Chain, all, order, 1)?.into_iter().next().map(read).transpose()
    }

    /// The bytes of a record.
    pub fn record(&self, org: OrgId, place: Place) -> Result<Option<Vec<u8>>, AuditError> {
        Ok(self.get(&record_key(org, place))?.map(|record| record.value))
    }

    /// The number of the first link that was made at `time` or later; one behind the last where
    /// there is none. Links are in the order of their times.
    pub fn first_link_since(&self, time: Timestamp) -> Result<u64, AuditError> {
        let (Some(first), Some(last)) =
            (self.end_link(Order::Ascending)?, self.end_link(Order::Descending)?)
        else {
            return Ok(1);
        };
        let (mut from, mut to) = (first.number, last.number + 1);
        while from < to {
            let middle = from + (to - from) / 2;
            // A link that is missing is for `verify` to name; here it counts as an early one.
            let is_early = self.link(middle)?.is_none_or(|link| link.at < time);
            if is_early { from = middle + 1 } else { to = middle }
        }
        Ok(from)
    }

    /// A page of an org's audit, the newest first, of what is older than `after`.
    pub fn page(
        &self,
        org: OrgId,
        filter: &Filter,
        after: Option<Place>,
        limit: usize,
    ) -> Result<AuditPage, AuditError> {
        let first = filter.since.map_or(Ok(0), |since| self.first_link_since(since))?;
        let behind = match filter.until {
            Some(until) => self.first_link_since(until)?,
            None => u64::MAX,
        };
        let behind = after.unwrap_or(place(behind)).min(place(behind));
        let mut page = AuditPage::default();
        let mut before = record_key(org, behind).id;
        let from = record_key(org, place(first)).id;
        let mut looked_at = 0;
        loop {
            let asked = SCAN_RECORDS_MAX.min(limit + 1);
            let range = (Bound::Included(&from[..]), Bound::Excluded(&before[..]));
            let found = self.scan(Table::Audit, range, Order::Descending, asked)?;
            let is_last = found.len() < asked;
            for stored in found {
                if page.entries.len() == limit || LOOKED_AT_MAX <= looked_at {
                    return Ok(page);
                }
                looked_at += 1;
                before.clone_from(&stored.key.id);
                let entry = entry(stored)?;
                page.next = Some(entry.place);
                if filter.holds(&entry.record) {
                    page.entries.push(entry);
                }
            }
            if is_last {
                return Ok(AuditPage { next: None, ..page });
            }
        }
    }

    /// Hands an org's records to `sink`, the oldest first, for as long as it answers `true`.
    pub fn replay(
        &self,
        org: OrgId,
        mut sink: impl FnMut(&AuditRecord) -> bool,
    ) -> Result<(), AuditError> {
        let mut after = record_key(org, place(0)).id;
        let to = record_key(org, place(u64::MAX)).id;
        loop {
            let range = (Bound::Excluded(&after[..]), Bound::Excluded(&to[..]));
            let found = self.scan(Table::Audit, range, Order::Ascending, SCAN_RECORDS_MAX)?;
            let Some(last) = found.last() else { return Ok(()) };
            after.clone_from(&last.key.id);
            for stored in found {
                if !sink(&entry(stored)?.record) {
                    return Ok(());
                }
            }
        }
    }

    /// The first record behind the key `after` that no link has; else the key of the last record
    /// that was looked at, behind which the search goes on; neither at the end.
    pub fn stray(
        &self,
        after: &[u8],
    ) -> Result<(Option<StrayRecord>, Option<Vec<u8>>), AuditError> {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let found = self.scan(Table::Audit, range, Order::Ascending, SCAN_RECORDS_MAX)?;
        let mut link: Option<ChainLink> = None;
        let mut last = None;
        for stored in found {
            let Some((org, place)) = record_place(&stored.key.id) else {
                return Ok((Some(StrayRecord { key: to_hex(&stored.key.id), at: None }), None));
            };
            if link.as_ref().is_none_or(|link| link.number != place.number) {
                link = self.link(place.number)?;
            }
            let index = usize::try_from(place.index).unwrap_or(usize::MAX);
            let linked = link.as_ref().and_then(|link| link.records.get(index));
            if place.lane != LANE || linked.is_none_or(|linked| linked.org != org) {
                let at = Some((org, place));
                return Ok((Some(StrayRecord { key: to_hex(&stored.key.id), at }), None));
            }
            last = Some(stored.key.id);
        }
        Ok((None, last))
    }

    fn get(&self, key: &Key) -> Result<Option<Record>, AuditError> {
        let range = (Bound::Included(&key.id[..]), Bound::Included(&key.id[..]));
        Ok(self.scan(key.table, range, Order::Ascending, 1)?.into_iter().next())
    }

    fn scan(
        &self,
        table: Table,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        order: Order,
        limit: usize,
    ) -> Result<Vec<Record>, AuditError> {
        Ok(self.0.scan(Scan { table, from, to, order, limit })?)
    }
}

/// The first place of a link.
fn place(number: u64) -> Place {
    Place { lane: LANE, number, index: 0 }
}

fn entry(stored: Record) -> Result<Entry, AuditError> {
    let place = record_place(&stored.key.id);
    let (_, place) = place.ok_or_else(|| AuditError::Key(stored.key.clone()))?;
    Ok(Entry { place, record: read(stored)? })
}

fn read<T: Versioned>(stored: Record) -> Result<T, AuditError> {
    decode(&stored.value).map_err(|source| AuditError::Unreadable { key: stored.key, source })
}
