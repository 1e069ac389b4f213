//! `/groups/{id}/ips`: what a group allows now.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use postern_shared::ids::{Epoch, GroupId};
use postern_shared::network::{Family, Network};
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::{Entry, GroupIps, ListedEntry};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};

use super::auth::Reader;
use super::{group_id, prefer};
use crate::app::App;
use crate::domain::{GroupRow, State as Orgs};
use crate::http::etag::{EntityTag, is_known};
use crate::http::{Answer, ApiError};
use crate::server::Drain;

/// Shortest wait for a deadline to pass, so that the clocks of the plane and of its timers may
/// differ without a busy loop.
const DEADLINE_WAIT_MIN: Duration = Duration::from_millis(1);

/// Which form of the list is asked for.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    format: Format,
    family: Option<FamilyName>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    /// One address or network a line.
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum FamilyName {
    #[serde(rename = "4")]
    V4,
    #[serde(rename = "6")]
    V6,
}

pub(super) fn routes() -> Router<App> {
    Router::new().route("/groups/{id}/ips", get(show))
}

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

impl Asked {
    fn read(uri: &Uri) -> Result<Asked, ApiError> {
        let Query(asked) = Query::try_from_uri(uri)
            .map_err(|error| ApiError::BadRequest { detail: error.body_text() })?;
        Ok(asked)
    }

    fn wants(self, network: Network) -> bool {
        match self.family {
            None => true,
            Some(FamilyName::V4) => network.family() == Family::V4,
            Some(FamilyName::V6) => network.family() == Family::V6,
        }
    }
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
            let cached = HeaderValue::from_static("private, no-cache");
            let headers = [(ETAG, tag.to_header()), (CACHE_CONTROL, cached)];
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        Ok(match self.asked.format {
            Format::Json => {
                let ips = self.list(&state, row, now);
                drop(state);
                Answer::ok(&ips).with_etag(&tag).revalidated().into_response()
            }
            Format::Text => text(self.lines(row, now), &tag),
        })
    }

    fn row<'s>(&self, state: &'s Orgs, now: Timestamp) -> Result<&'s GroupRow, ApiError> {
        self.reader.check(state, now)?;
        let row = state.group(self.group).filter(|_| self.reader.may_read(state, self.group));
        row.ok_or(ApiError::NotFound)
    }

    /// The version of the answer: all of it but the time at which it is given. What has expired
    /// is no part of it, so it changes at every deadline.
    fn tag(&self, state: &Orgs, row: &GroupRow, now: Timestamp) -> EntityTag {
        let digest = row.list.digest_at(now).to_string();
        let form =
            [self.asked.format as u8, self.asked.family.map_or(0, |family| family as u8 + 1)];
        let sources = if self.has_sources() { self.source_hash(state, row, now) } else { [0; 32] };
        EntityTag::strong(&[
            row.record.id.as_bytes(),
            self.epoch().as_bytes(),
            &row.list_revision.0.to_be_bytes(),
            digest.as_bytes(),
            &form,
            &sources,
        ])
    }

    fn has_sources(&self) -> bool {
        self.asked.format == Format::Json && !self.reader.is_agent()
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

    fn lines(&self, row: &GroupRow, now: Timestamp) -> String {
        let live = row.list.live_at(now).filter(|(network, _)| self.asked.wants(*network));
        live.map(|(network, _)| flat(network) + "\n").collect()
    }

    fn epoch(&self) -> Epoch {
        self.app.engine().epoch()
    }
}

fn text(lines: String, tag: &EntityTag) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
        (ETAG, tag.to_header()),
    ];
    (headers, lines).into_response()
}

/// A network as most programs want it: a host without its prefix length.
fn flat(network: Network) -> String {
    if network.is_host() {
        let address: IpAddr = network.address();
        return address.to_string();
    }
    network.to_string()
}
