//! Pruning the audit: old links and their records go, a signed beginning stays in their place.

use std::ops::Bound;

use postern_shared::time::Timestamp;

use super::writer::Writer;
use crate::audit::{
    ChainLink, LANE, Place, SignedBegin, begin_key, head_operation, link_key, record_key,
};
use crate::store::{
    Item, Key, Operation, Order, Purpose, Record, Scan, Store, StoreError, Table, Versioned,
    decode, encode,
};

/// Most links that one commit prunes.
const LINKS_MAX: usize = 64;
/// A commit prunes no further link once it has so many operations; the largest link has fewer than
/// what is left to the limit of the store.
const OPERATIONS_MAX: usize = 256;

impl Writer {
    /// Prunes some of what was recorded before `before`; says whether there is more. The last link
    /// always stays, and whatever is not as it was written.
    pub(super) fn prune(&mut self, before: Timestamp) -> Result<bool, StoreError> {
        let (Some(key), Some(tip)) = (self.signing.key(), self.tip) else { return Ok(false) };
        let begin = read_one::<SignedBegin>(self.store.as_ref(), &begin_key(LANE))?;
        let mut next = begin.map_or(1, |begin| begin.number);
        let links = links(self.store.as_ref(), next)?;
        let is_full = links.len() == LINKS_MAX;
        let (mut operations, mut last) = (Vec::new(), None);
        let mut is_cut = is_full;
        for link in links {
            if link.number != next || before <= link.at || tip.number <= link.number {
                is_cut = false;
                break;
            }
            if OPERATIONS_MAX <= operations.len() {
                is_cut = true;
                break;
            }
            operations.push(Operation::Delete(link_key(LANE, link.number)));
            for (index, linked) in (0..).zip(&link.records) {
                let place = Place { lane: LANE, number: link.number, index };
                operations.push(Operation::Delete(record_key(linked.org, place)));
            }
            next += 1;
            last = Some(link);
        }
        let Some(last) = last else { return Ok(false) };
        let now = self.hub.clock.now();
        let begin = key.sign_begin(LANE, next, last.tip(LANE).hash, last.at);
        operations.push(Operation::Put(begin_key(LANE), encode(&begin)));
        // What is left is signed in the same commit: nothing is pruned but behind a signed head.
        operations.push(head_operation(&key.sign_head(LANE, tip, now)));
        let item = Item { preconditions: Vec::new(), operations };
        match self.store.commit(&[item], Purpose::Ordinary, now) {
            Ok(_) => {
                self.signing.signed(tip, now);
                Ok(is_cut)
            }
            Err(StoreError::DiskReserve { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn links(store: &dyn Store, from: u64) -> Result<Vec<ChainLink>, StoreError> {
    let from = link_key(LANE, from).id;
    let found = store.scan(Scan {
        table: Table::Chain,
        from: Bound::Included(&from),
        to: Bound::Unbounded,
        order: Order::Ascending,
        limit: LINKS_MAX,
    })?;
    found.into_iter().map(read).collect()
}

fn read_one<T: Versioned>(store: &dyn Store, key: &Key) -> Result<Option<T>, StoreError> {
    let found = store.scan(Scan {
        table: key.table,
        from: Bound::Included(&key.id),
        to: Bound::Included(&key.id),
        order: Order::Ascending,
        limit: 1,
    })?;
    found.into_iter().next().map(read).transpose()
}

fn read<T: Versioned>(record: Record) -> Result<T, StoreError> {
    decode(&record.value)
        .map_err(|source| StoreError::Unreadable { key: record.key, source: Box::new(source) })
}
