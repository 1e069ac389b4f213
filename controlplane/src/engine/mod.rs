//! The single writer: decides, makes durable, applies, publishes, answers.
//!
//! Orders queue up while a commit is under way; the next commit takes all of them that do not
//! conflict with one another, so each is decided on committed state and the cost of the disk is
//! shared. Nobody sees a change, and no caller is answered, before it is durable.

mod prune;
mod records;
mod signing;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use postern_shared::ids::Epoch;
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::records::RecordError;
use self::signing::Signing;
use crate::audit::{AuditError, AuditKey, AuditView, Hex, LANE};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::domain::{Board, Change, Once, Order, Rejection, State};
use crate::feed::Feed;
use crate::store::{Reader, Store, StoreError};

/// Most orders that wait for the writer; what comes on top is told to come back.
pub const ORDERS_WAITING_MAX: usize = 4_096;

/// Most reads of the audit at once; each takes a thread that may block.
const AUDIT_READS_MAX: usize = 4;

/// The way to the writer, and to everything that it keeps up to date. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    jobs: mpsc::Sender<Job>,
    hub: Arc<Hub>,
}

/// What the writer keeps up to date for everybody else.
struct Hub {
    state: RwLock<State>,
    feed: Feed,
    board: Mutex<Board>,
    epoch: RwLock<Epoch>,
    access: watch::Sender<u64>,
    receipts: watch::Sender<u64>,
    stopped: watch::Sender<Option<Stopped>>,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    reader: Arc<dyn Reader>,
    audit_reads: Arc<Semaphore>,
    audit_key: Option<Hex<32>>,
}

/// Why the writer has ended. There is no way on but a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to, and everything acknowledged is durable.
    Asked,
    /// The store failed; what was not acknowledged may or may not be durable.
    StoreFailed,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The commit that made it durable; the newest one when nothing had to change.
    pub revision: Revision,
    /// The plane's time of the decision.
    pub at: Timestamp,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A rule of the product says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many orders are waiting; nothing has changed.
    #[error("the control plane is busy; try again")]
    Busy,
    /// The disk is almost full; nothing has changed.
    #[error("the control plane's disk is almost full; only revocations are taken")]
    DiskFull,
    /// The writer has ended; the order may or may not be durable.
    #[error("the control plane is stopping")]
    Stopped,
}

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error("the store cannot be loaded")]
    Store(#[from] StoreError),
    /// The heads of the audit's chain cannot be read.
    #[error("the audit cannot be read")]
    Audit(#[from] AuditError),
    /// A thread cannot be started.
    #[error("the writer's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// Makes the answer of an order from what was decided, before that is durable: so the answer can be
/// made durable along with it. Called by the writer, once for each time that the order is decided.
pub type Tell = Box<dyn Fn(&State, &[Change]) -> Vec<u8> + Send>;

/// How an order is to be answered.
struct Telling {
    /// The name of the request, where its answer is to be kept.
    once: Option<Once>,
    tell: Tell,
    told: Arc<Mutex<Vec<u8>>>,
}

enum Job {
    Order(Box<Order>, Option<Telling>, oneshot::Sender<Result<Done, Refused>>),
    Pass(oneshot::Sender<bool>),
    Sign(oneshot::Sender<()>),
    Prune { before: Timestamp, done: oneshot::Sender<bool> },
    ReplaceEpoch { held: Epoch, done: oneshot::Sender<()> },
    Stop,
}

impl Engine {
    /// Loads the store and starts the writer on a thread of its own. Blocks while loading. Nobody
    /// signs the audit's chain.
    pub fn start(
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Result<(Engine, JoinHandle<()>), StartError> {
        Engine::start_with(store, clock, chance, None)
    }

    /// As [`Engine::start`], with the key that signs the audit's chain.
    pub fn start_signing(
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        key: AuditKey,
    ) -> Result<(Engine, JoinHandle<()>), StartError> {
        Engine::start_with(store, clock, chance, Some(key))
    }

    fn start_with(
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
        key: Option<AuditKey>,
    ) -> Result<(Engine, JoinHandle<()>), StartError> {
        let (state, orphans, link) = records::load(store.as_ref(), clock.now())?;
        let reader = store.reader();
        let tip = link.map(|link| link.tip(LANE));
        let signing = Signing::start(key, reader.as_ref(), tip)?;
        let hub = Arc::new(Hub {
            state: RwLock::new(state),
            feed: Feed::default(),
            board: Mutex::default(),
            epoch: RwLock::new(store.epoch()),
            access: watch::Sender::new(0),
            receipts: watch::Sender::new(0),
            stopped: watch::Sender::new(None),
            clock,
            chance,
            reader,
            audit_reads: Arc::new(Semaphore::new(AUDIT_READS_MAX)),
            audit_key: signing.public(),
        });
        let (jobs, queue) = mpsc::channel(ORDERS_WAITING_MAX);
        let writer = writer::Writer::new(store, Arc::clone(&hub), orphans, tip, signing);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(StartError::Thread)?;
        Ok((Engine { jobs, hub }, thread))
    }

    /// Has an order carried out, and answers when it is durable and visible.
    pub async fn submit(&self, order: Order) -> Result<Done, Refused> {
        self.enqueue(order, None).await
    }

    /// Has an order carried out, and answers with what `tell` made of it. With `once` that is kept
    /// in the transaction of the change itself, for whoever asks again.
    pub async fn submit_told(
        &self,
        order: Order,
        once: Option<Once>,
        tell: Tell,
    ) -> Result<(Done, Vec<u8>), Refused> {
        let told = Arc::new(Mutex::default());
        let telling = Telling { once, tell, told: Arc::clone(&told) };
        let done = self.enqueue(order, Some(telling)).await?;
        let told = std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((done, told))
    }

    async fn enqueue(&self, order: Order, telling: Option<Telling>) -> Result<Done, Refused> {
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job::Order(Box::new(order), telling, answer)).map_err(|error| {
            match error {
                mpsc::error::TrySendError::Full(_) => Refused::Busy,
                mpsc::error::TrySendError::Closed(_) => Refused::Stopped,
            }
        })?;
        answered.await.unwrap_or(Err(Refused::Stopped))
    }

    /// Reads the committed state. Hold it for as long as a look-up takes, never across an await.
    pub fn state(&self) -> RwLockReadGuard<'_, State> {
        self.hub.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What changed of each list.
    pub fn feed(&self) -> &Feed {
        &self.hub.feed
    }

    /// What agents say is in force.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.hub.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the board has changed.
    pub fn board_changed(&self) {
        self.hub.receipts.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Moves whenever the board has changed.
    pub fn watch_board(&self) -> watch::Receiver<u64> {
        self.hub.receipts.subscribe()
    }

    /// Counts the changes of the board and of anybody's rights: while neither has moved, nor has
    /// what was confirmed.
    pub fn board_version(&self) -> (u64, u64) {
        (*self.hub.receipts.borrow(), *self.hub.access.borrow())
    }

    /// Moves whenever anybody's rights may have changed: whoever holds a connection open for a
    /// credential must ask again whether it may.
    pub fn watch_access(&self) -> watch::Receiver<u64> {
        self.hub.access.subscribe()
    }

    /// Becomes `Some` when the writer has ended.
    pub fn watch_stopped(&self) -> watch::Receiver<Option<Stopped>> {
        self.hub.stopped.subscribe()
    }

    /// The life of the store.
    pub fn epoch(&self) -> Epoch {
        *self.hub.epoch.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new epoch, unless somebody else has since `held` was read: the store was found to
    /// be older than what its followers know.
    pub async fn replace_epoch(&self, held: Epoch) {
        let (done, answered) = oneshot::channel();
        if self.jobs.send(Job::ReplaceEpoch { held, done }).await.is_ok() {
            drop(answered.await);
        }
    }

    /// Waits until the writer has passed by: what was under way when this was asked is done. For
    /// ever when the writer hangs, and so a sign of its life. Answers whether the disk has room for
    /// more than revocations.
    pub async fn pass(&self) -> Result<bool, Refused> {
        let (done, passed) = oneshot::channel();
        self.jobs.send(Job::Pass(done)).await.map_err(|_| Refused::Stopped)?;
        passed.await.map_err(|_| Refused::Stopped)
    }

    /// Reads the audit as it is now, on a thread that may block and beside the writer, who waits
    /// for nothing.
    pub async fn read_audit<T: Send + 'static>(
        &self,
        read: impl FnOnce(&AuditView<'_>) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, AuditError> {
        let permits = Arc::clone(&self.hub.audit_reads);
        let permit = permits.try_acquire_owned().map_err(|_| AuditError::Busy)?;
        let reader = Arc::clone(&self.hub.reader);
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let snapshot = reader.snapshot()?;
            read(&AuditView::new(snapshot.as_ref()))
        });
        done.await.expect("reading does not panic")
    }

    /// The public half of the key that signs the audit.
    pub fn audit_key(&self) -> Option<Hex<32>> {
        self.hub.audit_key
    }

    /// Has everything recorded so far signed, where there is a key to sign with.
    pub async fn sign_audit(&self) {
        let (done, signed) = oneshot::channel();
        if self.jobs.send(Job::Sign(done)).await.is_ok() {
            // When the writer has ended, it has signed.
            drop(signed.await);
        }
    }

    /// Takes away what the audit holds from longer ago than `keep`, behind a signed beginning: a
    /// part in each commit, so that others get their turn. Without a key nothing is pruned.
    pub async fn prune_audit(&self, keep: Duration) {
        let before = self.now().saturating_sub(keep);
        loop {
            let (done, pruned) = oneshot::channel();
            if self.jobs.send(Job::Prune { before, done }).await.is_err() {
                return;
            }
            if !pruned.await.unwrap_or(false) {
                return;
            }
        }
    }

    /// The plane's time.
    pub fn now(&self) -> Timestamp {
        self.hub.clock.now()
    }

    /// Where the plane's time comes from.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.hub.clock)
    }

    /// The source of ids and secrets.
    pub fn chance(&self) -> &dyn Chance {
        self.hub.chance.as_ref()
    }

    /// Ends the writer after everything that waits for it.
    pub async fn stop(&self) {
        drop(self.jobs.send(Job::Stop).await);
    }
}
