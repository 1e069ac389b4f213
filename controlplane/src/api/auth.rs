//! Who calls: a secret, and the address from which it is worth anything.
//!
//! The order is fixed, so that no answer tells more than the step it comes from: the secret's
//! checksum, whether it is in force, its origin, and last, before the body is read, its scope.
//! Only a secret that fails meets the budget of failures of its source.

use std::collections::BTreeMap;
use std::future::ready;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Response};
use futures_util::TryFutureExt as _;
use futures_util::future::Either;
use postern_shared::ids::{AgentId, GroupId, KeyId, OrgId};
use postern_shared::scope::Scope;
use postern_shared::time::{Expiry, Timestamp};
use postern_shared::token::{Token, TokenHash};
use subtle::ConstantTimeEq as _;

use crate::app::App;
use crate::clock::advance;
use crate::domain::{Actor, Command, Credential, Order, Refusal, Secret, Standing, State as Orgs};
use crate::http::ApiError;
use crate::http::around::{Answered, Answering, Around};
use crate::http::limit::{Caller, Standing as Budget, Tier};
use crate::http::problem::PendingProblem;
use crate::server::ClientAddress;

/// Who calls, after the secret and its origin were found to be good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) credential: Credential,
    pub(crate) address: IpAddr,
}

/// A scope that a handler asks for, as a type: so the check comes before the body is read.
pub(crate) trait Right {
    const SCOPE: Scope;
}

macro_rules! rights {
    ($($name:ident)*) => {$(
        #[derive(Debug)]
        pub(crate) enum $name {}

        impl Right for $name {
            const SCOPE: Scope = Scope::$name;
        }
    )*};
}

rights!(AccountRead AccountWrite PairsRead PairsWrite GroupsRead GroupsWrite);

/// The holder of an API key with the scope `R`.
#[derive(Debug)]
pub(crate) struct Holder<R> {
    pub(crate) org: OrgId,
    pub(crate) key: KeyId,
    pub(crate) address: IpAddr,
    right: PhantomData<R>,
}

/// An agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AgentAccess {
    pub(crate) agent: AgentId,
    pub(crate) address: IpAddr,
}

/// Whoever holds a secret in force, whatever its scopes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anyone(pub(crate) Access);

/// Whoever may read lists: the holder of a key with `groups.read`, or an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader(pub(crate) Access);

/// Lets through whoever holds a secret in force from one of its origins, and takes the request
/// from the holder's budgets.
#[derive(Clone)]
pub(crate) struct Authentication(pub(crate) App);

impl Around for Authentication {
    fn answer<F>(&self, mut request: Request, route: impl FnOnce(Request) -> F) -> Answering<F>
    where
        F: Future<Output = Answered> + Send + 'static,
    {
        let (access, budget) = match admit(&self.0, &request) {
            Ok(admitted) => admitted,
            Err(error) => return Either::Right(Box::pin(ready(Ok(error.into_response())))),
        };
        request.extensions_mut().insert(access);
        let app = self.0.clone();
        Either::Right(Box::pin(route(request).map_ok(move |mut response| {
            if is_beyond_scope(&response) {
                let who = Some(access.credential.actor());
                app.count_refusal(who, Refusal::InsufficientScope, access.address);
            }
            budget.write(response.headers_mut());
            response
        })))
    }
}

fn admit(app: &App, request: &Request) -> Result<(Access, Budget), ApiError> {
    let caller = request.extensions().get::<ClientAddress>().copied();
    let ClientAddress(address) =
        caller.ok_or_else(|| ApiError::internal("the request came over no network"))?;
    let now = app.engine().now();
    let token = bearer(request.headers());
    let stands = token.and_then(|token| {
        let state = app.engine().state();
        let credential = match find(&state, &token)? {
            Secret::Key(id) => Credential::Key(state.key(id)?.org, id),
            Secret::Agent(id) => Credential::Agent(state.agent(id)?.org, id),
            Secret::Bookmark(_) | Secret::Server(_) | Secret::Enrolment(_) => return None,
        };
        Some((credential, state.standing(credential, address, now)))
    });
    match stands {
        Some((credential, Standing::Good)) => {
            let access = Access { credential, address };
            let budget = charge(app, request.method(), access, now).inspect_err(|_| {
                app.count_refusal(Some(credential.actor()), Refusal::RateLimited, address);
            })?;
            app.last_used().note(credential, now);
            Ok((access, budget))
        }
        Some((credential, Standing::ForbiddenOrigin)) => {
            app.count_refusal(Some(credential.actor()), Refusal::ForbiddenOrigin, address);
            Err(ApiError::ForbiddenOrigin)
        }
        // Whose it was is for the audit alone.
        Some((credential, Standing::Unknown)) => {
            Err(unauthorized_as(app, Some(credential.actor()), address, now))
        }
        None => Err(unauthorized(app, address, now)),
    }
}

/// Finds the record behind the bearer secret of a request; whether that lives is not said.
pub(crate) fn identify(
    app: &App,
    headers: &HeaderMap,
    address: IpAddr,
    now: Timestamp,
) -> Result<Secret, ApiError> {
    let found = bearer(headers).and_then(|token| find(&app.engine().state(), &token));
    found.ok_or_else(|| unauthorized(app, address, now))
}

/// Finds whom a secret belongs to: by its hash, then compared in constant time.
pub(crate) fn find(state: &Orgs, token: &Token) -> Option<Secret> {
    let hash = token.hash();
    let found = state.secret(&hash)?;
    let stored = match found {
        Secret::Key(id) => state.key(id)?.hash,
        Secret::Bookmark(id) => state.pair(id)?.record.bookmark,
        Secret::Server(id) => state.pair(id)?.record.server_key,
        Secret::Enrolment(id) => state.enrolment(id)?.hash,
        Secret::Agent(id) => state.agent(id)?.token,
    };
    is_same(&hash, &stored).then_some(found)
}

fn is_same(given: &TokenHash, stored: &TokenHash) -> bool {
    given.as_bytes().ct_eq(stored.as_bytes()).into()
}

/// Refuses a secret, and counts the failure against its source.
pub(crate) fn unauthorized(app: &App, address: IpAddr, now: Timestamp) -> ApiError {
    unauthorized_as(app, None, address, now)
}

fn unauthorized_as(
    app: &App,
    who: Option<(OrgId, Actor)>,
    address: IpAddr,
    now: Timestamp,
) -> ApiError {
    refuse_secret(app, who, address, now, ApiError::Unauthorized)
}

/// Refuses a secret that does not count with `error`, or with a wait when its source has failed
/// too often; it is noted against the source and for the audit.
pub(crate) fn refuse_secret(
    app: &App,
    who: Option<(OrgId, Actor)>,
    address: IpAddr,
    now: Timestamp,
    error: ApiError,
) -> ApiError {
    match app.limiter().authentication_failed(Caller::source(address), now) {
        Ok(()) => {
            app.count_refusal(who, Refusal::WrongSecret, address);
            error
        }
        Err(exhausted) => {
            app.count_refusal(who, Refusal::RateLimited, address);
            exhausted.into()
        }
    }
}

fn is_beyond_scope(response: &Response) -> bool {
    let problem = response.extensions().get::<PendingProblem>();
    problem.is_some_and(|PendingProblem(error)| {
        matches!(error.as_ref(), ApiError::InsufficientScope { .. })
    })
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<Token> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    let (scheme, secret) = line.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    secret.trim().parse().ok()
}

/// Takes a request from the budgets of its source, its key and its org, and says how the caller
/// stands with the tightest of them. An agent has only its own, since
/// a hundred of them may share an address, and only that of reads: what it says stays in memory.
fn charge(app: &App, method: &Method, access: Access, now: Timestamp) -> Result<Budget, ApiError> {
    let limiter = app.limiter();
    match access.credential {
        Credential::Key(org, id) => {
            let tier = if method.is_safe() { Tier::Read } else { Tier::Write };
            let source = limiter.take(tier, Caller::source(access.address), now)?;
            let key = limiter.take(tier, Caller::record(id.as_bytes()), now)?;
            let org = limiter.take_of_org(tier, Caller::record(org.as_bytes()), now)?;
            let tightest = [key, source, org].into_iter().min_by_key(Budget::remaining);
            Ok(tightest.expect("there are three"))
        }
        Credential::Agent(_, id) => {
            Ok(limiter.take(Tier::Read, Caller::record(id.as_bytes()), now)?)
        }
    }
}

impl<R> Holder<R> {
    /// Puts the holder's name under a command.
    pub(crate) fn order(&self, command: Command) -> Order {
        Order { actor: Actor::Key(self.key), source: Some(self.address), command }
    }
}

impl Reader {
    /// Asks again whether the credential counts from where it was used: for answers that last.
    pub(crate) fn check(&self, state: &Orgs, now: Timestamp) -> Result<(), ApiError> {
        let Access { credential, address } = self.0;
        match state.standing(credential, address, now) {
            Standing::Good => require_lists(state, self.0),
            Standing::ForbiddenOrigin => Err(ApiError::ForbiddenOrigin),
            Standing::Unknown => Err(ApiError::Unauthorized),
        }
    }

    /// How long the credential counts from where it was used, if nothing happens; `None` for ever.
    pub(crate) fn counts_for(&self, state: &Orgs, now: Timestamp) -> Option<Duration> {
        match state.standing_ends(self.0.credential, self.0.address) {
            Expiry::At(end) => Some(end.since(now)),
            Expiry::Never => None,
        }
    }

    /// Says whether the list of `group` may be told: another org's never.
    pub(crate) fn may_read(&self, state: &Orgs, group: GroupId) -> bool {
        match self.0.credential {
            Credential::Key(org, _) => state.group_of(org, group).is_ok(),
            Credential::Agent(org, id) => {
                let given = state.agent(id).is_some_and(|agent| agent.groups.contains(&group));
                given && state.group_of(org, group).is_ok()
            }
        }
    }

    pub(crate) fn org(&self) -> OrgId {
        match self.0.credential {
            Credential::Key(org, _) | Credential::Agent(org, _) => org,
        }
    }

    pub(crate) fn is_agent(&self) -> bool {
        matches!(self.0.credential, Credential::Agent(..))
    }
}

fn require_lists(state: &Orgs, access: Access) -> Result<(), ApiError> {
    let may_read = match access.credential {
        Credential::Key(..) => state.has_scope(access.credential, Scope::GroupsRead),
        Credential::Agent(..) => true,
    };
    let scope = || Scope::GroupsRead.to_string();
    may_read.then_some(()).ok_or_else(|| ApiError::InsufficientScope { scope: scope() })
}

fn access(parts: &Parts) -> Result<Access, ApiError> {
    let access = parts.extensions.get::<Access>().copied();
    access.ok_or_else(|| ApiError::internal("the route is not behind authentication"))
}

impl<R: Right> FromRequestParts<App> for Holder<R> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Holder<R>, ApiError> {
        let Access { credential, address } = access(parts)?;
        match credential {
            Credential::Key(org, key) if app.engine().state().has_scope(credential, R::SCOPE) => {
                Ok(Holder { org, key, address, right: PhantomData })
            }
            Credential::Key(..) | Credential::Agent(..) => {
                Err(ApiError::InsufficientScope { scope: R::SCOPE.to_string() })
            }
        }
    }
}

impl FromRequestParts<App> for AgentAccess {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<AgentAccess, ApiError> {
        let Access { credential, address } = access(parts)?;
        match credential {
            Credential::Agent(_, agent) => Ok(AgentAccess { agent, address }),
            Credential::Key(..) => Err(ApiError::InsufficientScope { scope: "agent".into() }),
        }
    }
}

impl FromRequestParts<App> for Anyone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Anyone, ApiError> {
        access(parts).map(Anyone)
    }
}

impl FromRequestParts<App> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Reader, ApiError> {
        let access = access(parts)?;
        require_lists(&app.engine().state(), access)?;
        Ok(Reader(access))
    }
}

/// When each credential was last used. In memory: a restart forgets it.
#[derive(Debug, Default)]
pub(crate) struct LastUsed(RwLock<BTreeMap<Credential, AtomicU64>>);

impl LastUsed {
    fn note(&self, credential: Credential, now: Timestamp) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.get(&credential) {
            advance(at, now);
            return;
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(credential, AtomicU64::new(now.unix_ms()));
    }

    /// When `credential` was last used since the start.
    pub(crate) fn at(&self, credential: Credential) -> Option<Timestamp> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let at = known.get(&credential)?.load(Ordering::Relaxed);
        Timestamp::from_unix_ms(at).ok()
    }
}
