//! `audit`: lists, exports and verifies what happened.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use postern_shared::time::Timestamp;

use super::Failure;
use super::desk::Desk;
use crate::audit::{Broken, Filter, Hex, Line, Locator, RecordView, Tip, Verified, Verifier, What};
use crate::operator::{Answer, AuditOpened, Operation, Reference};

/// Longest line of an export, in bytes: a link of the largest commit is far shorter.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most records of one question.
const PAGE_LEN: usize = 1_000;

/// Why an audit could not be verified to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum VerifyError {
    #[error("the audit is not as it was written: {0}")]
    Broken(Broken),
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("line {line} of {} is no line of an audit", path.display())]
    Line {
        path: PathBuf,
        line: u64,
        #[source]
        source: Option<serde_json::Error>,
    },
}

/// Which records are to be listed.
pub(super) struct Asked {
    pub(super) no_org: bool,
    pub(super) filter: Filter,
    /// The group that they name, which the plane finds.
    pub(super) group: Option<Reference>,
}

/// Reads the newest records, as many as asked for.
pub(super) async fn newest(
    desk: &Desk,
    Asked { no_org, filter, group }: Asked,
    count: usize,
) -> Result<(Vec<RecordView>, Timestamp), Failure> {
    let (mut records, mut after): (Vec<RecordView>, _) = (Vec::new(), None);
    loop {
        let limit = PAGE_LEN.min(count.saturating_sub(records.len()));
        let (filter, group) = (filter.clone(), group.clone());
        let operation = Operation::ListAudit { no_org, filter, group, limit, after };
        let reply = desk.ask(operation).await?;
        let Answer::Audit(page) = reply.answer else { return Err(Failure::Mismatch) };
        records.extend(page.items);
        after = page.next;
        if after.is_none() || count <= records.len() {
            return Ok((records, reply.as_of));
        }
    }
}

/// Hands every line of an export to `sink`, as they come.
pub(super) async fn export(
    desk: &Desk,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    mut sink: impl FnMut(Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let opened = open(desk, since, until).await?;
    lines(desk, &opened, &mut sink).await
}

/// Verifies the plane's own audit. `key` must have signed, the plane's own one unless given.
pub(super) async fn verify(
    desk: &Desk,
    key: Option<Hex<32>>,
    known: Option<Tip>,
) -> Result<Verified, Failure> {
    let opened = open(desk, None, None).await?;
    let mut verifier = Verifier::new(key.or(opened.key), known);
    let walked = lines(desk, &opened, &mut |line| verifier.take(line).map_err(broken)).await;
    let verified = match walked.and_then(|()| verifier.finish().map_err(broken)) {
        Ok(verified) => verified,
        Err(Failure::Verify(VerifyError::Broken(found))) => {
            let Some(locator) = Locator::of(&found) else { return Err(broken(found)) };
            let mut from = None;
            lines(desk, &opened, &mut |line| {
                from = from.or(locator.look(&line));
                Ok(())
            })
            .await?;
            return Err(broken(located(found, from)));
        }
        Err(failure) => return Err(failure),
    };
    no_stray(desk).await?;
    Ok(verified)
}

/// Verifies a file that `export` has written.
pub(super) fn verify_file(
    path: &Path,
    key: Option<Hex<32>>,
    known: Option<Tip>,
) -> Result<Verified, VerifyError> {
    let mut verifier = Verifier::new(key, known);
    let walked = file_lines(path, |line| verifier.take(line).map_err(VerifyError::Broken));
    match walked.and_then(|()| verifier.finish().map_err(VerifyError::Broken)) {
        Err(VerifyError::Broken(found)) => {
            let Some(locator) = Locator::of(&found) else { return Err(VerifyError::Broken(found)) };
            let mut from = None;
            file_lines(path, |line| {
                from = from.or(locator.look(&line));
                Ok(())
            })?;
            Err(VerifyError::Broken(located(found, from)))
        }
        other => other,
    }
}

async fn open(
    desk: &Desk,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<AuditOpened, Failure> {
    let answer = desk.ask(Operation::OpenAudit { since, until }).await?.answer;
    let Answer::AuditOpened(opened) = answer else { return Err(Failure::Mismatch) };
    Ok(opened)
}

async fn lines(
    desk: &Desk,
    opened: &AuditOpened,
    sink: &mut impl FnMut(Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    opened.lines.iter().cloned().try_for_each(&mut *sink)?;
    let mut next = Some(opened.opening.first);
    while let Some(from) = next {
        let operation = Operation::ReadAudit { opening: opened.opening.clone(), from };
        let Answer::AuditPart(part) = desk.ask(operation).await?.answer else {
            return Err(Failure::Mismatch);
        };
        part.lines.into_iter().try_for_each(&mut *sink)?;
        next = part.next;
    }
    Ok(())
}

async fn no_stray(desk: &Desk) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let answer = desk.ask(Operation::FindStray { after }).await?.answer;
        let Answer::AuditStray(stray) = answer else { return Err(Failure::Mismatch) };
        if let Some(found) = stray.found {
            let (org, place) = found.at.unzip();
            return Err(broken(Broken { place, org, what: What::RecordExtra }));
        }
        match stray.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn file_lines(
    path: &Path,
    mut sink: impl FnMut(Line) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let failed = |source| VerifyError::File { path: path.to_owned(), source };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    for number in 1.. {
        text.clear();
        let read = io::Read::take(&mut reader, limit).read_until(b'\n', &mut text);
        if read.map_err(failed)? == 0 {
            break;
        }
        let unread = |source| VerifyError::Line { path: path.to_owned(), line: number, source };
        if !text.ends_with(b"\n") {
            return Err(unread(None));
        }
        sink(serde_json::from_slice(&text).map_err(|error| unread(Some(error)))?)?;
    }
    Ok(())
}

/// Says from where a record was moved, where that was found out.
fn located(found: Broken, from: Option<crate::audit::Place>) -> Broken {
    match from {
        Some(from) => Broken { what: What::RecordMoved { from }, ..found },
        None => found,
    }
}

fn broken(broken: Broken) -> Failure {
    Failure::Verify(VerifyError::Broken(broken))
}
