//! Mail on its way out: a bounded queue in memory, tried again with back-off, and what became of
//! the newest letter to each addressee.
//!
//! | state | ends when | goes to |
//! | --- | --- | --- |
//! | waiting | its time has come | tried |
//! | waiting | its link has ended | failed |
//! | tried | the server takes it | sent |
//! | tried | the server refuses it for good, or it was tried often enough | failed |
//! | tried | anything else goes wrong | waiting, for longer than before |
//!
//! A restart forgets what waits: whoever was to get it is invited again, or asks again.

mod smtp;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_shared::backoff::Backoff;
use postern_shared::error::chain;
use postern_shared::ids::{PairId, UserId};
use postern_shared::time::Timestamp;
use postern_shared::token::TokenHash;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub use self::smtp::{MailConfig, MailError, MailTls, SmtpLogin, Transport};
use crate::chance::Chance;
use crate::domain::{Email, PairRow, Secret};
use crate::engine::Engine;

/// Most letters that wait, for their first try or for another.
const LETTERS_WAITING_MAX: usize = 256;
/// Most tries of one letter: with the waits between them about half an hour.
const TRIES_MAX: u32 = 8;
/// Most addressees of whose newest letter is known what became of it.
const FATES_MAX: usize = 10_000;
/// Longest word on a failure that is kept, in characters.
const WHY_CHARS_MAX: usize = 300;

/// A letter.
#[derive(Debug)]
pub struct Letter {
    /// Whose it is.
    pub addressee: Addressee,
    /// Where it goes.
    pub to: Email,
    /// What it is about; holds no secret.
    pub subject: String,
    /// The text, which may hold one.
    pub body: SecretString,
    /// The secret of the link in it: when that has ended, nobody needs the letter any more.
    pub secret: Option<TokenHash>,
}

/// Whose a letter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Addressee {
    /// A user, about the way in.
    User(UserId),
    /// A pair's owner, about its bookmark.
    Pair(PairId),
    /// Whoever is warned of how a pair's bookmark is used.
    Warned(PairId),
}

/// What became of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
#[expect(missing_docs, reason = "`at` is when, `why` what the server or the system said")]
pub enum Fate {
    /// It was not tried yet.
    Waiting { at: Timestamp },
    /// It was tried, and will be again.
    Retried { at: Timestamp, why: String },
    /// The server took it. Whether it reaches a mailbox is for the servers behind to say.
    Sent { at: Timestamp },
    /// It will not be tried again.
    Failed { at: Timestamp, why: String },
}

/// The way out for letters. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Letter>,
    fates: Fates,
}

/// Room for one letter; given back when dropped.
pub struct Room<'a>(mpsc::Permit<'a, Letter>);

/// Too many letters wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{LETTERS_WAITING_MAX} letters wait already; is the mail server reachable?")]
pub struct OutboxFull;

/// How long to wait between two tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest first wait.
    pub base: Duration,
    /// The longest of all.
    pub cap: Duration,
}

impl Patience {
    /// What mail servers are used to: gone for minutes, not for seconds.
    pub const USUAL: Patience =
        Patience { base: Duration::from_secs(20), cap: Duration::from_secs(15 * 60) };
}

/// What became of the newest letter to each addressee, in the order of their ids, and since when no
/// letter gets through.
#[derive(Clone, Default)]
struct Fates(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    fates: BTreeMap<Addressee, Fate>,
    failing_since: Option<Timestamp>,
}

struct Waiting {
    letter: Letter,
    backoff: Backoff,
}

impl Outbox {
    /// Starts to send, on the current runtime, until the last outbox is dropped.
    pub fn start(
        transport: Transport,
        patience: Patience,
        engine: Engine,
        chance: Arc<dyn Chance>,
    ) -> Outbox {
        let (queue, letters) = mpsc::channel(LETTERS_WAITING_MAX);
        let fates = Fates::default();
        let postman = Postman { transport, patience, engine, chance, fates: fates.clone() };
        tokio::spawn(postman.run(letters));
        Outbox { queue, fates }
    }

    /// Puts a letter into the queue.
    pub fn send(&self, letter: Letter) -> Result<(), OutboxFull> {
        self.reserve().map(|room| room.send(letter))
    }

    /// Takes room for one letter, so that what must happen before it is sent is not in vain.
    pub fn reserve(&self) -> Result<Room<'_>, OutboxFull> {
        self.queue.try_reserve().map(Room).map_err(|_| OutboxFull)
    }

    /// What became of the newest letter to a user since the start.
    pub fn fate(&self, user: UserId) -> Option<Fate> {
        self.fates.lock().fates.get(&Addressee::User(user)).cloned()
    }

    /// What became of the newest letter with a pair's bookmark since the start.
    pub fn fate_of_pair(&self, pair: PairId) -> Option<Fate> {
        self.fates.lock().fates.get(&Addressee::Pair(pair)).cloned()
    }

    /// Since when no letter gets through to the mail server; none while letters do.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.fates.lock().failing_since
    }
}

impl Letter {
    /// Says whether the secret that it brings has ended.
    fn is_void(&self, engine: &Engine) -> bool {
        let Some(secret) = &self.secret else { return false };
        let (state, now) = (engine.state(), engine.now());
        let is_bookmark = |row: &&PairRow| row.is_live() && row.record.bookmark == *secret;
        let pair = match state.secret(secret) {
            Some(Secret::Bookmark(pair)) => state.pair(pair).filter(is_bookmark),
            Some(Secret::Key(_) | Secret::Server(_) | Secret::Enrolment(_) | Secret::Agent(_))
            | None => None,
        };
        pair.is_none() && state.open_ticket(secret, now).is_none()
    }
}

impl Room<'_> {
    /// Puts the letter into the queue.
    pub fn send(self, letter: Letter) {
        self.0.send(letter);
    }
}

impl fmt::Display for Addressee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addressee::User(user) => write!(f, "user {user}"),
            Addressee::Pair(pair) => write!(f, "pair {pair}"),
            Addressee::Warned(pair) => write!(f, "those who are warned of pair {pair}"),
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

impl Fates {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, addressee: Addressee, fate: Fate) {
        let fates = &mut self.lock().fates;
        if FATES_MAX <= fates.len() && !fates.contains_key(&addressee) {
            fates.pop_first();
        }
        fates.insert(addressee, fate);
    }

    /// Notes at a time that the server was reached, or that it was not.
    fn reached(&self, is_reached: bool, at: Timestamp) {
        let since = &mut self.lock().failing_since;
        *since = if is_reached { None } else { since.or(Some(at)) };
    }
}

/// Who takes letters to the server, one after the other.
struct Postman {
    transport: Transport,
    patience: Patience,
    engine: Engine,
    chance: Arc<dyn Chance>,
    fates: Fates,
}

impl Postman {
    async fn run(self, mut letters: mpsc::Receiver<Letter>) {
        // By the time of the next try; the number keeps two of the same instant apart.
        let mut waiting: BTreeMap<(Instant, u64), Waiting> = BTreeMap::new();
        let mut count = 0;
        loop {
            let next = waiting.keys().next().map(|(at, _)| *at);
            let has_room = waiting.len() < LETTERS_WAITING_MAX;
            tokio::select! {
                letter = letters.recv(), if has_room => {
                    let Some(letter) = letter else { return };
                    // The newer letter brings the newer link: that of the older one is dead.
                    let is_older = |it: &Waiting| {
                        it.letter.addressee == letter.addressee && it.letter.to == letter.to
                    };
                    waiting.retain(|_, it| !is_older(it));
                    self.fates.note(letter.addressee, Fate::Waiting { at: self.engine.now() });
                    let backoff = Backoff::new(self.patience.base, self.patience.cap);
                    count += 1;
                    waiting.insert((Instant::now(), count), Waiting { letter, backoff });
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    let Some((_, tried)) = waiting.pop_first() else { continue };
                    if let Some((wait, tried)) = self.deliver(tried).await {
                        count += 1;
                        waiting.insert((Instant::now() + wait, count), tried);
                    }
                }
            }
        }
    }

    /// Tries a letter; gives it back, with how long to wait, when it is to be tried again.
    async fn deliver(&self, mut tried: Waiting) -> Option<(Duration, Waiting)> {
        let addressee = tried.letter.addressee;
        if tried.letter.is_void(&self.engine) {
            metrics::counter!("postern_mails_total", "outcome" => "dropped").increment(1);
            tracing::info!(%addressee, "dropped a mail whose link has ended");
            let why = "its link ended before it could be sent".to_owned();
            self.fates.note(addressee, Fate::Failed { at: self.engine.now(), why });
            return None;
        }
        let result = self.transport.deliver(&tried.letter, self.chance.as_ref()).await;
        let at = self.engine.now();
        // A letter that is refused for good was seen by the server, which takes others.
        self.fates.reached(result.as_ref().map_or_else(MailError::is_final, |()| true), at);
        let error = match result {
            Ok(()) => {
                metrics::counter!("postern_mails_total", "outcome" => "sent").increment(1);
                tracing::info!(%addressee, "sent a mail");
                self.fates.note(addressee, Fate::Sent { at });
                return None;
            }
            Err(error) => error,
        };
        let why: String = chain(&error).chars().take(WHY_CHARS_MAX).collect();
        let wait = tried.backoff.failed(self.chance.number(), None);
        if error.is_final() || TRIES_MAX <= tried.backoff.failures() {
            metrics::counter!("postern_mails_total", "outcome" => "failed").increment(1);
            tracing::warn!(%addressee, error = why, "gave a mail up");
            self.fates.note(addressee, Fate::Failed { at, why });
            return None;
        }
        tracing::warn!(%addressee, error = why, wait_secs = wait.as_secs(), "will try a mail again");
        self.fates.note(addressee, Fate::Retried { at, why });
        Some((wait, tried))
    }
}
