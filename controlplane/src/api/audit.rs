//! `/account/audit`: what happened in the caller's org, the newest first.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::Uri;
use postern_shared::ids::{GroupId, OrgId};
use postern_shared::time::Timestamp;
use postern_shared::wire::v1::Envelope;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{AccountRead, Holder};
use super::document::PagesOfAudit;
use super::known_group_id;
use crate::app::App;
use crate::audit::{Actors, AuditError, Filter, Kind, Place, RecordView};
use crate::http::paging::{Cursor, List, PageRequest};
use crate::http::{Answer, ApiError};

/// When to try again while others read.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Which records are asked for, beside the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// None from before this time.
    #[param(nullable = false)]
    since: Option<Timestamp>,
    /// None from this time or later.
    #[param(nullable = false)]
    until: Option<Timestamp>,
    /// Only those of this kind, such as `pair_reported`.
    #[param(inline, nullable = false)]
    kind: Option<Kind>,
    /// Only what these did: the id of a user, key, pair, agent or invitation, or a kind of actor.
    #[param(
        value_type = String,
        pattern = "^(operator|user|key|pair|agent|enrolment|unknown|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
        required = false,
        nullable = false
    )]
    actor: Option<Actors>,
    /// Only those that name this group, by its id or its number in the org; of one that is gone, by
    /// its id. They tell what happened to the group, to who is in it and to the hosts that follow
    /// it; where its pairs are, their own records tell.
    #[param(
        pattern = "^([0-9]{1,19}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$",
        nullable = false
    )]
    group: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists what happened in the org, the newest first.
///
/// A page looks at 10,000 records at most. Where a filter seldom holds, it may hold fewer records than
/// asked for, or none, while `meta.next_cursor` says where to go on: only a page without one is the last.
#[utoipa::path(
    get, path = "/api/v1/account/audit", operation_id = "listAudit", tag = "account",
    params(PagesOfAudit, Asked),
    security(("key" = ["account.read"])),
    responses((status = 200, description = "A page of records", body = Envelope<Vec<RecordView>>)),
)]
async fn list(
    State(app): State<App>,
    holder: Holder<AccountRead>,
    uri: Uri,
) -> Result<Answer, ApiError> {
    let page = PageRequest::read(&uri, &["since", "until", "kind", "actor", "group"])?;
    let Query(Asked { since, until, kind, actor, group }) =
        Query::try_from_uri(&uri).map_err(|error: axum::extract::rejection::QueryRejection| {
            ApiError::BadRequest { detail: error.body_text() }
        })?;
    let after = page.behind(List::Audit)?.map(Place::from_bytes);
    let (org, limit) = (holder.org, page.limit);
    let group = group.map(|text| group_named(&app, org, &text)).transpose()?;
    let filter = Filter { since, until, kind, actor, group };
    let found = app.engine().read_audit(move |audit| audit.page(org, &filter, after, limit)).await;
    let found = found.map_err(unreadable)?;

    let state = app.engine().state();
    let views = found.entries.iter();
    let views = views.map(|entry| RecordView::with_name(entry.place, &entry.record, &state));
    let views: Vec<RecordView> = views.collect();
    drop(state);
    Ok(Answer::page(&views, found.next.map(|place| Cursor::behind(List::Audit, &place.to_bytes()))))
}

fn group_named(app: &App, org: OrgId, text: &str) -> Result<GroupId, ApiError> {
    let group = known_group_id(&app.engine().state(), org, text);
    group.ok_or_else(|| ApiError::BadRequest {
        detail: "`group` must be the number of a group, or the id of one that may be gone"
            .to_owned(),
    })
}

/// Tells why the audit was not read.
pub(crate) fn unreadable(error: AuditError) -> ApiError {
    match error {
        AuditError::Busy => {
            ApiError::Unavailable { reason: error.to_string(), retry_after: BUSY_RETRY }
        }
        AuditError::Read(_) | AuditError::Unreadable { .. } | AuditError::Key(_) => {
            ApiError::internal(error)
        }
    }
}
