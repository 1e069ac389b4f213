//! `/groups/{id}/ips`: what a group allows now.
//!
//! As JSON, or in a form of [`postern_shared::format`]. An empty list is a success with 0 in
//! `Postern-Entries`, an unknown one is 404: whoever pipes a list into a firewall can tell "nobody"
//! from "I cannot say". A form without deadlines has a strong tag. One that carries the seconds left
//! has a weak one, and no cache may keep it: read a second time it would lengthen every deadline. To
//! who has loaded it, 304 says that what was loaded still counts down to the right time.

mod asked;
mod written;

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use postern_shared::format::{Format, flat};
use postern_shared::ids::{Epoch, GroupId};
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{Entry, Envelope, GroupIps, ListedEntry};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::asked::{Asked, AskedQuery, Form};
use self::written::Text;
pub(crate) use self::written::Written;
use super::auth::Reader;
use super::document::{GroupPath, IfNoneMatch, PreferWait};
use super::{group_id, prefer};
use crate::app::App;
use crate::domain::{GroupRow, State as Orgs};
use crate::http::etag::{EntityTag, is_known};
use crate::http::{Answer, ApiError};
use crate::server::Drain;

/// Shortest wait for a deadline to pass, so that the clocks of the plane and of its timers may
/// differ without a busy loop.
const DEADLINE_WAIT_MIN: Duration = Duration::from_millis(1);

/// Header fields that an answer has when it leaves.
const HEADERS_USUAL: usize = 8;

/// The plane's time of a list: most forms have no place for it.
const POSTERN_AS_OF: HeaderName = HeaderName::from_static("postern-as-of");
/// How many entries there are in the list that a form was made of.
const POSTERN_ENTRIES: HeaderName = HeaderName::from_static("postern-entries");

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Tells what a group allows now.
///
/// Without `format` as JSON with deadlines and origins. The ETag changes with every entry that
/// comes, goes or expires; `Prefer: wait=30` holds the answer until it does. An agent is not told
/// who is behind an entry.
#[utoipa::path(
    get, path = "/api/v1/groups/{id}/ips", operation_id = "getGroupIps", tag = "lists",
    params(GroupPath, AskedQuery, IfNoneMatch, PreferWait),
    security(("key" = ["groups.read"]), ("agent" = [])),
    responses(
        (status = 200, description = "The list", content(
            (Envelope<GroupIps> = "application/json"),
            (String = "text/plain; charset=utf-8"),
            (String = "text/csv; charset=utf-8; header=present"),
        ), headers(
            ("ETag" = String, description = "The version of the list"),
            ("Postern-As-Of" = String, description = "The control plane's time of the list"),
            ("Postern-Entries" = u64, description = "How many entries the list has"),
        )),
        (status = 304, description = "The list is as `If-None-Match` names it",
            headers(("ETag" = String, description = "The version of the list"))),
    ),
)]
async fn show(
    State(app): State<App>,
    reader: Reader,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::read(request.uri())?;
    let headers = request.headers();
    let group = find(&app.engine().state(), &reader, &id)?;
    let wait = prefer::wait(headers);
    let drain = request.extensions().get().cloned();
    let known = Known { app: &app, reader, group, asked, headers };
    if let Some(wait) = wait {
        known.hold(Instant::now() + wait, drain).await?;
    }
    let mut response = known.answer()?;
    if let Some(wait) = wait {
        let (name, value) = prefer::applied(wait);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn find(state: &Orgs, reader: &Reader, id: &str) -> Result<GroupId, ApiError> {
    let group = group_id(state, reader.org(), id)?;
    if reader.may_read(state, group) { Ok(group) } else { Err(ApiError::NotFound) }
}

/// A request for a list, perhaps with what the client knows of it already.
struct Known<'a> {
    app: &'a App,
    reader: Reader,
    group: GroupId,
    asked: Asked,
    headers: &'a HeaderMap,
}

impl Known<'_> {
    /// Waits until the list is not what the client knows, or `until`, or the server has to stop.
    async fn hold(&self, until: Instant, mut drain: Option<Drain>) -> Result<(), ApiError> {
        let engine = self.app.engine();
        let mut access = engine.watch_access();
        let Some(mut moved) = engine.feed().subscribe(&engine.state(), self.group) else {
            return Err(ApiError::NotFound);
        };
        let told_to_stop = async {
            match drain.as_mut() {
                Some(drain) => drain.requested().await,
                None => std::future::pending().await,
            }
        };
        let mut told_to_stop = std::pin::pin!(told_to_stop);
        loop {
            let (is_known, deadline) = self.look()?;
            if !is_known {
                return Ok(());
            }
            let deadline = deadline.map_or(until, |left| until.min(Instant::now() + left));
            tokio::select! {
                changed = moved.changed() => if changed.is_err() { return Ok(()) },
                changed = access.changed() => if changed.is_err() { return Ok(()) },
                () = told_to_stop.as_mut() => return Ok(()),
                () = sleep_until(deadline) => if until <= Instant::now() { return Ok(()) },
            }
        }
    }

    /// Says whether the client knows the list as it is, and when the next entry of it expires.
    fn look(&self) -> Result<(bool, Option<Duration>), ApiError> {
        let (state, now) = (self.app.engine().state(), self.app.engine().now());
        let row = self.row(&state, now)?;
        let tag = self.tag(&state, row, now);
        let next = row.list.next_deadline_after(now);
        let left = next.map(|deadline| deadline.since(now).max(DEADLINE_WAIT_MIN));
        Ok((is_known(self.headers, &tag)?, left))
    }

    /// Answers with the list as it is now. Rights are looked at again: they may have been lost
    /// while the answer was held back.
    fn answer(&self) -> Result<Response, ApiError> {
        let (state, now) = (self.app.engine().state(), self.app.engine().now());
        let row = self.row(&state, now)?;
        let tag = self.tag(&state, row, now);
        if is_known(self.headers, &tag)? {
            let mut unchanged = StatusCode::NOT_MODIFIED.into_response();
            let headers = unchanged.headers_mut();
            // Room for what is added on the way out, too.
            headers.reserve(HEADERS_USUAL);
            headers.insert(ETAG, tag.to_header());
            headers.insert(CACHE_CONTROL, self.cache_control());
            return Ok(unchanged);
        }
        match self.asked.form {
            Form::Json => {
                let ips = self.list(&state, row, now);
                drop(state);
                let answer = Answer::ok(&ips).with_etag(&tag).revalidated();
                Ok((about(now, ips.entries.len()), answer).into_response())
            }
            Form::File(format) => {
                let text = self.text(format, row, &tag, now);
                drop(state);
                Ok(self.file(format, text, &tag, now))
            }
        }
    }

    fn row<'s>(&self, state: &'s Orgs, now: Timestamp) -> Result<&'s GroupRow, ApiError> {
        self.reader.check(state, now)?;
        let row = state.group(self.group).filter(|_| self.reader.may_read(state, self.group));
        row.ok_or(ApiError::NotFound)
    }

    /// The version of the answer: all of it but the time at which it is given. What has expired
    /// is no part of it, so it changes at every deadline.
    fn tag(&self, state: &Orgs, row: &GroupRow, now: Timestamp) -> EntityTag {
        let digest = row.list.digest_at(now).to_be_bytes();
        let (form, name, table) = self.asked.parts();
        let sources = if self.has_sources() { self.source_hash(state, row, now) } else { [0; 32] };
        let tag = EntityTag::strong(&[
            row.record.id.as_bytes(),
            self.epoch().as_bytes(),
            &row.list_revision.0.to_be_bytes(),
            &digest,
            &form,
            name,
            table,
            &self.loading(now).to_be_bytes(),
            &sources,
        ]);
        if self.counts_down() { tag.weakened() } else { tag }
    }

    /// Whether the form carries the seconds that are left, and so is another one every second.
    fn counts_down(&self) -> bool {
        self.left_secs_max().is_some()
    }

    fn left_secs_max(&self) -> Option<u64> {
        match self.asked.form {
            Form::Json => None,
            Form::File(format) => format.left_secs_max(),
        }
    }

    /// Counts up often enough that an entry with more time left than the form can say is loaded
    /// again long before it would end.
    fn loading(&self, now: Timestamp) -> u64 {
        self.left_secs_max().map_or(0, |secs| now.unix_ms() / 1_000 / (secs / 2))
    }

    fn has_sources(&self) -> bool {
        self.asked.form == Form::Json && !self.reader.is_agent()
    }

    fn source_hash(&self, state: &Orgs, row: &GroupRow, now: Timestamp) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (network, _) in row.list.live_at(now) {
            hash.update([network.prefix()]);
            for source in state.sources(row, network) {
                hash.update([source.kind as u8]);
                hash.update(source.id.as_bytes());
                hash.update((source.name.len() as u64).to_be_bytes());
                hash.update(source.name.as_bytes());
            }
        }
        hash.finalize().into()
    }

    fn list(&self, state: &Orgs, row: &GroupRow, now: Timestamp) -> GroupIps {
        let live = row.list.live_at(now).filter(|(network, _)| self.asked.wants(*network));
        let has_sources = self.has_sources();
        let listed = |(cidr, expires_at)| {
            let sources = if has_sources { state.sources(row, cidr) } else { Vec::new() };
            ListedEntry::new(Entry { cidr, expires_at }, sources)
        };
        let entries: Vec<ListedEntry> = live.map(listed).collect();
        GroupIps {
            group: row.record.id,
            ips: entries.iter().map(|entry| flat(entry.cidr)).collect(),
            entries,
            as_of: now,
            epoch: self.epoch(),
            revision: row.list_revision,
            digest: row.list.digest_at(now),
        }
    }

    /// The list in a form of another program. What is right for longer than a moment is kept for
    /// whoever asks next.
    fn text(&self, format: Format, row: &GroupRow, tag: &EntityTag, now: Timestamp) -> Text {
        let wanted = || row.list.live_at(now).filter(|(network, _)| self.asked.wants(*network));
        let write = || Text {
            body: self.asked.rendering(format, row.record.number).write(wanted(), now).into(),
            entries: wanted().count(),
        };
        if self.counts_down() { write() } else { self.app.written().get(tag, write) }
    }

    fn file(&self, format: Format, text: Text, tag: &EntityTag, now: Timestamp) -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(format.media_type())),
            (CACHE_CONTROL, self.cache_control()),
            (ETAG, tag.to_header()),
        ];
        (about(now, text.entries), headers, text.body).into_response()
    }

    fn cache_control(&self) -> HeaderValue {
        let may_be_kept = if self.counts_down() { "no-store" } else { "private, no-cache" };
        HeaderValue::from_static(may_be_kept)
    }

    fn epoch(&self) -> Epoch {
        self.app.engine().epoch()
    }
}

/// What is told of a list in every form.
fn about(now: Timestamp, entries: usize) -> [(HeaderName, HeaderValue); 2] {
    let as_of = HeaderValue::try_from(now.to_string()).expect("a time is plain text");
    [(POSTERN_AS_OF, as_of), (POSTERN_ENTRIES, HeaderValue::from(entries))]
}
