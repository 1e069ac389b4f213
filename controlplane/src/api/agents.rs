//! `/agents`: how a host gets in, and what it says of itself.

use axum::extract::FromRequest as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use postern_shared::ids::{AgentId, EnrolmentId};
use postern_shared::token::TokenKind;
use postern_shared::wire::v1::{
    AgentGroup, AgentSelf, AgentUpdate, EnrolAnswer, EnrolRequest, Envelope, FieldError, Receipt,
    Receipts,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{AgentAccess, identify, unauthorized};
use super::document::OnceHeader;
use super::once::{Asked, IDEMPOTENCY_KEY, Instead, Told};
use super::refusal::refused;
use crate::app::App;
use crate::domain::{
    Actor, Agent, Change, Command, Label, Order, Secret, State as Orgs, TextError, acts,
};
use crate::drafts::NewPair;
use crate::http::json::StrictJson;
use crate::http::limit::{Caller, Tier};
use crate::http::{Answer, ApiError};
use crate::server::ClientAddress;

/// Most targets of one agent.
const TARGETS_MAX: usize = 256;
/// Most receipts in one request.
const RECEIPTS_MAX: usize = 1_024;
/// Most failures of one request that are recorded; the board shows all of them.
const RECORDED_MAX: usize = 32;
/// Longest word on what went wrong, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// The routes of agents that have a credential.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(introduce)).routes(routes!(report))
}

/// The route of those who are to become agents; their secret is of another kind.
pub(super) fn enrolment_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(enrol))
}

/// Turns an invitation into an agent and tells its secrets, once.
#[utoipa::path(
    post, path = "/api/v1/agents/enroll", operation_id = "enrol", tag = "agents",
    params(OnceHeader),
    request_body = EnrolRequest,
    security(("invitation" = [])),
    responses((status = 201, description = "The new agent with its secrets", body = Envelope<EnrolAnswer>, headers(("Location" = String, description = "The path of the new object")))),
)]
async fn enrol(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Result<Answer, Instead> {
    let now = app.engine().now();
    let found = identify(&app, request.headers(), address, now)?;
    let unauthorized = || unauthorized(&app, address, now);
    // Whose answer was lost may ask for it again, though the invitation is used up.
    if invitation(&app, found).is_none() && !was_used(&app, found, request.headers()) {
        return Err(unauthorized().into());
    }
    let standing =
        app.limiter().take(Tier::Write, Caller::source(address), now).map_err(ApiError::from)?;
    let asked = Asked::<StrictJson<EnrolRequest>>::from_request(request, &app).await;
    let Asked { attempt, body } = asked.map_err(|instead| instead.with_standing(&standing))?;
    let enrolment = invitation(&app, found).ok_or_else(unauthorized)?;
    let StrictJson(EnrolRequest { host, version }) = body;
    let mut errors = Vec::new();
    check_text(&host, "/host".into(), &mut errors);
    check_text(&version, "/version".into(), &mut errors);
    if !errors.is_empty() {
        return Err(ApiError::Invalid { errors }.into());
    }

    let chance = app.engine().chance();
    let token = chance.token(TokenKind::Agent);
    let agent = AgentId::from_random(chance.id());
    let name =
        app.engine().state().enrolment(enrolment).map(|found| (found.org, found.name.clone()));
    let (org, name) = name.ok_or(ApiError::Unauthorized)?;
    let NewPair { pair, bookmark, .. } = NewPair::draw(app.engine(), org, name, app.settings().ttl);
    let command = Command::Enrol { enrolment, agent, token: token.hash(), pair: Box::new(pair) };
    let order = Order { actor: Actor::Enrolment(enrolment), source: Some(address), command };
    let tell = move |state: &Orgs, changes: &[Change]| {
        let new = changes.iter().find_map(|change| {
            if let Change::PutAgent(agent) = change { Some(agent) } else { None }
        });
        let new = new.ok_or_else(|| ApiError::internal("the order made no agent"))?;
        let answer = EnrolAnswer {
            agent,
            name: new.name.to_string(),
            token: token.expose().to_owned(),
            bookmark: bookmark.expose().to_owned(),
            groups: groups(state, new),
        };
        Told::created("/api/v1/agents/self".to_owned(), agent.as_bytes(), &answer)
    };
    let answer = attempt.carry_out(&app, order, tell).await.map_err(|error| {
        // Somebody else has used the invitation since.
        if matches!(error, ApiError::NotFound) { unauthorized() } else { error }
    })?;
    tracing::info!(%agent, %host, version, "an agent has enrolled");
    Ok(answer.with_standing(&standing))
}

/// Says whether a secret was an invitation, and the request names itself.
fn was_used(app: &App, found: Secret, headers: &HeaderMap) -> bool {
    let Secret::Enrolment(id) = found else { return false };
    let is_used = app.engine().state().enrolment(id).is_some_and(|it| it.used_at.is_some());
    is_used && headers.contains_key(IDEMPOTENCY_KEY)
}

/// The invitation behind a secret, if it can still be used.
fn invitation(app: &App, found: Secret) -> Option<EnrolmentId> {
    let Secret::Enrolment(id) = found else { return None };
    let (state, now) = (app.engine().state(), app.engine().now());
    let invitation = state.enrolment(id)?;
    (invitation.used_at.is_none() && now < invitation.expires_at).then_some(id)
}

/// Says what the host is, and tells the agent its groups.
#[utoipa::path(
    put, path = "/api/v1/agents/self", operation_id = "introduceAgent", tag = "agents",
    request_body = AgentUpdate,
    security(("agent" = [])),
    responses((status = 200, description = "What the agent is in the org", body = Envelope<AgentSelf>)),
)]
async fn introduce(
    State(app): State<App>,
    caller: AgentAccess,
    StrictJson(mut update): StrictJson<AgentUpdate>,
) -> Result<Answer, ApiError> {
    check_update(&update)?;
    let state = app.engine().state();
    let agent = state.agent(caller.agent).ok_or(ApiError::NotFound)?;
    // What an agent may not follow cannot be in force there, so nobody should wait for it.
    for target in &mut update.targets {
        target.groups.retain(|group| agent.groups.contains(group));
    }
    let answer =
        AgentSelf { agent: agent.id, name: agent.name.to_string(), groups: groups(&state, agent) };
    drop(state);
    app.engine().board().update(caller.agent, update, app.engine().now());
    app.engine().board_changed();
    Ok(Answer::ok(&answer))
}

/// Says what is in force on the host; saying it again changes nothing.
#[utoipa::path(
    post, path = "/api/v1/agents/self/receipts", operation_id = "reportReceipts", tag = "agents",
    request_body = Receipts,
    security(("agent" = [])),
    responses((status = 204, description = "Noted")),
)]
async fn report(
    State(app): State<App>,
    caller: AgentAccess,
    StrictJson(Receipts { mut receipts }): StrictJson<Receipts>,
) -> Result<StatusCode, ApiError> {
    if RECEIPTS_MAX < receipts.len() {
        let detail = format!("holds more than {RECEIPTS_MAX}; send them in several requests");
        return Err(ApiError::field("/receipts", detail));
    }
    let mut errors = Vec::new();
    for (index, receipt) in receipts.iter_mut().enumerate() {
        check_text(&receipt.target, format!("/receipts/{index}/target"), &mut errors);
        receipt.detail = receipt.detail.take().map(|detail| clipped(&detail));
    }
    if !errors.is_empty() {
        return Err(ApiError::Invalid { errors });
    }
    retain_possible(&app, caller, &mut receipts)?;
    let now = app.engine().now();
    let failed = {
        let mut board = app.engine().board();
        if board.agent(caller.agent).is_none() {
            let detail = "the plane has restarted: send PUT /api/v1/agents/self first".to_owned();
            return Err(ApiError::Conflict { detail });
        }
        board.note(caller.agent, receipts, now)
    };
    app.engine().board_changed();
    record(&app, caller, failed).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Records failures for the audit, as far as the agent's budget of writes goes: one that flaps
/// must not fill the disk.
async fn record(app: &App, caller: AgentAccess, failed: Vec<Receipt>) -> Result<(), ApiError> {
    for receipt in failed.into_iter().take(RECORDED_MAX) {
        let budget = Caller::record(caller.agent.as_bytes());
        if app.limiter().take(Tier::Write, budget, app.engine().now()).is_err() {
            break;
        }
        let target = receipt.target.parse();
        let target =
            target.map_err(|error: TextError| ApiError::field("/receipts", error.to_string()))?;
        let command = Command::NoteFailedReceipt {
            agent: caller.agent,
            target,
            group: receipt.group,
            detail: receipt.detail.unwrap_or_default(),
        };
        let actor = Actor::Agent(caller.agent);
        let order = Order { actor, source: Some(caller.address), command };
        app.engine().submit(order).await.map_err(refused)?;
    }
    Ok(())
}

/// Keeps the receipts of lists that the agent is given, and that there have been: nobody can have put a
/// list in force that is yet to come.
fn retain_possible(
    app: &App,
    caller: AgentAccess,
    receipts: &mut Vec<Receipt>,
) -> Result<(), ApiError> {
    let (epoch, state) = (app.engine().epoch(), app.engine().state());
    let given = &state.agent(caller.agent).ok_or(ApiError::NotFound)?.groups;
    receipts.retain(|receipt| {
        let row = state.group(receipt.group).filter(|_| given.contains(&receipt.group));
        row.is_some_and(|row| receipt.epoch != epoch || receipt.revision <= row.list_revision)
    });
    Ok(())
}

fn check_update(update: &AgentUpdate) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    check_text(&update.host, "/host".into(), &mut errors);
    check_text(&update.version, "/version".into(), &mut errors);
    if TARGETS_MAX < update.targets.len() {
        let detail = format!("holds more than {TARGETS_MAX}");
        errors.push(FieldError { detail, pointer: "/targets".into() });
    }
    for (index, target) in update.targets.iter().enumerate() {
        check_text(&target.name, format!("/targets/{index}/name"), &mut errors);
        check_text(&target.kind, format!("/targets/{index}/kind"), &mut errors);
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid { errors }) }
}

/// Holds a text that a host gave itself to what can be shown safely.
fn check_text(text: &str, pointer: String, errors: &mut Vec<FieldError>) {
    if let Err(error) = text.parse::<Label>() {
        errors.push(FieldError { detail: error.to_string(), pointer });
    }
}

/// Cuts a word on what went wrong to a length that can be kept, without what acts where it is shown.
fn clipped(detail: &str) -> String {
    detail.chars().filter(|c| !acts(*c)).take(DETAIL_CHARS_MAX).collect()
}

fn groups(state: &Orgs, agent: &Agent) -> Vec<AgentGroup> {
    let groups = agent.groups.iter().filter_map(|id| state.group(*id));
    groups
        .map(|row| AgentGroup {
            id: row.record.id,
            number: row.record.number,
            name: row.record.name.to_string(),
        })
        .collect()
}
