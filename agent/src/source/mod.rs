//! Follows the control plane: reports the host's own address, says what the host is, and takes
//! its lists as they change.
//!
//! | state | leaves it when | for |
//! | --- | --- | --- |
//! | connecting | beacon and introduction were answered | streaming, or polling |
//! | streaming | end, error, 40 s of silence, a message that does not fit | connecting |
//! | polling | [`STREAM_AGAIN`] has passed, or every poll fails | connecting |
//!
//! Lists come by polling after the stream did not get through twice in a row. Nothing here ever
//! gives up; between two tries there is a back-off with full jitter.

mod poll;
mod sse;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use postern_shared::backoff::{Backoff, share};
use postern_shared::error::chain;
use postern_shared::follow::Rejected;
use postern_shared::wire::v1::{AgentGroup, AgentUpdate, StreamEvent};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use self::sse::{Event, Parser, SseError};
use crate::chance::Chance;
use crate::client::{Events, Plane, PlaneError};
use crate::clock::Clock;
use crate::lists::Lists;
use crate::report::Outbox;
use crate::status::{Board, Link};

/// The plane sends a comment every 15 s: after this long it, or the way to it, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// The plane answers a new stream at once: whoever holds its first bytes back this long holds
/// back all of them.
const FIRST_BYTES_MAX: Duration = Duration::from_secs(20);
/// Streams in a row that did not get through before lists are polled.
const BLOCKED_MAX: u32 = 2;
/// How long lists are polled before the stream is tried again.
const STREAM_AGAIN: Duration = Duration::from_secs(600);
const BACKOFF_BASE: Duration = Duration::from_secs(1);
const BACKOFF_CAP: Duration = Duration::from_secs(60);
/// A connection that lasted this long was a success: the back-off starts anew.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// The own address is reported again after at least and at most so long, whatever the plane says.
const BEACON_PAUSE_MIN: Duration = Duration::from_secs(5);
const BEACON_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What follows the control plane.
pub(crate) struct Source<P, C> {
    pub(crate) plane: Arc<P>,
    pub(crate) lists: Arc<Lists>,
    pub(crate) clock: Arc<C>,
    pub(crate) chance: Chance,
    pub(crate) board: Arc<Board>,
    pub(crate) outbox: Arc<Outbox>,
    /// Rung by whoever finds that the plane does not know the host's address.
    pub(crate) beacon_wanted: Arc<Notify>,
    /// What the host is.
    pub(crate) update: AgentUpdate,
    /// What the plane last said this agent may follow.
    pub(crate) groups: watch::Sender<Vec<AgentGroup>>,
}

/// Why lists stopped coming in.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error("the stream was silent for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("no byte of the stream came within {} s: does a proxy hold it back?", .0.as_secs())]
    Blocked(Duration),
    #[error("the control plane ended the stream")]
    Ended,
    #[error(transparent)]
    Sse(#[from] SseError),
    #[error("an event of the stream is not as agreed: {0}")]
    Event(#[source] serde_json::Error),
    #[error(transparent)]
    Rejected(Rejected),
}

impl Broken {
    /// Says whether what stands between the plane and us keeps streams from getting through.
    fn is_blocked(&self) -> bool {
        match self {
            Broken::Blocked(_) | Broken::Plane(PlaneError::Malformed(_)) => true,
            Broken::Plane(PlaneError::Refused { status, .. }) => matches!(status, 405 | 406 | 501),
            Broken::Plane(
                PlaneError::Unreachable(_)
                | PlaneError::WrongKey
                | PlaneError::NotInForce
                | PlaneError::TimedOut(_),
            )
            | Broken::Silent(_)
            | Broken::Ended
            | Broken::Sse(_)
            | Broken::Event(_)
            | Broken::Rejected(_) => false,
        }
    }

    /// Says whether a new connection is needed: on a shared one, a dead way stays dead.
    fn doubts_connection(&self) -> bool {
        match self {
            Broken::Plane(error) => error.doubts_connection(),
            Broken::Silent(_) | Broken::Blocked(_) => true,
            Broken::Ended | Broken::Sse(_) | Broken::Event(_) | Broken::Rejected(_) => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Broken::Plane(error) => error.retry_after(),
            Broken::Silent(_)
            | Broken::Blocked(_)
            | Broken::Ended
            | Broken::Sse(_)
            | Broken::Event(_)
            | Broken::Rejected(_) => None,
        }
    }
}

impl<P: Plane, C: Clock> Source<P, C> {
    /// Follows for as long as it is polled.
    pub(crate) async fn follow(self) {
        let mut backoff = Backoff::new(BACKOFF_BASE, BACKOFF_CAP);
        let mut blocked: u32 = 0;
        loop {
            let began = self.clock.now();
            let broken = self.connection(blocked < BLOCKED_MAX).await;
            let now = self.clock.now();
            self.lists.lost();
            self.board.link(Link::Down, now);
            let Some(broken) = broken else {
                // Polled for long enough: one stream decides how to go on.
                blocked = BLOCKED_MAX - 1;
                continue;
            };
            if broken.is_blocked() {
                blocked = blocked.saturating_add(1);
            } else if blocked < BLOCKED_MAX {
                blocked = 0;
            }
            if broken.doubts_connection() {
                self.plane.reconnect();
            }
            if STEADY_AFTER <= now.since(began) {
                backoff.succeeded();
            }
            let wait = backoff.failed((self.chance)(), broken.retry_after());
            let error = chain(&broken);
            tracing::warn!(error = %error, wait_ms = wait.as_millis(), "not following the control plane");
            self.board.write(|notes| notes.plane.error = Some(error));
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection, from the beacon to its end; `None` where polling lasted long enough.
    async fn connection(&self, by_stream: bool) -> Option<Broken> {
        let next_beacon = self.beacon().await;
        if let Err(error) = self.introduce().await {
            return Some(error.into());
        }
        self.outbox.retell();
        let lists = async {
            if self.lists.groups().is_empty() {
                // What was told of the groups may bring some; until then there is nothing to ask.
                return std::future::pending().await;
            }
            if by_stream {
                return Some(self.stream().await);
            }
            self.board.link(Link::Polling, self.clock.now());
            timeout(STREAM_AGAIN, self.poll()).await.ok()
        };
        tokio::select! {
            ended = lists => ended,
            never = self.keep_beaconing(next_beacon) => match never {},
        }
    }

    /// Reports the own address; answers how long to wait before the next report. A failure is
    /// noted and no more: it may be that nothing but the beacon is out of order.
    async fn beacon(&self) -> Result<Duration, Option<Duration>> {
        match self.plane.beacon().await {
            Ok(answer) => {
                self.board.write(|notes| {
                    (notes.plane.ipv4, notes.plane.ipv6) = (answer.ipv4, answer.ipv6);
                    notes.plane.beacon_error = None;
                });
                if answer.moved {
                    tracing::info!(ipv4 = ?answer.ipv4, ipv6 = ?answer.ipv6, "the own address moved");
                }
                Ok(Duration::from_secs(answer.next).clamp(BEACON_PAUSE_MIN, BEACON_PAUSE_MAX))
            }
            Err(error) => {
                let text = chain(&error);
                tracing::warn!(error = %text, "could not report the own address");
                self.board.write(|notes| notes.plane.beacon_error = Some(text));
                Err(error.retry_after())
            }
        }
    }

    /// Reports the own address again whenever it is time to, or when somebody asks for it.
    async fn keep_beaconing(
        &self,
        mut last: Result<Duration, Option<Duration>>,
    ) -> std::convert::Infallible {
        let mut backoff = Backoff::new(BEACON_PAUSE_MIN, BACKOFF_CAP);
        loop {
            let wait = match last {
                Ok(next) => {
                    backoff.succeeded();
                    next
                }
                Err(retry_after) => backoff.failed((self.chance)(), retry_after),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.beacon_wanted.notified() => {
                    // Whoever is refused over and over rings over and over.
                    tokio::time::sleep(share(BEACON_PAUSE_MIN, (self.chance)())).await;
                }
            }
            last = self.beacon().await;
        }
    }

    async fn introduce(&self) -> Result<(), PlaneError> {
        let answer = self.plane.introduce(&self.update).await?;
        self.groups.send_if_modified(|groups| {
            let is_news = *groups != answer.groups;
            if is_news {
                *groups = answer.groups;
            }
            is_news
        });
        Ok(())
    }

    /// Takes the stream until it breaks.
    async fn stream(&self) -> Broken {
        let sent_at = self.clock.now();
        let follow = self.lists.follow(sent_at);
        let mut events = match self.plane.stream(&follow).await {
            Ok(events) => events,
            Err(error) => return error.into(),
        };
        let mut parser = Parser::default();
        let mut first = Some(sent_at);
        let mut is_silent = true;
        loop {
            let limit = if is_silent { FIRST_BYTES_MAX } else { SILENCE_MAX };
            let chunk = match timeout(limit, events.chunk()).await {
                Err(_) if is_silent => return Broken::Blocked(limit),
                Err(_) => return Broken::Silent(limit),
                Ok(Err(error)) => return error.into(),
                Ok(Ok(None)) => return Broken::Ended,
                Ok(Ok(Some(chunk))) => chunk,
            };
            if is_silent {
                is_silent = false;
                self.board.link(Link::Stream, self.clock.now());
            }
            // What was followed is so still, even if there is nothing new to say of it.
            self.lists.heard(None, self.clock.now());
            self.heard();
            let taken = parser.push(&chunk, |event| self.take(&event, &mut first));
            if let Err(broken) = taken {
                return broken;
            }
        }
    }

    /// Takes one event. `first` is when the request was sent, until a message was paired with it.
    fn take(
        &self,
        event: &Event,
        first: &mut Option<postern_shared::time::Timestamp>,
    ) -> Result<(), Broken> {
        let Some(event) = StreamEvent::from_sse(&event.name, event.data()?) else {
            tracing::debug!(name = %event.name, "an event of a later version is passed over");
            return Ok(());
        };
        let event = event.map_err(Broken::Event)?;
        let sent_at = match event {
            // The time of a delta is when it happened, and that may be long ago.
            StreamEvent::Withdrawn(_) | StreamEvent::Delta(_) => None,
            StreamEvent::Same(_) | StreamEvent::Snapshot(_) => first.take(),
        };
        match self.lists.receive(event, sent_at, self.clock.now()) {
            Err(rejected) if rejected.is_to_reconnect() => Err(Broken::Rejected(rejected)),
            Err(rejected) => {
                tracing::debug!(%rejected, "a message is passed over");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Notes that the plane was heard.
    fn heard(&self) {
        let now = self.clock.now();
        self.board.write(|notes| {
            notes.plane.heard_at = Some(now);
            notes.plane.error = None;
        });
    }
}
