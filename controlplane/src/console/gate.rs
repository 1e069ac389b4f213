//! The gate in front of all pages: who is there, and what that person may do.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use postern_shared::ids::OrgId;
use postern_shared::time::Timestamp;

use super::fields::Fields;
use super::{ADMINS_ONLY, frame};
use crate::api::refusal::refused;
use crate::app::App;
use crate::domain::{Command, Factor, Role};
use crate::engine::Done;
use crate::health::Health;
use crate::http::ApiError;
use crate::http::border::{RequestId, take_failure};
use crate::http::limit::{Caller, Tier};
use crate::people::{Form, SignedIn, fresh_factor};

/// What is told where a code does not count.
const WRONG_CODE: &str = "the code is wrong or was used already, or there were too many tries: take \
                          the next one, and wait a while after several";

/// Whoever is signed in and looks at a page.
#[derive(Clone)]
pub(super) struct Viewer {
    pub(super) app: App,
    pub(super) signed_in: SignedIn,
    pub(super) health: Health,
    pub(super) uri: Uri,
    pub(super) request: RequestId,
}

/// An admin who has sent a form from a page of ours.
pub(super) struct Sent {
    pub(super) viewer: Viewer,
    pub(super) form: Arc<Form>,
}

/// Lets those who are signed in pass; nobody else gets further than the page that signs in. What
/// is refused, here or behind, becomes a page.
pub(super) async fn pass(
    State(app): State<App>,
    signed_in: SignedIn,
    id: RequestId,
    request: Request,
    next: Next,
) -> Response {
    let health = app.readiness().look(app.engine()).await;
    let viewer = Viewer { app, signed_in, health, uri: request.uri().clone(), request: id };
    let mut response = match admit(&viewer, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    match take_failure(&mut response) {
        Some(error) => frame::refused(&viewer, &error, response.headers()),
        None => response,
    }
}

async fn admit(viewer: &Viewer, request: Request) -> Result<Request, ApiError> {
    let (app, signed_in) = (&viewer.app, &viewer.signed_in);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(viewer.clone());
    if ADMINS_ONLY.contains(&viewer.section_path()) {
        viewer.require_admin()?;
    }
    if parts.method.is_safe() {
        let caller = Caller::record(signed_in.user.as_bytes());
        app.limiter().take(Tier::Read, caller, app.engine().now())?;
        return Ok(Request::from_parts(parts, body));
    }
    if parts.method != Method::POST {
        return Err(ApiError::MethodNotAllowed);
    }
    viewer.require_admin()?;
    let form = signed_in.form(app, Request::from_parts(parts.clone(), body)).await?;
    parts.extensions.insert(Arc::new(form));
    Ok(Request::from_parts(parts, Body::empty()))
}

impl Viewer {
    pub(super) fn org(&self) -> OrgId {
        self.signed_in.org
    }

    pub(super) fn now(&self) -> Timestamp {
        self.app.engine().now()
    }

    /// Whether the page may offer changes; the rule itself is the domain's.
    pub(super) fn is_admin(&self) -> bool {
        self.signed_in.role == Role::Admin
    }

    /// What the forms of an admin carry in their field `proof`; none for others, who only look.
    pub(super) fn proof(&self) -> Option<String> {
        self.is_admin().then(|| self.signed_in.proof())
    }

    /// Refuses a page that only an admin has a use for.
    pub(super) fn require_admin(&self) -> Result<(), ApiError> {
        if self.is_admin() { Ok(()) } else { Err(ApiError::AdminsOnly) }
    }
}

impl Sent {
    /// Has a command carried out under the admin's name.
    pub(super) async fn submit(&self, command: Command) -> Result<Done, ApiError> {
        let Viewer { app, signed_in, .. } = &self.viewer;
        app.engine().submit(signed_in.order(command)).await.map_err(refused)
    }

    /// Finds what the code in the form is worth. Where it is worth nothing, the form says so. A
    /// try is dear: nothing else of the form may be wrong by now.
    pub(super) async fn factor(&self, fields: &mut Fields) -> Result<Option<Factor>, ApiError> {
        if fields.value("code").is_empty() {
            fields.refuse("write the newest code of your authenticator");
            return Ok(None);
        }
        let Viewer { app, signed_in, .. } = &self.viewer;
        let factor = fresh_factor(app, signed_in, fields.value("code")).await?;
        if factor.is_none() {
            fields.refuse(WRONG_CODE);
        }
        Ok(factor)
    }

    /// Puts the code beside a command that wants one; none where something is wrong.
    pub(super) async fn with_factor(
        &self,
        fields: &mut Fields,
        command: Command,
    ) -> Result<Option<Command>, ApiError> {
        let Some(factor) = self.factor(fields).await? else { return Ok(None) };
        let user = self.viewer.signed_in.user;
        Ok(Some(Command::WithFactor { user, factor, command: Box::new(command) }))
    }
}

fn viewer(parts: &Parts) -> Result<Viewer, ApiError> {
    let viewer = parts.extensions.get::<Viewer>().cloned();
    viewer.ok_or_else(|| ApiError::internal("the route is not behind the gate"))
}

impl FromRequestParts<App> for Viewer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Viewer, ApiError> {
        viewer(parts)
    }
}

impl FromRequestParts<App> for Sent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Sent, ApiError> {
        let form = parts.extensions.get::<Arc<Form>>().cloned();
        let form = form.ok_or_else(|| ApiError::internal("only a POST brings a form"))?;
        Ok(Sent { viewer: viewer(parts)?, form })
    }
}
