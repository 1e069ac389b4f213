//! The audit.

use postern_shared::ids::OrgId;

use super::answer::{Answer, AuditOpened, AuditStray, Page};
use super::request::{Operation, Request};
use super::{OperatorError, PAGE_ITEMS_MAX, find};
use crate::audit::{Entry, Filter, NO_ORG, Place, RecordView, from_hex, to_hex};
use crate::engine::Engine;

/// Answers what is about the audit of the whole plane, or of one org when that is named; nothing
/// to other requests.
pub(super) async fn of_the_plane(
    engine: &Engine,
    request: &Request,
) -> Result<Option<Answer>, OperatorError> {
    Ok(Some(match &request.operation {
        Operation::OpenAudit { since, until } => {
            let named = request.org.as_ref();
            let org =
                named.map(|org| find::org(&engine.state(), Some(org)).map(|row| row.record.id));
            let (org, since, until) = (org.transpose()?, *since, *until);
            engine.sign_audit().await;
            let now = engine.now();
            let opened = engine.read_audit(move |audit| audit.open(org, since, until, now)).await?;
            let (opening, lines) = opened;
            Answer::AuditOpened(AuditOpened { opening, lines, key: engine.audit_key() })
        }
        Operation::ReadAudit { opening, from } => {
            let (opening, from) = (opening.clone(), *from);
            Answer::AuditPart(engine.read_audit(move |audit| audit.part(&opening, from)).await?)
        }
        Operation::FindStray { after } => {
            let after = after.as_deref().and_then(from_hex).unwrap_or_default();
            let (found, last) = engine.read_audit(move |audit| audit.stray(&after)).await?;
            Answer::AuditStray(AuditStray { found, next: last.map(|last| to_hex(&last)) })
        }
        Operation::ListAudit { no_org: true, filter, limit, after, .. } => {
            list(engine, NO_ORG, (filter.clone(), *limit), *after).await?
        }
        Operation::MintKey { .. }
        | Operation::ListKeys { .. }
        | Operation::RevokeKey { .. }
        | Operation::AddPair { .. }
        | Operation::ListPairs { .. }
        | Operation::RemovePair { .. }
        | Operation::AddGroup { .. }
        | Operation::ListGroups { .. }
        | Operation::ShowGroup { .. }
        | Operation::ListMembers { .. }
        | Operation::RemoveGroup { .. }
        | Operation::AddMember { .. }
        | Operation::RemoveMember { .. }
        | Operation::InviteAgent { .. }
        | Operation::ListAgents { .. }
        | Operation::SetAgentGroups { .. }
        | Operation::RevokeAgent { .. }
        | Operation::ClosePair { .. }
        | Operation::NarrowKey { .. }
        | Operation::RotateBookmark { .. }
        | Operation::RotateServerKey { .. }
        | Operation::MintLockedKey { .. }
        | Operation::ListAudit { .. }
        | Operation::InviteUser { .. }
        | Operation::ListUsers { .. }
        | Operation::SetUserRole { .. }
        | Operation::RemoveUser { .. }
        | Operation::RecoverUser { .. } => return Ok(None),
    }))
}

/// Lists the newest records of an org that are older than `after`.
pub(super) async fn list(
    engine: &Engine,
    org: OrgId,
    (filter, limit): (Filter, usize),
    after: Option<Place>,
) -> Result<Answer, OperatorError> {
    let limit = limit.clamp(1, PAGE_ITEMS_MAX);
    let found = engine.read_audit(move |audit| audit.page(org, &filter, after, limit)).await?;
    let state = engine.state();
    let view = |entry: &Entry| RecordView::with_name(entry.place, &entry.record, &state);
    let items = found.entries.iter().map(view).collect();
    Ok(Answer::Audit(Page { items, next: found.next }))
}
