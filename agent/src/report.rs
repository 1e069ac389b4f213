//! Receipts: the agent's word on what is in force, told as soon as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_shared::backoff::Backoff;
use postern_shared::error::chain;
use postern_shared::ids::GroupId;
use postern_shared::wire::v1::{Receipt, Receipts};
use tokio::sync::Notify;

use crate::chance::Chance;
use crate::client::Plane;

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

#[cfg(test)]
mod tests {
    use postern_shared::digest::Digest;
    use postern_shared::ids::Epoch;
    use postern_shared::position::{Follow, Revision};
    use postern_shared::wire::v1::{AgentSelf, AgentUpdate, BeaconAnswer, ReceiptState};

    use super::*;
    use crate::client::{Events, PlaneError, Polled};
    use crate::testing::{group, until};

    /// Takes receipts, for tests, or refuses them as it is told to.
    #[derive(Debug, Default)]
    struct FakePlane {
        taken: Mutex<Vec<Receipt>>,
        requests: Mutex<usize>,
        /// How the next requests fail.
        failures: Mutex<Vec<u16>>,
        /// The target that it takes no receipt of.
        poison: Option<&'static str>,
    }

    struct NoEvents;

    impl Events for NoEvents {
        async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, PlaneError> {
            unreachable!("only receipts are told")
        }
    }

    impl Plane for FakePlane {
        type Events = NoEvents;

        async fn beacon(&self) -> Result<BeaconAnswer, PlaneError> {
            unreachable!("only receipts are told")
        }

        async fn introduce(&self, _: &AgentUpdate) -> Result<AgentSelf, PlaneError> {
            unreachable!("only receipts are told")
        }

        async fn stream(&self, _: &[Follow]) -> Result<NoEvents, PlaneError> {
            unreachable!("only receipts are told")
        }

        async fn poll(&self, _: GroupId, _: Option<&str>) -> Result<Polled, PlaneError> {
            unreachable!("only receipts are told")
        }

        async fn report(&self, receipts: &Receipts) -> Result<(), PlaneError> {
            *self.requests.lock().unwrap() += 1;
            let failure = self.failures.lock().unwrap().pop();
            let is_poisoned =
                receipts.receipts.iter().any(|receipt| self.poison == Some(&*receipt.target));
            match failure.or(is_poisoned.then_some(422)) {
                Some(status) => Err(PlaneError::Refused {
                    status,
                    kind: if status == 403 { "forbidden_origin" } else { "" }.to_owned(),
                    detail: None,
                    retry_after: None,
                }),
                None => {
                    self.taken.lock().unwrap().extend(receipts.receipts.iter().cloned());
                    Ok(())
                }
            }
        }

        fn reconnect(&self) {}
    }

    fn receipt(target: &str, revision: u64) -> Receipt {
        Receipt {
            target: target.to_owned(),
            group: group(1),
            epoch: Epoch::from_random([9; 16]),
            revision: Revision(revision),
            digest: Digest::EMPTY,
            state: ReceiptState::Applied,
            entries: 1,
            detail: None,
        }
    }

    struct Stage {
        outbox: Arc<Outbox>,
        plane: Arc<FakePlane>,
        beacon_wanted: Arc<Notify>,
        _task: tokio::task::JoinHandle<()>,
    }

    fn stage(plane: FakePlane) -> Stage {
        let (outbox, plane) = (Arc::new(Outbox::default()), Arc::new(plane));
        let beacon_wanted = Arc::new(Notify::new());
        let telling =
            tell(Arc::clone(&outbox), Arc::clone(&plane), Arc::clone(&beacon_wanted), || u64::MAX);
        Stage { outbox, plane, beacon_wanted, _task: tokio::spawn(telling) }
    }

    impl Stage {
        fn taken(&self) -> Vec<(String, u64)> {
            let taken = self.plane.taken.lock().unwrap();
            taken.iter().map(|receipt| (receipt.target.clone(), receipt.revision.0)).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_of_each_is_told_and_each_once() {
        let stage = stage(FakePlane::default());

        for revision in 1..50 {
            stage.outbox.put(receipt("door", revision));
            stage.outbox.put(receipt("gate", 7));
        }
        until("both are told", || stage.taken().len() == 2).await;
        stage.outbox.put(receipt("gate", 7));
        tokio::time::sleep(Duration::from_secs(60)).await;

        assert_eq!(stage.taken(), [("door".to_owned(), 49), ("gate".to_owned(), 7)]);
        assert_eq!(*stage.plane.requests.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_plane_that_is_new_or_back_is_told_everything_at_once() {
        let failures = Mutex::new(vec![503; 30]);
        let stage = stage(FakePlane { failures, ..FakePlane::default() });
        stage.outbox.put(receipt("door", 1));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!((10..25).contains(&stage.plane.failures.lock().unwrap().len()));

        stage.plane.failures.lock().unwrap().clear();
        stage.outbox.retell();
        tokio::time::sleep(Duration::from_millis(1)).await;
        stage.outbox.retell();
        tokio::time::sleep(Duration::from_millis(1)).await;

        assert_eq!(stage.taken(), [("door".to_owned(), 1), ("door".to_owned(), 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_receipt_that_is_not_taken_keeps_no_other_back() {
        let stage = stage(FakePlane { poison: Some("b"), ..FakePlane::default() });

        for target in ["a", "b", "c"] {
            stage.outbox.put(receipt(target, 1));
        }
        until("the others are told", || stage.taken().len() == 2).await;
        tokio::time::sleep(Duration::from_secs(60)).await;

        assert_eq!(stage.taken(), [("a".to_owned(), 1), ("c".to_owned(), 1)]);
        assert_eq!(*stage.plane.requests.lock().unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_address_rings_for_a_beacon() {
        let failures = Mutex::new(vec![403]);
        let stage = stage(FakePlane { failures, ..FakePlane::default() });

        stage.outbox.put(receipt("door", 1));
        stage.beacon_wanted.notified().await;

        until("it is told", || stage.taken().len() == 1).await;
    }
}
