//! `/console/audit/verify` and `/console/audit/export`: the chain, checked here or taken along.

use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::unfold;

use crate::api::audit::unreadable;
use crate::audit::{AuditError, Broken, Line, Opening, Verified, Verifier};
use crate::console::gate::Viewer;
use crate::console::show::When;
use crate::engine::Engine;
use crate::http::ApiError;
use crate::people::private;

/// Most parts that are verified for a page: about a million commits. A longer chain is verified on
/// the host.
const PARTS_MAX: usize = 4_096;
/// How often a part is asked for while others read, and how long to wait between.
const BUSY_TRIES_MAX: u32 = 100;
const BUSY_WAIT: Duration = Duration::from_millis(50);

#[derive(Template)]
#[template(path = "console/audit/verified.html")]
/// What the walk found; neither where the chain is too long for a page.
struct VerifiedPage {
    verified: Option<Shown>,
    /// The first thing that is wrong.
    broken: Option<String>,
}

/// What was found to be in order.
struct Shown {
    records: u64,
    last: u64,
    since: Option<When>,
    until: Option<When>,
    signed: Option<u64>,
    key: String,
    pruned: Option<When>,
}

/// What became of a part.
enum Walked {
    On(Box<Verifier>, Option<u64>),
    Broken(Broken),
}

pub(super) async fn verify(viewer: Viewer) -> Result<Response, ApiError> {
    let page = match walk(&viewer).await? {
        None => VerifiedPage { verified: None, broken: None },
        Some(Ok(verified)) => VerifiedPage { verified: Some(Shown::of(&verified)), broken: None },
        Some(Err(broken)) => VerifiedPage { verified: None, broken: Some(broken.to_string()) },
    };
    Ok(viewer.show("The audit's chain", &page))
}

/// Walks over the chain, which has the org's records in it; none where it is too long for that.
async fn walk(viewer: &Viewer) -> Result<Option<Result<Verified, Broken>>, ApiError> {
    let engine = viewer.app.engine();
    let (opening, lines) = open(viewer).await?;
    let mut verifier = Box::new(Verifier::new(engine.audit_key(), None));
    if let Err(broken) = lines.into_iter().try_for_each(|line| verifier.take(line)) {
        return Ok(Some(Err(broken)));
    }
    let mut next = Some(opening.first);
    for _ in 0..PARTS_MAX {
        let Some(from) = next else { return Ok(Some(verifier.finish())) };
        let opening = opening.clone();
        let walked = engine.read_audit(move |audit| {
            let part = audit.part(&opening, from)?;
            Ok(match part.lines.into_iter().try_for_each(|line| verifier.take(line)) {
                Ok(()) => Walked::On(verifier, part.next),
                Err(broken) => Walked::Broken(broken),
            })
        });
        match walked.await.map_err(unreadable)? {
            Walked::On(same, from) => (verifier, next) = (same, from),
            Walked::Broken(broken) => return Ok(Some(Err(broken))),
        }
    }
    Ok(None)
}

/// The org's part of the audit as lines of JSON, as `postern-controlplane audit verify --file`
/// takes them.
pub(super) async fn export(viewer: Viewer) -> Result<Response, ApiError> {
    let (opening, lines) = open(&viewer).await?;
    let first = written(&lines)?;
    let name = format!("postern-audit-{}.jsonl", &viewer.now().to_string()[..10]);
    let export = Export {
        engine: viewer.app.engine().clone(),
        next: Some(opening.first),
        opening,
        first: Some(first),
    };
    let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/jsonl; charset=utf-8")),
        (CONTENT_DISPOSITION, disposition.map_err(ApiError::internal)?),
    ];
    let body = Body::from_stream(unfold(export, Export::more));
    Ok(private((headers, body).into_response()))
}

async fn open(viewer: &Viewer) -> Result<(Opening, Vec<Line>), ApiError> {
    let (org, now) = (viewer.org(), viewer.now());
    let opened =
        viewer.app.engine().read_audit(move |audit| audit.open(Some(org), None, None, now));
    opened.await.map_err(unreadable)
}

/// An export on its way: one part is in memory, whatever the length of the audit.
struct Export {
    engine: Engine,
    opening: Opening,
    first: Option<Bytes>,
    next: Option<u64>,
}

impl Export {
    /// The next part; an error cuts the download off, so that nobody takes it for whole.
    async fn more(mut self) -> Option<(Result<Bytes, AuditError>, Export)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        let from = self.next.take()?;
        match self.part(from).await {
            Ok((bytes, next)) => {
                self.next = next;
                Some((Ok(bytes), self))
            }
            Err(error) => {
                tracing::warn!(%error, "an export of the audit was cut off");
                Some((Err(error), self))
            }
        }
    }

    async fn part(&self, from: u64) -> Result<(Bytes, Option<u64>), AuditError> {
        let mut tries = 0;
        loop {
            let opening = self.opening.clone();
            let read = self.engine.read_audit(move |audit| {
                let part = audit.part(&opening, from)?;
                Ok((part.lines, part.next))
            });
            match read.await {
                Err(AuditError::Busy) if tries < BUSY_TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                Ok((lines, next)) => {
                    let bytes = written(&lines).expect("lines have fields of plain types");
                    return Ok((bytes, next));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn written(lines: &[Line]) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).map_err(ApiError::internal)?;
        bytes.push(b'\n');
    }
    Ok(bytes.into())
}

impl Shown {
    fn of(verified: &Verified) -> Shown {
        Shown {
            records: verified.records,
            last: verified.last,
            since: verified.since.map(When),
            until: verified.until.map(When),
            signed: verified.signed,
            key: verified.key.map(|key| key.to_string()).unwrap_or_default(),
            pruned: verified.pruned.map(When),
        }
    }
}
