//! `/stream`: lists followed as they change, as server-sent events.
//!
//! Nothing is queued for a follower: whenever it can take more, it is told what leads from what
//! it has to what there is. One that takes nothing is cut off by the server's write limit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use postern_shared::ids::{Epoch, GroupId, OrgId};
use postern_shared::position::{Follow, Revision};
use postern_shared::wire::v1::{StreamEvent, Withdrawn};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::StreamExt as _;
use tokio_stream::StreamMap;
use tokio_stream::wrappers::WatchStream;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Reader;
use crate::app::App;
use crate::domain::{Credential, State as Orgs};
use crate::engine::Stopped;
use crate::feed::{Catch, is_ahead};
use crate::http::ApiError;
use crate::server::Drain;

/// Most groups that one stream follows.
const GROUPS_MAX: usize = 256;
/// Most streams of one credential: an agent has one, and another while it changes over.
const STREAMS_BY_CREDENTIAL_MAX: usize = 16;
/// Most streams of one org, so that one alone cannot take the seats of all others.
const STREAMS_BY_ORG_MAX: usize = 10 * 1024;
/// Most streams altogether.
const STREAMS_MAX: usize = 12 * 1024;
/// When to try again where all streams are taken.
const FULL_RETRY: Duration = Duration::from_secs(15);
/// After this long without an event a comment says that the stream lives.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// The longest age of a stream, in seconds; the shortest is half of it, so that streams that
/// began together do not end together.
const AGE_SECS_MAX: u64 = 2 * 60 * 60;

/// Shortest wait for a right to end, so that the clocks of the plane and of its timers may differ
/// without a busy loop.
const RIGHTS_WAIT_MIN: Duration = Duration::from_millis(1);

const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// The query of a stream, for the API's document.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "this describes what `read` reads")]
struct StreamQuery {
    /// A group by its id, once for each; behind an `@` what the follower has of it:
    /// `<id>@<epoch>.<revision>.<digest>`.
    #[param(min_items = 1, max_items = 256)]
    group: Vec<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(open))
}

/// Follows lists as they change, as server-sent events.
///
/// The events are `same`, `delta`, `snapshot` and `withdrawn`, each with an object as its data. A
/// comment every 15 seconds says that the stream lives; it ends after some hours, and at once when
/// the right to it does.
#[utoipa::path(
    get, path = "/stream", operation_id = "followGroups", tag = "lists",
    params(StreamQuery),
    security(("key" = ["groups.read"]), ("agent" = [])),
    responses((status = 200, description = "The stream", body = String, content_type = "text/event-stream")),
)]
async fn open(
    State(app): State<App>,
    reader: Reader,
    request: Request,
) -> Result<Response, ApiError> {
    let follow = read(request.uri())?;
    let seat = app.seats().take(reader.org(), reader.0.credential)?;
    begin_epoch_if_restored(&app, &reader, &follow).await;
    let drain = request.extensions().get().cloned();
    let follower = Follower::new(app, reader, &follow, drain, seat);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies that collect answers before they pass them on would hold every event back.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(unfold(follower, Follower::next))).into_response())
}

/// Reads `group=…&group=…`, each a group with what the follower has of it.
fn read(uri: &Uri) -> Result<Vec<Follow>, ApiError> {
    let bad = |detail: String| ApiError::BadRequest { detail };
    let mut follow: BTreeMap<GroupId, Follow> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        if name != "group" {
            return Err(bad("the query has `group` only, once for each group".into()));
        }
        let one: Follow = value.parse().map_err(|error| bad(format!("`group`: {error}")))?;
        if follow.insert(one.group, one).is_some() {
            return Err(bad(format!("the query names the group {} twice", one.group)));
        }
        if GROUPS_MAX < follow.len() {
            return Err(bad(format!("a stream follows {GROUPS_MAX} groups at most")));
        }
    }
    if follow.is_empty() {
        return Err(bad("name the groups to follow: `?group=<id>`".into()));
    }
    Ok(follow.into_values().collect())
}

/// Begins a new epoch when a follower knows more of this one than the store does: then the store
/// is an older copy, whose revisions are given again for other lists.
async fn begin_epoch_if_restored(app: &App, reader: &Reader, follow: &[Follow]) {
    let engine = app.engine();
    let epoch = engine.epoch();
    let is_behind = {
        let state = engine.state();
        follow.iter().any(|follow| {
            let row = state.group(follow.group).filter(|_| reader.may_read(&state, follow.group));
            let ahead = |newest| follow.have.is_some_and(|have| is_ahead(have, epoch, newest));
            row.is_some_and(|row| ahead(row.list_revision))
        })
    };
    if is_behind && app.may_begin_epoch(engine.now()) {
        engine.replace_epoch(epoch).await;
    }
}

/// One open stream.
struct Follower {
    app: App,
    reader: Reader,
    /// What the follower was told of each group.
    have: BTreeMap<GroupId, Option<(Epoch, Revision)>>,
    moved: StreamMap<GroupId, WatchStream<Revision>>,
    access: watch::Receiver<u64>,
    stopped: watch::Receiver<Option<Stopped>>,
    drain: Option<Drain>,
    /// What was made for the follower and not yet taken; never more than one step of each group.
    ready: VecDeque<Bytes>,
    ends_at: Instant,
    _seat: Seat,
}

impl Follower {
    fn new(
        app: App,
        reader: Reader,
        follow: &[Follow],
        drain: Option<Drain>,
        seat: Seat,
    ) -> Follower {
        let age = AGE_SECS_MAX - app.spread() % (AGE_SECS_MAX / 2);
        let engine = app.engine().clone();
        let have = follow.iter().map(|follow| {
            let position = follow.have.map(|have| (have.epoch, have.revision));
            (follow.group, position)
        });
        let mut follower = Follower {
            reader,
            have: have.collect(),
            moved: StreamMap::new(),
            access: engine.watch_access(),
            stopped: engine.watch_stopped(),
            drain,
            ready: VecDeque::new(),
            ends_at: Instant::now() + Duration::from_secs(age),
            _seat: seat,
            app,
        };
        let state = engine.state();
        for one in follow {
            // Watched before it is read: no commit falls between.
            match engine.feed().subscribe(&state, one.group) {
                Some(moved) if reader.may_read(&state, one.group) => {
                    follower.moved.insert(one.group, WatchStream::from_changes(moved));
                    let (epoch, now) = (engine.epoch(), engine.now());
                    let have = follower.have.get(&one.group).copied().flatten();
                    let catch = engine.feed().welcome(&state, epoch, one.group, have, now);
                    follower.take(one.group, catch);
                }
                Some(_) | None => follower.withdraw(one.group),
            }
        }
        follower
    }

    /// The next bytes; `None` ends the stream.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Follower)> {
        loop {
            if !self.is_allowed() {
                return None;
            }
            if let Some(bytes) = self.ready.pop_front() {
                return Some((Ok(bytes), self));
            }
            let group = self.wait().await?;
            match group {
                Woken::Moved(group) => {
                    let engine = self.app.engine().clone();
                    self.tell(&engine.state(), group);
                }
                Woken::Access => {}
                Woken::Silence => self.ready.push_back(COMMENT),
            }
        }
    }

    /// Waits for anything to do; `None` when the stream has to end.
    async fn wait(&mut self) -> Option<Woken> {
        let rights_end = {
            let engine = self.app.engine();
            self.reader.counts_for(&engine.state(), engine.now())
        };
        let rights_end = async {
            match rights_end {
                Some(left) => sleep(left.max(RIGHTS_WAIT_MIN)).await,
                None => std::future::pending().await,
            }
        };
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
            () = sleep_until(self.ends_at) => None,
            () = rights_end => Some(Woken::Access),
            Some((group, _)) = self.moved.next() => Some(Woken::Moved(group)),
            () = sleep(COMMENT_EVERY) => Some(Woken::Silence),
        }
    }

    /// Asks again for the follower's rights: groups that were taken away are withdrawn. False
    /// when the credential is gone or no longer works from where the follower is.
    fn is_allowed(&mut self) -> bool {
        let engine = self.app.engine().clone();
        let now = engine.now();
        let state = engine.state();
        if self.reader.check(&state, now).is_err() || self.access.has_changed().is_err() {
            return false;
        }
        self.access.borrow_and_update();
        let followed: Vec<GroupId> = self.have.keys().copied().collect();
        for group in followed {
            if !self.reader.may_read(&state, group) {
                self.withdraw(group);
            }
        }
        true
    }

    /// Makes ready what leads the follower on.
    fn tell(&mut self, state: &Orgs, group: GroupId) {
        let engine = self.app.engine();
        let (epoch, now) = (engine.epoch(), engine.now());
        let have = self.have.get(&group).copied().flatten();
        let catch = engine.feed().catch_up(state, epoch, group, have, now);
        self.take(group, catch);
    }

    fn take(&mut self, group: GroupId, catch: Catch) {
        self.have.insert(group, catch.position);
        self.ready.extend(catch.events);
    }

    fn withdraw(&mut self, group: GroupId) {
        self.moved.remove(&group);
        self.have.remove(&group);
        let withdrawn = StreamEvent::Withdrawn(Withdrawn { group }).to_sse();
        self.ready.push_back(withdrawn.expect("an id can be written").into());
    }
}

enum Woken {
    Moved(GroupId),
    Access,
    Silence,
}

/// The streams that are open.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_org: BTreeMap<OrgId, usize>,
    by_credential: BTreeMap<Credential, usize>,
}

/// The right to one stream; given back when dropped.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    org: OrgId,
    credential: Credential,
}

impl Taken {
    fn show(&self) {
        metrics::gauge!("postern_streams").set(self.all as f64);
    }
}

impl Seats {
    fn take(self: &Arc<Seats>, org: OrgId, credential: Credential) -> Result<Seat, ApiError> {
        let mut taken = self.lock();
        if STREAMS_MAX <= taken.all {
            let reason = "all streams are taken".to_owned();
            return Err(ApiError::Unavailable { reason, retry_after: FULL_RETRY });
        }
        let full = |what, max| ApiError::TooManyAtOnce { what, max, retry_after: FULL_RETRY };
        if STREAMS_BY_CREDENTIAL_MAX <= count(&taken.by_credential, &credential) {
            return Err(full("streams of one credential", STREAMS_BY_CREDENTIAL_MAX));
        }
        if STREAMS_BY_ORG_MAX <= count(&taken.by_org, &org) {
            return Err(full("streams of one org", STREAMS_BY_ORG_MAX));
        }
        taken.all += 1;
        taken.show();
        *taken.by_credential.entry(credential).or_default() += 1;
        *taken.by_org.entry(org).or_default() += 1;
        Ok(Seat { seats: Arc::clone(self), org, credential })
    }

    /// Says whether a credential has a stream open.
    pub(crate) fn is_taken_by(&self, credential: Credential) -> bool {
        self.lock().by_credential.contains_key(&credential)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all -= 1;
        taken.show();
        give_back(&mut taken.by_credential, self.credential);
        give_back(&mut taken.by_org, self.org);
    }
}

fn count<K: Ord>(taken: &BTreeMap<K, usize>, holder: &K) -> usize {
    taken.get(holder).copied().unwrap_or(0)
}

/// Takes one off; nothing is kept of who has none left.
fn give_back<K: Ord>(taken: &mut BTreeMap<K, usize>, holder: K) {
    if let Entry::Occupied(mut count) = taken.entry(holder) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use postern_shared::ids::KeyId;

    use super::*;

    #[test]
    fn one_org_cannot_take_the_streams_of_all_others() {
        let seats = Arc::new(Seats::default());
        let (one, other) = (OrgId::from_random([1; 16]), OrgId::from_random([2; 16]));
        let take = |org: OrgId, number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            seats.take(org, Credential::Key(org, KeyId::from_random(id)))
        };

        let all: Vec<Seat> =
            (0..STREAMS_BY_ORG_MAX).map(|number| take(one, number).unwrap()).collect();

        let refused = take(one, STREAMS_BY_ORG_MAX).unwrap_err();
        assert!(matches!(refused, ApiError::TooManyAtOnce { what: "streams of one org", .. }));
        let others = STREAMS_MAX - STREAMS_BY_ORG_MAX;
        let others: Vec<Seat> = (0..others).map(|number| take(other, number).unwrap()).collect();
        assert!(matches!(take(other, others.len()).unwrap_err(), ApiError::Unavailable { .. }));
        drop((all, others));
        let taken = seats.lock();
        assert_eq!((taken.all, taken.by_org.len(), taken.by_credential.len()), (0, 0, 0));
    }
}
