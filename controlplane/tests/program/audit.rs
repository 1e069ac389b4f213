//! Walks the stored audit and its chain, as a verifier would.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use postern_controlplane::audit::ChainLink;
use postern_controlplane::domain::AuditRecord;
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
        assert_eq!((link.number, link.previous.0), (count, previous), "the chain is broken");
        let mut hashed = Sha256::new();
        hashed.update(b"postern audit link 1\n\0\0");
        hashed.update(link.number.to_be_bytes());
        hashed.update(link.at.unix_ms().to_be_bytes());
        hashed.update(previous);
        hashed.update(u32::try_from(link.records.len()).unwrap().to_be_bytes());
        for (index, linked) in (0_u32..).zip(&link.records) {
            let place = [&link.number.to_be_bytes()[..], &index.to_be_bytes()].concat();
            let record = records.remove(&place).expect("a record of the chain is missing");
            let hash = <[u8; 32]>::from(Sha256::digest(&record));
            assert_eq!(hash, linked.hash.0, "a record was altered");
            let tag = [
                b"postern audit tag 1\n",
                &linked.org.as_bytes()[..],
                &[0, 0],
                &link.number.to_be_bytes(),
            ];
            hashed.update(&Sha256::digest(tag.concat())[..16]);
            hashed.update(hash);
            audit.push(decode(&record).unwrap());
        }
        previous = hashed.finalize().into();
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
