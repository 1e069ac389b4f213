//! Receipts: the agent's word on what is in force, told as soon as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_shared::backoff::Backoff;
use postern_shared::ids::GroupId;
use postern_shared::wire::v1::{Receipt, Receipts};
use tokio::sync::Notify;

use crate::chance::Chance;
use crate::client::{Plane, chain};

/// Most receipts in one request.
const RECEIPTS_MAX: usize = 256;
const BACKOFF_BASE: Duration = Duration::from_millis(500);
const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// The newest receipt of each target and group. Bounded by the configuration: a newer one takes
/// the place of an older, told or not.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    latest: Mutex<BTreeMap<(String, GroupId), Slot>>,
    filled: Notify,
    hurried: Notify,
}

#[derive(Debug, Clone)]
struct Slot {
    receipt: Receipt,
    is_told: bool,
}

impl Outbox {
    /// Takes a receipt; one that says nothing new is not told again.
    pub(crate) fn put(&self, receipt: Receipt) {
        let key = (receipt.target.clone(), receipt.group);
        let mut latest = self.lock();
        if latest.get(&key).is_none_or(|slot| slot.receipt != receipt) {
            latest.insert(key, Slot { receipt, is_told: false });
            drop(latest);
            self.filled.notify_one();
        }
    }

    /// Tells everything again, now: the plane keeps receipts in memory only, and may be a new one.
    pub(crate) fn retell(&self) {
        self.lock().values_mut().for_each(|slot| slot.is_told = false);
        self.filled.notify_one();
        self.hurried.notify_one();
    }

    /// What the plane has not been told yet.
    pub(crate) fn untold(&self, receipts_max: usize) -> Vec<Receipt> {
        let latest = self.lock();
        let untold = latest.values().filter(|slot| !slot.is_told);
        untold.map(|slot| slot.receipt.clone()).take(receipts_max).collect()
    }

    /// Notes that the plane knows these. One that was replaced meanwhile stays untold.
    fn told(&self, receipts: &[Receipt]) {
        let mut latest = self.lock();
        for receipt in receipts {
            let key = (receipt.target.clone(), receipt.group);
            if let Some(slot) = latest.get_mut(&key).filter(|slot| slot.receipt == *receipt) {
                slot.is_told = true;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, GroupId), Slot>> {
        self.latest.lock().expect("no code panics while it holds the lock")
    }
}

/// Tells the plane what is in the outbox, for ever. `beacon_wanted` is rung where the plane says
/// that it does not know the address that this host has now.
pub(crate) async fn tell<P: Plane>(
    outbox: Arc<Outbox>,
    plane: Arc<P>,
    beacon_wanted: Arc<Notify>,
    chance: Chance,
) {
    let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
    let mut receipts_max = RECEIPTS_MAX;
    loop {
        let receipts = outbox.untold(receipts_max);
        if receipts.is_empty() {
            receipts_max = RECEIPTS_MAX;
            outbox.filled.notified().await;
            continue;
        }
        let receipts = Receipts { receipts };
        let error = match plane.report(&receipts).await {
            Ok(()) => {
                backoff.succeeded();
                outbox.told(&receipts.receipts);
                continue;
            }
            Err(error) => error,
        };
        if error.blames_request() {
            // One that the plane does not take must not keep the others from it.
            if receipts_max == 1 {
                tracing::warn!(error = %chain(&error), "the control plane takes no such receipt");
                outbox.told(&receipts.receipts);
            }
            receipts_max = 1;
            continue;
        }
        tracing::debug!(error = %chain(&error), "could not tell what is in force");
        if error.wants_beacon() {
            beacon_wanted.notify_one();
        }
        let wait = backoff.failed(chance(), error.retry_after());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = outbox.hurried.notified() => {}
        }
    }
}
