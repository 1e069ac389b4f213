//! The way to Cloudflare: one HTTPS connection with the token; tests have another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};

use crate::credential::Place;
use crate::disk::{self, SecretError};

/// The file of the token in `$CREDENTIALS_DIRECTORY`.
pub(crate) const TOKEN_FILE_NAME: &str = "cloudflare-token";
/// Where Cloudflare is, unless the operator says otherwise.
const BASE: &str = "https://api.cloudflare.com/client/v4/";
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Largest answer: a page of 500 items with the longest comments has less than 0.5 MB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Tokens have 40 to 60 characters.
const TOKEN_BYTES_MAX: u64 = 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// GET, POST, PATCH or DELETE.
    pub method: Method,
    /// Path and query below the API's base, without a slash at its beginning.
    pub path: String,
    /// JSON, where there is a body.
    pub body: Option<String>,
}

/// What is answered, by whomever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Retry-After`, where it is there and says seconds.
    pub retry_after: Option<Duration>,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    /// There is no token to ask with.
    #[error("{0}")]
    Token(String),
    /// Nobody answered, or not to the end.
    #[error("{0}")]
    Broken(String),
}

/// Sends requests. What was asked may have been done whatever comes back.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends one request.
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, TransportError>>;
}

/// Where the API is, and as whom we ask.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Another address than Cloudflare's own.
    pub(crate) base: Option<String>,
    /// Where the token is.
    pub(crate) token: Place,
}

impl Endpoint {
    /// Finds the token: in the file that is named, else with what the service manager gave.
    pub(crate) fn find(
        base: Option<String>,
        token_file: Option<&Path>,
        credentials_directory: Option<&Path>,
    ) -> Result<Endpoint, String> {
        let given = credentials_directory.map(|directory| directory.join(TOKEN_FILE_NAME));
        let token = match (token_file, given) {
            (Some(path), _) => Place::File(path.to_owned()),
            (None, Some(path)) => Place::ServiceManager(path),
            (None, None) => {
                return Err(format!(
                    "there is no token for Cloudflare: name its file in `token_file`, or let \
                     systemd give the credential `{TOKEN_FILE_NAME}`"
                ));
            }
        };
        Ok(Endpoint { base, token })
    }
}

/// [`Transport`] over HTTPS. The token is read at its first use, and again when it was refused.
#[derive(Debug)]
pub(crate) struct Https {
    endpoint: Endpoint,
    /// Made at its first use.
    made: Mutex<Made>,
}

#[derive(Debug, Clone, Default)]
struct Made {
    client: Option<reqwest::Client>,
    /// Marked as sensitive, so that it is never shown.
    token: Option<HeaderValue>,
}

impl Https {
    pub(crate) fn new(endpoint: Endpoint) -> Https {
        Https { endpoint, made: Mutex::default() }
    }

    fn client(&self) -> Result<reqwest::Client, TransportError> {
        let mut made = self.made.lock().expect("nobody panics while holding it");
        if let Some(client) = &made.client {
            return Ok(client.clone());
        }
        let client = reqwest::Client::builder()
            .user_agent(concat!("postern-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .tcp_nodelay(true)
            .build()
            .map_err(broken)?;
        made.client = Some(client.clone());
        Ok(client)
    }

    async fn token(&self) -> Result<HeaderValue, TransportError> {
        let known = self.made.lock().expect("nobody panics while holding it").token.clone();
        if let Some(token) = known {
            return Ok(token);
        }
        let place = self.endpoint.token.clone();
        // On a blocking thread: it reads a file.
        let read = tokio::task::spawn_blocking(move || read_token(&place)).await;
        let token = read.unwrap_or_else(|_| Err("the token could not be read".to_owned()));
        let token = token.map_err(TransportError::Token)?;
        self.made.lock().expect("nobody panics while holding it").token = Some(token.clone());
        Ok(token)
    }

    async fn ask(&self, request: Request) -> Result<Answer, TransportError> {
        let base = self.endpoint.base.as_deref().unwrap_or(BASE).trim_end_matches('/');
        let url = Url::parse(&format!("{base}/{}", request.path))
            .map_err(|error| TransportError::Broken(format!("`endpoint`: {error}")))?;
        let token = self.token().await?;
        let mut call = self.client()?.request(request.method, url).header(AUTHORIZATION, token);
        if let Some(body) = request.body {
            call = call.header(CONTENT_TYPE, "application/json").body(body);
        }
        let answer = call.send().await.map_err(broken)?;
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status()) {
            // Another may have been put into the file.
            self.made.lock().expect("nobody panics while holding it").token = None;
        }
        read(answer).await
    }
}

impl Transport for Https {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, TransportError>> {
        Box::pin(self.ask(request))
    }
}

async fn read(mut answer: Response) -> Result<Answer, TransportError> {
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok());
    let retry_after = retry_after.map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if BODY_BYTES_MAX < body.len() + chunk.len() {
            let why = format!("the answer is larger than {BODY_BYTES_MAX} bytes");
            return Err(TransportError::Broken(why));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, retry_after, body })
}

/// Reads a token from its file. No answer repeats anything of it.
fn read_token(place: &Place) -> Result<HeaderValue, String> {
    let path: PathBuf = place.path().to_owned();
    let content = place.read(TOKEN_BYTES_MAX).map_err(|error| match error {
        SecretError::Missing => format!("there is no token for Cloudflare in {}", path.display()),
        SecretError::Exposed { mode } => format!(
            "the token in {} may be read by others (mode {mode:03o}): chmod 600 it, and make \
             another token if anybody could have read it",
            path.display()
        ),
        SecretError::Foreign { owner } => format!(
            "the token in {} belongs to user {owner}, who could change it: chown it to user {}, as \
             whom this runs, or to root and let systemd give it",
            path.display(),
            disk::own_user()
        ),
        SecretError::Io(error) => format!(
            "the token in {} cannot be read by user {}, as whom this runs: {error}; chown it to that \
             user, or let systemd give it as the credential `{TOKEN_FILE_NAME}`",
            path.display(),
            disk::own_user()
        ),
    })?;
    let content = content.trim_ascii();
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if content.is_empty() || !content.iter().all(is_token) {
        return Err(format!("{} holds no token, which is one word alone", path.display()));
    }
    let value = [b"Bearer ", content].concat();
    let mut value = HeaderValue::from_bytes(&value).expect("letters and digits are a header");
    value.set_sensitive(true);
    Ok(value)
}

fn broken(error: reqwest::Error) -> TransportError {
    TransportError::Broken(postern_shared::error::chain(&error.without_url()))
}
