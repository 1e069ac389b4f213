//! What the machine does without us: a disk, redb alone, raw netlink.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use postern_controlplane::domain::{Actor, AuditRecord, Event, Report, Spot, Visit};
use postern_controlplane::store::encode;
use postern_shared::ids::{OrgId, PairId};
use postern_shared::time::Timestamp;
use redb::{Database, Durability, TableDefinition};

use crate::figure::Times;

/// Times 4 KiB writes with fdatasync into a file that is there already.
pub(crate) fn fdatasync(folder: &Path, runs: u64) -> anyhow::Result<Times> {
    let path = folder.join("fdatasync");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; 4 << 20])?;
    file.sync_all()?;
    let mut times = Times::default();
    for run in 0..runs {
        let start = Instant::now();
        file.write_all_at(&[run as u8; 4_096], (run % 1_024) * 4_096)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(times)
}

/// What one commit of ours writes: bytes of key and value of each kind of record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitShape {
    /// Changes in one commit.
    pub(crate) changes: usize,
    /// Records that are overwritten by each change, and their bytes.
    pub(crate) report_bytes: usize,
    /// Records that are added by each change, and their bytes.
    pub(crate) audit_bytes: usize,
    /// Bytes of the one record that is added by each commit, for each change.
    pub(crate) chain_bytes: usize,
}

impl CommitShape {
    /// What one move writes: keys and values as the control plane stores them.
    pub(crate) fn of_a_move() -> CommitShape {
        let (pair, at) = (PairId::from_random([1; 16]), Timestamp::MAX);
        let address = Ipv4Addr::new(203, 0, 113, 7);
        let visit = Visit { id: u64::MAX, began: at };
        let report = Report { pair, ipv4: Some(Spot { address, at }), ipv6: None, visit };
        let record = AuditRecord {
            org: OrgId::from_random([1; 16]),
            at,
            actor: Actor::Pair(pair),
            source: Some(address.into()),
            event: Event::PairReported { pair, ipv4: report.ipv4, ipv6: None, moved: true },
        };
        CommitShape {
            changes: 1,
            report_bytes: KEY_BYTES + encode(&report).len(),
            audit_bytes: AUDIT_KEY_BYTES + encode(&record).len(),
            chain_bytes: HASH_BYTES,
        }
    }
}

const KEY_BYTES: usize = 16;
const AUDIT_KEY_BYTES: usize = 30;
const HASH_BYTES: usize = 16 + 32;

/// Commits of the same shape to redb alone, for `span`; answers changes per second. As the control
/// plane's own do, each row carries its revision, and each commit says in a table of its own which
/// revision it is and when it was made.
pub(crate) fn redb_alone(folder: &Path, shape: CommitShape, span: Duration) -> anyhow::Result<f64> {
    type Rows = TableDefinition<'static, &'static [u8], (u64, &'static [u8])>;
    const REPORTS: Rows = TableDefinition::new("reports");
    const AUDIT: Rows = TableDefinition::new("audit");
    const CHAIN: Rows = TableDefinition::new("chain");
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let path = folder.join("alone.redb");
    let database = Database::create(&path)?;
    let (mut changes, mut commits) = (0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < span {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut reports = transaction.open_table(REPORTS)?;
            let mut audit = transaction.open_table(AUDIT)?;
            let mut chain = transaction.open_table(CHAIN)?;
            for _ in 0..shape.changes {
                // Which of 200 pairs moves next is as good as random.
                let pair = changes.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 200;
                let report = vec![changes as u8; shape.report_bytes - KEY_BYTES];
                reports.insert(&key(pair)[..], (commits, &report[..]))?;
                let record = vec![changes as u8; shape.audit_bytes - KEY_BYTES];
                audit.insert(&key(changes)[..], (commits, &record[..]))?;
                changes += 1;
            }
            let link = vec![0; shape.chain_bytes * shape.changes];
            chain.insert(&key(commits)[..], (commits, &link[..]))?;
            let mut meta = transaction.open_table(META)?;
            meta.insert("revision", &commits.to_le_bytes()[..])?;
            meta.insert("high_water", &changes.to_le_bytes()[..])?;
        }
        transaction.commit()?;
        commits += 1;
    }
    let rate = changes as f64 / start.elapsed().as_secs_f64();
    drop(database);
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}
