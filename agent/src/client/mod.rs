//! The agent's requests to the control plane, all over one connection.

mod address;
mod error;
mod tls;

#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use postern_shared::error::chain;
use postern_shared::ids::GroupId;
use postern_shared::position::Follow;
use postern_shared::token::Token;
use postern_shared::wire::v1::{
    AgentSelf, AgentUpdate, BeaconAnswer, BeaconRequest, EnrolAnswer, EnrolRequest, Envelope,
    Receipts, Snapshot,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

pub(crate) use address::{Pin, PinError, PlaneUrl, PlaneUrlError};
pub(crate) use error::PlaneError;

use crate::credential::Credential;

/// From the first packet to the end of the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From a request to the end of its answer; streams and held polls have limits of their own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the plane is asked to hold a poll that has nothing new.
const POLL_HOLD: Duration = Duration::from_secs(30);
/// A connection that is silent for this long is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to answer that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer except for lists.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest list: 131,072 entries, all of them IPv6, have about 18 MB.
const LIST_BYTES_MAX: usize = 32 * 1024 * 1024;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// How often an enrolment is asked for whose answer is lost.
const ENROL_TRIES: u32 = 3;
const ENROL_PAUSE: Duration = Duration::from_secs(1);

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

/// What the follow loop needs of a control plane.
pub(crate) trait Plane: Send + Sync + 'static {
    /// An open stream of events.
    type Events: Events;

    /// Reports this host's own address.
    fn beacon(&self) -> impl Future<Output = Result<BeaconAnswer, PlaneError>> + Send;
    /// Says what this host is; learns what it may follow.
    fn introduce(
        &self,
        update: &AgentUpdate,
    ) -> impl Future<Output = Result<AgentSelf, PlaneError>> + Send;
    /// Opens the stream of the groups.
    fn stream(
        &self,
        follow: &[Follow],
    ) -> impl Future<Output = Result<Self::Events, PlaneError>> + Send;
    /// Asks for one group's list, held back while it is the one that `etag` names.
    fn poll(
        &self,
        group: GroupId,
        etag: Option<&str>,
    ) -> impl Future<Output = Result<Polled, PlaneError>> + Send;
    /// Tells what is in force.
    fn report(&self, receipts: &Receipts) -> impl Future<Output = Result<(), PlaneError>> + Send;
    /// Makes the next request use a new connection.
    fn reconnect(&self);
}

/// The bytes of a stream, as they come.
pub(crate) trait Events: Send + 'static {
    /// The next bytes; `None` where the plane ended the stream.
    fn chunk(&mut self) -> impl Future<Output = Result<Option<Bytes>, PlaneError>> + Send;
}

/// The answer to a poll.
#[derive(Debug)]
pub(crate) enum Polled {
    /// The list is still the one named.
    Unchanged,
    /// The list, and the name of its state.
    List { snapshot: Box<Snapshot>, etag: Option<String> },
}

/// The control plane over HTTP.
#[derive(Debug)]
pub(crate) struct Client {
    plane: PlaneUrl,
    pin: Option<Pin>,
    token: Token,
    bookmark: Token,
    http: Mutex<reqwest::Client>,
}

impl Client {
    pub(crate) fn new(credential: &Credential) -> Result<Client, PlaneError> {
        let Credential { plane, pin, token, bookmark, .. } = credential.clone();
        let http = Mutex::new(connect(&plane, pin)?);
        Ok(Client { plane, pin, token, bookmark, http })
    }

    fn request(&self, method: Method, path: &str, accept: &str) -> RequestBuilder {
        let http = self.http.lock().expect("no code panics while it holds the lock").clone();
        http.request(method, self.plane.join(path)).header(ACCEPT, accept)
    }

    fn authorized(&self, method: Method, path: &str, accept: &str) -> RequestBuilder {
        self.request(method, path, accept).header(AUTHORIZATION, bearer(&self.token))
    }
}

/// Trades an enrolment token for a credential.
///
/// The plane keeps its answer under a name that is drawn anew each time, so that this asks again
/// where the answer was lost on its way: an invitation is good once.
pub(crate) async fn enrol(
    plane: &PlaneUrl,
    pin: Option<Pin>,
    token: &Token,
    request: &EnrolRequest,
) -> Result<EnrolAnswer, PlaneError> {
    let name = uuid::Builder::from_random_bytes(crate::chance::bytes()).into_uuid().to_string();
    let mut asked = 0;
    loop {
        let request = connect(plane, pin)?
            .post(plane.join("/api/v1/agents/enroll"))
            .header(ACCEPT, JSON)
            .header(AUTHORIZATION, bearer(token))
            .header(IDEMPOTENCY_KEY, &name)
            .json(request);
        let answer = in_time(REQUEST_TIMEOUT, async { unwrap(send(request).await?).await }).await;
        asked += 1;
        match answer {
            Err(PlaneError::Unreachable(_) | PlaneError::TimedOut(_)) if asked < ENROL_TRIES => {
                tokio::time::sleep(ENROL_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

impl Plane for Client {
    type Events = EventBody;

    async fn beacon(&self) -> Result<BeaconAnswer, PlaneError> {
        let path = format!("/b/{}", self.bookmark.expose());
        let request = self.request(Method::POST, &path, JSON).json(&BeaconRequest::default());
        let answer = in_time(REQUEST_TIMEOUT, async { unwrap(send(request).await?).await }).await;
        answer.map_err(PlaneError::of_bookmark)
    }

    async fn introduce(&self, update: &AgentUpdate) -> Result<AgentSelf, PlaneError> {
        let request = self.authorized(Method::PUT, "/api/v1/agents/self", JSON).json(update);
        let answer = in_time(REQUEST_TIMEOUT, async { unwrap(send(request).await?).await }).await;
        answer.map_err(PlaneError::of_credential)
    }

    async fn stream(&self, follow: &[Follow]) -> Result<EventBody, PlaneError> {
        let query: Vec<(&str, String)> =
            follow.iter().map(|follow| ("group", follow.to_string())).collect();
        let request = self.authorized(Method::GET, "/api/v1/stream", EVENTS).query(&query);
        let answer = in_time(REQUEST_TIMEOUT, send(request)).await;
        let answer = answer.map_err(PlaneError::of_credential)?;
        expect_media_type(&answer, EVENTS)?;
        Ok(EventBody(answer))
    }

    async fn poll(&self, group: GroupId, etag: Option<&str>) -> Result<Polled, PlaneError> {
        let mut request = self
            .authorized(Method::GET, &format!("/api/v1/groups/{group}/ips"), JSON)
            .header("Prefer", format!("wait={}", POLL_HOLD.as_secs()));
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            request = request.header(IF_NONE_MATCH, etag);
        }
        in_time(REQUEST_TIMEOUT + POLL_HOLD, async {
            let answer = send(request).await?;
            if answer.status() == StatusCode::NOT_MODIFIED {
                return Ok(Polled::Unchanged);
            }
            let etag = answer.headers().get(ETAG).and_then(|value| value.to_str().ok());
            let etag = etag.map(str::to_owned);
            // The rest of a `GroupIps` is for people, and is not kept in memory.
            let list: Envelope<Snapshot> = json(answer, LIST_BYTES_MAX).await?;
            Ok(Polled::List { snapshot: Box::new(list.data), etag })
        })
        .await
        .map_err(PlaneError::of_credential)
    }

    async fn report(&self, receipts: &Receipts) -> Result<(), PlaneError> {
        let request =
            self.authorized(Method::POST, "/api/v1/agents/self/receipts", JSON).json(receipts);
        let answer = in_time(REQUEST_TIMEOUT, async { send(request).await.map(drop) }).await;
        answer.map_err(PlaneError::of_credential)
    }

    fn reconnect(&self) {
        match connect(&self.plane, self.pin) {
            Ok(http) => *self.http.lock().expect("no code panics while it holds the lock") = http,
            Err(error) => tracing::warn!(error = %chain(&error), "could not renew the connection"),
        }
    }
}

/// The body of an open stream.
#[derive(Debug)]
pub(crate) struct EventBody(Response);

impl Events for EventBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, PlaneError> {
        self.0.chunk().await.map_err(PlaneError::from_transport)
    }
}

fn connect(plane: &PlaneUrl, pin: Option<Pin>) -> Result<reqwest::Client, PlaneError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("postern-agent/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder = match (plane.is_encrypted(), pin) {
        (true, Some(pin)) => builder.https_only(true).tls_backend_preconfigured(tls::pinned(pin)),
        (true, None) => builder.https_only(true),
        (false, _) => builder.tls_backend_preconfigured(tls::none()),
    };
    builder.build().map_err(PlaneError::from_transport)
}

fn bearer(token: &Token) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .expect("a token has letters and digits only");
    value.set_sensitive(true);
    value
}

async fn in_time<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, PlaneError>>,
) -> Result<T, PlaneError> {
    tokio::time::timeout(limit, request).await.unwrap_or(Err(PlaneError::TimedOut(limit)))
}

/// Sends a request; whatever is not a success becomes an error.
async fn send(request: RequestBuilder) -> Result<Response, PlaneError> {
    let answer = request.send().await.map_err(PlaneError::from_transport)?;
    if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
        return Ok(answer);
    }
    let (status, headers) = (answer.status(), answer.headers().clone());
    // A refusal counts as one even where its explanation cannot be read.
    let body = read(answer, BODY_BYTES_MAX).await.unwrap_or_default();
    Err(PlaneError::from_answer(status, &headers, &body))
}

/// Takes the content out of a success.
async fn unwrap<T: DeserializeOwned>(answer: Response) -> Result<T, PlaneError> {
    let envelope: Envelope<T> = json(answer, BODY_BYTES_MAX).await?;
    Ok(envelope.data)
}

async fn json<T: DeserializeOwned>(answer: Response, bytes_max: usize) -> Result<T, PlaneError> {
    expect_media_type(&answer, JSON)?;
    let body = read(answer, bytes_max).await?;
    serde_json::from_slice(&body).map_err(|error| {
        // serde_json's own text could repeat a secret that stands in the answer.
        let (line, column) = (error.line(), error.column());
        PlaneError::Malformed(format!("its JSON is not as agreed at line {line} column {column}"))
    })
}

fn expect_media_type(answer: &Response, expected: &str) -> Result<(), PlaneError> {
    let found = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let found = found.unwrap_or("nothing").split(';').next().unwrap_or_default().trim();
    if found == expected {
        return Ok(());
    }
    Err(PlaneError::Malformed(format!(
        "it is {}, not {expected} (does a proxy or another site answer there?)",
        error::clip(found)
    )))
}

async fn read(mut answer: Response, bytes_max: usize) -> Result<Vec<u8>, PlaneError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(PlaneError::from_transport)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(PlaneError::Malformed(format!("it is larger than {bytes_max} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
