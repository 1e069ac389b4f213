//! Calls to Cloudflare: counted before they are made, read to the end, repeated where that is safe.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::action::Action;
use super::error::{ApiError, CloudflareError, shorten};
use super::transport::{Answer, Request, Transport, TransportError};
use crate::target::marked::budget::Budget;

/// How often a question is asked, the first time included. A change is asked for once: whether it
/// was made is seen by reading.
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; twice as long before the third.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(500);
const ATTEMPT_MAX: Duration = Duration::from_secs(6);
/// The first wait where Cloudflare asks for patience and does not say how much; the next are twice as
/// long each, up to a limit.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_DOUBLINGS_MAX: u32 = 7;

/// One way to Cloudflare for each target.
#[derive(Debug)]
pub struct Cloudflare {
    transport: Box<dyn Transport>,
    budget: Budget,
    /// How often in a row we were asked for patience.
    throttled: AtomicU32,
}

/// What every answer looks like.
#[derive(Debug, Deserialize)]
struct Envelope {
    success: bool,
    errors: Option<Vec<ApiError>>,
    result: Option<Value>,
    result_info: Option<Value>,
}

/// Where a page stands among the others.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct PageInfo {
    pub(super) total_pages: Option<usize>,
    pub(super) total_count: Option<usize>,
    #[serde(default)]
    pub(super) cursors: Cursors,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Cursors {
    pub(super) after: Option<String>,
}

impl Cloudflare {
    /// The most that a target may be let call in a minute: half of what Cloudflare grants a user, which
    /// is 1,200 calls in five minutes.
    pub const CALLS_PER_MINUTE_MAX: u16 = 120;
    /// A quarter of that: four targets with one token stay within it.
    pub const CALLS_PER_MINUTE: u16 = 30;

    /// Reaches Cloudflare this way, with at most so many calls in any minute, repetitions included.
    pub fn over(transport: impl Transport, calls_per_minute: u16) -> Cloudflare {
        Cloudflare {
            transport: Box::new(transport),
            budget: Budget::new(calls_per_minute),
            throttled: AtomicU32::new(0),
        }
    }

    /// Asks; repeats the question where no answer says anything.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        action: Action,
        path: String,
    ) -> Result<(T, PageInfo), CloudflareError> {
        let request = Request { method: Method::GET, path, body: None };
        let mut pause = ATTEMPT_PAUSE;
        for _ in 1..ATTEMPTS_MAX {
            match self.once(action, request.clone()).await {
                Err(CloudflareError::Unclear { .. }) => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 2;
        }
        self.once(action, request).await
    }

    /// Changes something. After an unclear answer it may have been changed.
    pub(super) async fn change<T: DeserializeOwned>(
        &self,
        action: Action,
        method: Method,
        path: String,
        body: Option<Value>,
    ) -> Result<T, CloudflareError> {
        let body = body.map(|body| body.to_string());
        Ok(self.once(action, Request { method, path, body }).await?.0)
    }

    /// Says whether calls are left beside those that are kept for what must close.
    pub(super) fn may_open(&self) -> Result<(), CloudflareError> {
        Ok(self.budget.has_spare()?)
    }

    async fn once<T: DeserializeOwned>(
        &self,
        action: Action,
        request: Request,
    ) -> Result<(T, PageInfo), CloudflareError> {
        self.budget.take()?;
        let unclear = |message: String| CloudflareError::Unclear { action, message };
        let answer = match tokio::time::timeout(ATTEMPT_MAX, self.transport.send(request)).await {
            Err(_) => {
                return Err(unclear(format!("no answer within {} s", ATTEMPT_MAX.as_secs())));
            }
            Ok(Err(TransportError::Token(message))) => {
                return Err(CloudflareError::NoToken { message });
            }
            Ok(Err(TransportError::Broken(message))) => return Err(unclear(shorten(&message))),
            Ok(Ok(answer)) => answer,
        };
        self.read(action, &answer)
    }

    fn read<T: DeserializeOwned>(
        &self,
        action: Action,
        answer: &Answer,
    ) -> Result<(T, PageInfo), CloudflareError> {
        let wait = answer.retry_after.unwrap_or_else(|| self.patience());
        if answer.status == 429 {
            self.throttled.fetch_add(1, Ordering::Relaxed);
        } else {
            self.throttled.store(0, Ordering::Relaxed);
        }
        let refused =
            |errors: &[ApiError]| CloudflareError::from_answer(action, answer.status, errors, wait);
        let is_success = (200..300).contains(&answer.status);
        let Ok(envelope) = serde_json::from_slice::<Envelope>(&answer.body) else {
            // Whoever stands in between may say anything, a success too.
            let message = format!("HTTP {} without an answer of Cloudflare's", answer.status);
            return Err(match answer.status {
                401 | 429 => refused(&[]),
                _ => CloudflareError::Unclear { action, message },
            });
        };
        if !is_success || !envelope.success {
            return Err(refused(&envelope.errors.unwrap_or_default()));
        }
        let result = serde_json::from_value(envelope.result.unwrap_or_default());
        let result = result.map_err(|error| {
            let message = shorten(&format!("an answer that is not as agreed: {error}"));
            CloudflareError::Unclear { action, message }
        })?;
        let info = envelope.result_info.and_then(|info| serde_json::from_value(info).ok());
        Ok((result, info.unwrap_or_default()))
    }

    fn patience(&self) -> Duration {
        let doublings = self.throttled.load(Ordering::Relaxed).min(PATIENCE_DOUBLINGS_MAX);
        PATIENCE * 2_u32.pow(doublings)
    }
}
