//! Walks the stored audit and its chain, as a verifier would.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use postern_controlplane::domain::AuditRecord;
use postern_controlplane::engine::ChainLink;
use postern_controlplane::store::{
    Options, Order, RedbStore, SCAN_RECORDS_MAX, Scan, Store, Table, decode,
};
use sha2::{Digest as _, Sha256};

use crate::plane::store;

/// Reads the audit of the data directory, in the order of the chain. Panics where a link does not
/// hash the one before, or a record is not in its link, or one of a link is missing.
pub(crate) fn walk(data: &Path) -> Vec<AuditRecord> {
    let store = RedbStore::open(&store(data), Options::default()).unwrap();
    let mut records = BTreeMap::new();
    for (id, value) in all(&store, Table::Audit) {
        // org, lane, number of the link, index in the link.
        let (_, place) = id.split_at(16 + 2);
        assert!(records.insert(place.to_vec(), value).is_none(), "two records at one place");
    }
    let (mut previous, mut audit) = ([0; 32], Vec::new());
    for (count, (_, value)) in (1..).zip(all(&store, Table::Chain)) {
        let link: ChainLink = decode(&value).unwrap();
        assert_eq!((link.number, link.previous), (count, previous), "the chain is broken");
        previous = link.hash();
        for (index, hash) in (0_u32..).zip(&link.records) {
            let place = [&link.number.to_be_bytes()[..], &index.to_be_bytes()].concat();
            let record = records.remove(&place).expect("a record of the chain is missing");
            assert_eq!(<[u8; 32]>::from(Sha256::digest(&record)), *hash, "a record was altered");
            audit.push(decode(&record).unwrap());
        }
    }
    assert!(records.is_empty(), "records that no link hashes: {records:?}");
    audit
}

fn all(store: &RedbStore, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut found, mut after) = (Vec::new(), Vec::new());
    loop {
        let page = store
            .scan(Scan {
                table,
                from: Bound::Excluded(&after),
                to: Bound::Unbounded,
                order: Order::Ascending,
                limit: SCAN_RECORDS_MAX,
            })
            .unwrap();
        let Some(last) = page.last() else { return found };
        after = last.key.id.clone();
        found.extend(page.into_iter().map(|record| (record.key.id, record.value)));
    }
}
