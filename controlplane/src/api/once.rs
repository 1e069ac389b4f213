//! `Idempotency-Key`: a request that comes again is answered again and not carried out again
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! What is kept is what changed something: a request that was refused has changed nothing, and may
//! come again as it is. The answer is made durable with the change. It may hold secrets that are
//! told once, so it is sealed under a key that only the caller's own secret yields; the store has
//! no more than that secret's hash.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::hmac;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use postern_shared::position::Revision;
use serde::{Deserialize, Serialize};

use super::auth::bearer;
use super::refusal::refused;
use super::version;
use crate::app::App;
use crate::domain::{Change, Once, Order, ReplayId, State};
use crate::engine::Done;
use crate::http::json::JSON_BYTES_MAX;
use crate::http::limit::Standing;
use crate::http::{Answer, ApiError, body};

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest name of a request, in bytes: a UUID has 36.
const NAME_BYTES_MAX: usize = 255;
/// Tells these keys from others that are made of the same secrets.
const SALT: &[u8] = b"postern idempotency 1";
const NONCE_BYTES: usize = 12;

/// A body, and the name that the request was given.
pub(super) struct Asked<T> {
    pub(super) attempt: Attempt,
    pub(super) body: T,
}

/// Carries an order out, as the request's name demands.
pub(super) struct Attempt(Option<Named>);

/// A form of a page that tells secrets once, by the name that the page gave it.
pub(crate) enum Sent {
    /// It is sent for the first time.
    First(Turn),
    /// What it asks for was done, and can be seen there.
    Before(String),
    /// It was sent, filled in in another way.
    Otherwise,
}

/// Carries the order of a form out, once.
pub(crate) struct Turn(Named);

/// A request whose body is not looked at.
pub(super) struct Nothing;

/// What is answered in place of carrying a request out.
pub(super) enum Instead {
    /// It is refused.
    Refused(ApiError),
    /// It was carried out before.
    Again(Answer),
}

struct Named {
    once: Once,
    seal: Seal,
    /// Until the answer is there.
    _running: Running,
}

/// The key under which one caller's answers are kept.
#[derive(Clone)]
struct Seal {
    key: Arc<LessSafeKey>,
    once: Once,
}

/// An answer on its way: into the store, and out of it again.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    status: u16,
    location: Option<String>,
    /// The object whose version the answer names.
    object: [u8; 16],
    data: Vec<u8>,
}

/// The requests with a name that are being carried out.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(Mutex<BTreeSet<ReplayId>>);

/// The place of one request among them; given back when dropped.
struct Running {
    app: App,
    id: ReplayId,
}

impl Attempt {
    /// Has an order carried out, and answers with what `tell` makes of the state before it and of
    /// its changes.
    pub(super) async fn carry_out(
        self,
        app: &App,
        order: Order,
        tell: impl Fn(&State, &[Change]) -> Result<Told, ApiError> + Send + 'static,
    ) -> Result<Answer, ApiError> {
        let mut nonce = [0; NONCE_BYTES];
        app.engine().chance().fill(&mut nonce);
        let (once, seal) = self.0.as_ref().map(|named| (named.once, named.seal.clone())).unzip();
        let sealing = seal.clone();
        let tell = Box::new(move |state: &State, changes: &[Change]| {
            // An answer that cannot be made is empty: the change itself stands.
            let told = tell(state, changes).map(|told| told.to_bytes()).unwrap_or_default();
            sealing.as_ref().map_or_else(|| told.clone(), |seal| seal.close(nonce, told.clone()))
        });
        let (done, told) = app.engine().submit_told(order, once, tell).await.map_err(refused)?;
        let told = match &seal {
            Some(seal) => seal.open(&told)?,
            None => told,
        };
        Told::from_bytes(&told).map(|told| told.answer(done.revision))
    }
}

impl Sent {
    /// Looks whether a form was sent before; `secret` is the login's, `what` the action with all
    /// that is filled in.
    pub(crate) fn of(
        app: &App,
        secret: &str,
        name: &str,
        what: &[&[u8]],
    ) -> Result<Sent, ApiError> {
        if name.is_empty() || NAME_BYTES_MAX < name.len() {
            let detail = "the form is not as the page made it; open the page anew".to_owned();
            return Err(ApiError::BadRequest { detail });
        }
        let (once, seal) = sealed_by(secret.as_bytes(), name.as_bytes(), what);
        let running = Running::begin(app, once.id)?;
        let state = app.engine().state();
        let Some(row) = state.replay(once.id, app.engine().now()) else {
            drop(state);
            return Ok(Sent::First(Turn(Named { once, seal, _running: running })));
        };
        if row.record.fingerprint != once.fingerprint {
            return Ok(Sent::Otherwise);
        }
        let place = String::from_utf8(seal.open(&row.record.answer)?);
        place.map(Sent::Before).map_err(ApiError::internal)
    }
}

impl Turn {
    /// Has the order carried out. What is kept of it is where its outcome can be seen, and no
    /// secret: that is shown once.
    pub(crate) async fn carry_out(
        self,
        app: &App,
        order: Order,
        place: String,
    ) -> Result<Done, ApiError> {
        let Turn(Named { once, seal, _running }) = self;
        let mut nonce = [0; NONCE_BYTES];
        app.engine().chance().fill(&mut nonce);
        let tell =
            Box::new(move |_: &State, _: &[Change]| seal.close(nonce, place.clone().into_bytes()));
        let told = app.engine().submit_told(order, Some(once), tell).await;
        told.map(|(done, _)| done).map_err(refused)
    }
}

impl Told {
    /// A new object.
    pub(super) fn created(
        location: String,
        object: &[u8; 16],
        data: &impl Serialize,
    ) -> Result<Told, ApiError> {
        let told = Told::ok(object, data)?;
        Ok(Told { status: StatusCode::CREATED.as_u16(), location: Some(location), ..told })
    }

    /// An object that changed.
    pub(super) fn ok(object: &[u8; 16], data: &impl Serialize) -> Result<Told, ApiError> {
        let data = serde_json::to_vec(data).map_err(ApiError::internal)?;
        Ok(Told { status: StatusCode::OK.as_u16(), location: None, object: *object, data })
    }

    fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("an answer has plain fields")
    }

    fn from_bytes(bytes: &[u8]) -> Result<Told, ApiError> {
        postcard::from_bytes(bytes).map_err(ApiError::internal)
    }

    /// The answer; the object has the version of the commit that the answer came with.
    fn answer(self, revision: Revision) -> Answer {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let etag = version(&self.object, revision);
        Answer::written(status, self.location.as_deref(), self.data).with_etag(&etag)
    }
}

impl Seal {
    fn close(&self, nonce: [u8; NONCE_BYTES], mut text: Vec<u8>) -> Vec<u8> {
        let sealed = self.key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(self.label()),
            &mut text,
        );
        sealed.expect("an answer is shorter than the cipher's longest text");
        [&nonce[..], &text].concat()
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, ApiError> {
        let damaged = || ApiError::internal("a kept answer cannot be opened");
        let (nonce, text) = sealed.split_first_chunk().ok_or_else(damaged)?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let open = self.key.open_in_place(nonce, Aad::from(self.label()), &mut text);
        open.map(|text| text.to_vec()).map_err(|_| damaged())
    }

    /// What binds an answer to its request.
    fn label(&self) -> Vec<u8> {
        [self.once.id.0, self.once.fingerprint].concat()
    }
}

impl<T: FromRequest<App, Rejection = ApiError>> FromRequest<App> for Asked<T> {
    type Rejection = Instead;

    async fn from_request(request: Request, app: &App) -> Result<Asked<T>, Instead> {
        let Some(name) = name(request.headers())? else {
            let body = T::from_request(request, app).await?;
            return Ok(Asked { attempt: Attempt(None), body });
        };
        let token = bearer(request.headers()).ok_or(ApiError::Unauthorized)?;
        let (parts, body) = request.into_parts();
        let bytes = body::read(body, JSON_BYTES_MAX).await?;
        let what = format!("{} {}", parts.method, parts.uri);
        let (once, seal) = sealed_by(token.expose().as_bytes(), &name, &[what.as_bytes(), &bytes]);
        let running = Running::begin(app, once.id)?;
        if let Some(answer) = again(app, &seal)? {
            return Err(Instead::Again(answer));
        }
        let body = T::from_request(Request::from_parts(parts, Body::from(bytes)), app).await?;
        Ok(Asked { attempt: Attempt(Some(Named { once, seal, _running: running })), body })
    }
}

/// The name of a request: a string in quotes as the draft has it, or without them as many send it.
fn name(headers: &HeaderMap) -> Result<Option<Vec<u8>>, ApiError> {
    let malformed = || ApiError::BadRequest {
        detail: format!(
            "`Idempotency-Key` must be one string of 1 to {NAME_BYTES_MAX} visible characters, \
             such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\""
        ),
    };
    let mut lines = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let text = line.to_str().map_err(|_| malformed())?.trim();
    let text = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(malformed)?,
        None => text,
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let is_good = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain);
    if !is_good || lines.next().is_some() {
        return Err(malformed());
    }
    Ok(Some(text.as_bytes().to_vec()))
}

/// What the caller's secret makes of a request: its name, what it asks for, and the key that its
/// answer is kept under.
fn sealed_by(secret: &[u8], name: &[u8], what: &[&[u8]]) -> (Once, Seal) {
    let secret = Salt::new(HKDF_SHA256, SALT).extract(secret);
    let id = digest(&secret, b"name", &[name]);
    let fingerprint = digest(&secret, b"request", what);
    let once = Once { id: ReplayId(id), fingerprint };
    let seal = secret.expand(&[b"answer"], &AES_256_GCM).expect("a key is short enough");
    (once, Seal { key: Arc::new(LessSafeKey::new(UnboundKey::from(seal))), once })
}

fn digest(secret: &Prk, purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let purpose = [purpose];
    let key = secret.expand(&purpose, hmac::HMAC_SHA256).expect("a key is short enough");
    let mut context = hmac::Context::with_key(&hmac::Key::from(key));
    for part in parts {
        // With the lengths in it, no two lists of parts are alike.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The kept answer of a request, if there is one.
fn again(app: &App, seal: &Seal) -> Result<Option<Answer>, ApiError> {
    let state = app.engine().state();
    let Some(row) = state.replay(seal.once.id, app.engine().now()) else { return Ok(None) };
    if row.record.fingerprint != seal.once.fingerprint {
        return Err(ApiError::IdempotencyKeyReused);
    }
    let told = Told::from_bytes(&seal.open(&row.record.answer)?)?;
    Ok(Some(told.answer(row.revision)))
}

impl Running {
    fn begin(app: &App, id: ReplayId) -> Result<Running, ApiError> {
        let mut running = app.unanswered().0.lock().unwrap_or_else(PoisonError::into_inner);
        if !running.insert(id) {
            return Err(ApiError::IdempotencyKeyInUse);
        }
        drop(running);
        Ok(Running { app: app.clone(), id })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let running = &self.app.unanswered().0;
        running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

impl FromRequest<App> for Nothing {
    type Rejection = ApiError;

    async fn from_request(_: Request, _: &App) -> Result<Nothing, ApiError> {
        Ok(Nothing)
    }
}

impl Instead {
    /// Says in the header how much of the caller's budget is left.
    pub(super) fn with_standing(self, standing: &Standing) -> Instead {
        match self {
            Instead::Refused(error) => Instead::Refused(error),
            Instead::Again(answer) => Instead::Again(answer.with_standing(standing)),
        }
    }
}

impl From<ApiError> for Instead {
    fn from(error: ApiError) -> Instead {
        Instead::Refused(error)
    }
}

impl IntoResponse for Instead {
    fn into_response(self) -> Response {
        match self {
            Instead::Refused(error) => error.into_response(),
            Instead::Again(answer) => answer.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use postern_shared::token::{Token, TokenKind};

    use super::*;
    use crate::chance::{Chance, SeededChance};

    fn token(seed: u64) -> Token {
        let chance: &dyn Chance = &SeededChance::new(seed);
        chance.token(TokenKind::Key)
    }

    fn asked(seed: u64, what: &[u8]) -> (Once, Seal) {
        sealed_by(token(seed).expose().as_bytes(), b"n", &[what, b"{}"])
    }

    fn named(lines: &[&'static str]) -> Result<Option<Vec<u8>>, ApiError> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static(line));
        }
        name(&headers)
    }

    #[test]
    fn names_are_read_with_and_without_quotes() {
        assert!(named(&[]).unwrap().is_none());
        for line in ["8e03978e", "\"8e03978e\""] {
            assert_eq!(named(&[line]).unwrap().unwrap(), b"8e03978e");
        }
        for lines in [&[""][..], &["\"\""], &["\"a"], &["a\"b"], &["a b"], &["a", "b"], &["a\\"]] {
            named(lines).unwrap_err();
        }
    }

    #[test]
    fn only_the_callers_own_secret_opens_its_answers() {
        let (once, seal) = asked(1, b"POST /x");
        let sealed = seal.close([7; NONCE_BYTES], b"pob_secret".to_vec());

        assert_eq!(seal.open(&sealed).unwrap(), b"pob_secret");
        assert!(!sealed.windows(4).any(|window| window == b"pob_"));
        let (other, theirs) = asked(2, b"POST /x");
        assert_ne!(other.id, once.id, "callers share no names");
        theirs.open(&sealed).unwrap_err();
        let (same, elsewhere) = asked(1, b"POST /y");
        assert_eq!(same.id, once.id);
        assert_ne!(same.fingerprint, once.fingerprint);
        elsewhere.open(&sealed).unwrap_err();
    }
}
