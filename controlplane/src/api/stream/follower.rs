//! One open stream, whoever listens: it waits, tells, and ends with the right to it.
//!
//! Nothing is queued for a follower: whenever it can take more, it is told what leads from what
//! it has to what there is. One that takes nothing is cut off by the server's write limit.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use postern_shared::ids::{Epoch, GroupId};
use postern_shared::position::Revision;
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{StreamEvent, Withdrawn};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;
use tokio_stream::StreamMap;
use tokio_stream::wrappers::WatchStream;

use super::seats::Seat;
use crate::app::App;
use crate::domain::State as Orgs;
use crate::engine::Stopped;
use crate::feed::Catch;
use crate::server::Drain;

/// After this long without an event a comment says that the stream lives.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// The longest age of a stream, in seconds; the shortest is half of it, so that streams that
/// began together do not end together.
const AGE_SECS_MAX: u64 = 2 * 60 * 60;
/// Shortest wait for a right to end, so that the clocks of the plane and of its timers may differ
/// without a busy loop.
const RIGHTS_WAIT_MIN: Duration = Duration::from_millis(1);

const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// What a follower has of a group.
pub(crate) type Have = Option<(Epoch, Revision)>;

/// Who listens to a stream: by which right, and in which words lists are told.
pub(crate) trait Listener: Send + 'static {
    /// Whether the right to the stream still counts.
    fn is_let_in(&self, state: &Orgs, now: Timestamp) -> bool;

    /// How long that right counts if nothing happens; `None` for ever.
    fn counts_for(&self, state: &Orgs, now: Timestamp) -> Option<Duration>;

    /// Whether the list of `group` may be told.
    fn may_read(&self, state: &Orgs, group: GroupId) -> bool;

    /// Says what leads a follower that has just come from what it has to what there is.
    fn welcome(&mut self, app: &App, group: GroupId, have: Have) -> Catch;

    /// Says the same to one that was told before.
    fn catch_up(&mut self, app: &App, group: GroupId, have: Have) -> Catch;

    /// Ends when there may be something to tell although no list was changed.
    fn stirred(&mut self, app: &App) -> impl Future<Output = ()> + Send;
}

/// Answers with a stream about the groups of `have`.
pub(crate) fn answer<L: Listener>(
    app: App,
    listener: L,
    have: BTreeMap<GroupId, Have>,
    drain: Option<Drain>,
    seat: Seat,
) -> Response {
    let follower = Follower::new(app, listener, have, drain, seat);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that collect answers before they pass them on would hold every event back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    // In a box: what makes the next bytes would hold a second follower beside this one.
    (headers, Body::from_stream(unfold(Box::new(follower), Follower::next))).into_response()
}

/// One open stream.
struct Follower<L> {
    app: App,
    listener: L,
    /// What the follower was told of each group.
    have: Vec<(GroupId, Have)>,
    moved: StreamMap<GroupId, WatchStream<Revision>>,
    access: watch::Receiver<u64>,
    stopped: watch::Receiver<Option<Stopped>>,
    drain: Option<Drain>,
    /// What was made for the follower and not yet taken; never more than one step of each group.
    ready: VecDeque<Bytes>,
    /// When bytes were last made for it: what tells a follower nothing breaks no silence.
    silent_since: Instant,
    ends_at: Instant,
    _seat: Seat,
}

impl<L: Listener> Follower<L> {
    fn new(
        app: App,
        listener: L,
        have: BTreeMap<GroupId, Have>,
        drain: Option<Drain>,
        seat: Seat,
    ) -> Follower<L> {
        let age = AGE_SECS_MAX - app.spread() % (AGE_SECS_MAX / 2);
        let engine = app.engine().clone();
        let mut follower = Follower {
            listener,
            have: Vec::with_capacity(have.len()),
            moved: StreamMap::new(),
            access: engine.watch_access(),
            stopped: engine.watch_stopped(),
            drain,
            ready: VecDeque::new(),
            silent_since: Instant::now(),
            ends_at: Instant::now() + Duration::from_secs(age),
            _seat: seat,
            app,
        };
        for (group, have) in have {
            let moved = {
                let state = engine.state();
                // Watched before it is read: no commit falls between.
                let moved = engine.feed().subscribe(&state, group);
                moved.filter(|_| follower.listener.may_read(&state, group))
            };
            match moved {
                Some(moved) => {
                    follower.moved.insert(group, WatchStream::from_changes(moved));
                    let catch = follower.listener.welcome(&follower.app, group, have);
                    follower.take(group, catch);
                }
                None => follower.withdraw(group),
            }
        }
        follower
    }

    /// The next bytes; `None` ends the stream.
    async fn next(mut self: Box<Self>) -> Option<(Result<Bytes, Infallible>, Box<Self>)> {
        loop {
            if !self.is_allowed() {
                return None;
            }
            if let Some(bytes) = self.ready.pop_front() {
                self.silent_since = Instant::now();
                return Some((Ok(bytes), self));
            }
            match self.wait().await? {
                Woken::Moved(group) => self.tell(group),
                Woken::Stirred => self.followed().into_iter().for_each(|group| self.tell(group)),
                Woken::Access => {}
                Woken::Silence => self.ready.push_back(COMMENT),
            }
        }
    }

    /// Waits for anything to do; `None` when the stream has to end.
    async fn wait(&mut self) -> Option<Woken> {
        let rights_last = {
            let engine = self.app.engine();
            self.listener.counts_for(&engine.state(), engine.now())
        };
        let silence = self.silent_since + COMMENT_EVERY;
        let rights_end = rights_last.map(|left| Instant::now() + left.max(RIGHTS_WAIT_MIN));
        // One timer for all that time alone brings.
        let due = rights_end.map_or(silence, |end| end.min(silence)).min(self.ends_at);
        let told_to_stop = async {
            match &mut self.drain {
                Some(drain) => drain.requested().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.access.changed() => changed.ok().map(|()| Woken::Access),
            _ = self.stopped.wait_for(Option::is_some) => None,
            () = told_to_stop => None,
            () = sleep_until(due) => match due {
                _ if due == self.ends_at => None,
                _ if due == silence => Some(Woken::Silence),
                _ => Some(Woken::Access),
            },
            Some((group, _)) = self.moved.next() => Some(Woken::Moved(group)),
            () = self.listener.stirred(&self.app) => Some(Woken::Stirred),
        }
    }

    /// Asks again for the follower's rights: groups that were taken away are withdrawn. False
    /// when the right to the stream is gone.
    fn is_allowed(&mut self) -> bool {
        let engine = self.app.engine().clone();
        let now = engine.now();
        let state = engine.state();
        if !self.listener.is_let_in(&state, now) || self.access.has_changed().is_err() {
            return false;
        }
        self.access.borrow_and_update();
        for group in self.followed() {
            if !self.listener.may_read(&state, group) {
                self.withdraw(group);
            }
        }
        true
    }

    fn followed(&self) -> Vec<GroupId> {
        self.have.iter().map(|(group, _)| *group).collect()
    }

    /// Makes ready what leads the follower on.
    fn tell(&mut self, group: GroupId) {
        let have = self.have.iter().find(|(known, _)| *known == group).and_then(|(_, have)| *have);
        let catch = self.listener.catch_up(&self.app, group, have);
        self.take(group, catch);
    }

    fn take(&mut self, group: GroupId, catch: Catch) {
        match self.have.iter_mut().find(|(known, _)| *known == group) {
            Some((_, have)) => *have = catch.position,
            None => self.have.push((group, catch.position)),
        }
        self.ready.extend(catch.events);
    }

    fn withdraw(&mut self, group: GroupId) {
        self.moved.remove(&group);
        self.have.retain(|(known, _)| *known != group);
        let withdrawn = StreamEvent::Withdrawn(Withdrawn { group }).to_sse();
        self.ready.push_back(withdrawn.expect("an id can be written").into());
    }
}

enum Woken {
    Moved(GroupId),
    Stirred,
    Access,
    Silence,
}
