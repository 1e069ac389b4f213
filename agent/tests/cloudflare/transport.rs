//! The way between the agent's client and the fake, without a socket, so that time can be paused;
//! hostile on demand.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use postern_agent::target::cloudflare::{Answer, Cloudflare, Request, Transport, TransportError};
use tokio::time::Instant;

use crate::bad_way::Fault;
pub(crate) use crate::bad_way::Hostility;
use crate::chance::Chance;
use crate::fake::{self, FakeCloudflare};
use crate::provider::Sent;

/// A client for the fake, and what it sends.
pub(crate) fn client(
    fake: &FakeCloudflare,
    seed: u64,
    hostility: Hostility,
    calls_per_minute: u16,
) -> (Cloudflare, Sent) {
    let sent = Sent::default();
    let chance = Arc::new(Mutex::new(Chance::new(seed)));
    let wire = Wire { fake: fake.clone(), chance, hostility, sent: Arc::clone(&sent) };
    (Cloudflare::over(wire, calls_per_minute), sent)
}

struct Wire {
    fake: FakeCloudflare,
    chance: Arc<Mutex<Chance>>,
    hostility: Hostility,
    sent: Sent,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Transport for Wire {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, TransportError>> {
        Box::pin(self.pass(request))
    }
}

impl Wire {
    async fn pass(&self, request: Request) -> Result<Answer, TransportError> {
        self.sent.lock().unwrap().push(Instant::now());
        let fault = self.hostility.draw(&mut self.chance.lock().unwrap());
        let Some(fault) = fault else { return Ok(self.ask(&request)) };
        match fault {
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(self.ask(&request))
            }
            Fault::Throttled => {
                let says_when = self.chance.lock().unwrap().once_in(2);
                let retry_after = says_when.then_some(Duration::from_secs(3));
                let body = r#"{"success":false,"errors":[{"code":971,"message":"slow down"}]}"#;
                Ok(Answer { retry_after, ..answer(429, body) })
            }
            Fault::Html => Ok(answer(502, "<html><body>502 Bad gateway</body></html>")),
            Fault::HtmlAsSuccess => Ok(answer(200, "<!DOCTYPE html><html><body>Sign in")),
            Fault::Failed { was_done } => {
                if was_done {
                    self.ask(&request);
                }
                let body = r#"{"success":false,"errors":[{"code":10001,"message":"oops"}]}"#;
                Ok(answer(500, body))
            }
            Fault::Ended { was_done } => {
                if was_done {
                    self.ask(&request);
                }
                Err(TransportError::Broken("the connection ended".to_owned()))
            }
            Fault::Cut => {
                let whole = self.ask(&request);
                let half = whole.body[..whole.body.len() / 2].to_vec();
                Ok(Answer { body: half, ..whole })
            }
            Fault::Silence => {
                self.ask(&request);
                std::future::pending().await
            }
        }
    }

    fn ask(&self, request: &Request) -> Answer {
        let body = request.body.as_deref().unwrap_or_default().as_bytes();
        let request = fake::Request::read(request.method.as_str(), &request.path, body);
        let fake::Answer { status, retry_after, body } = self.fake.answer(&request);
        Answer { retry_after: retry_after.map(Duration::from_secs), ..answer(status, &body) }
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, retry_after: None, body: body.as_bytes().to_vec() }
}
