//! The way between the SDK and an endpoint, without a socket, so that time can be paused; hostile on
//! demand.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_sdk_ec2::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ec2::config::{BehaviorVersion, Builder, Credentials, Region, SharedHttpClient};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use postern_agent::target::aws::Ec2;
use tokio::time::Instant;

use crate::bad_way::Fault;
pub(crate) use crate::bad_way::Hostility;
use crate::chance::Chance;
use crate::fake::FakeEc2;
use crate::moto;
use crate::provider::Sent;

/// Where calls end up.
#[derive(Clone)]
pub(crate) enum End {
    Fake(FakeEc2),
    Moto(String),
}

impl End {
    async fn answer(&self, body: &[u8]) -> (u16, String) {
        match self {
            End::Fake(fake) => fake.answer(body),
            End::Moto(url) => moto::post(url, body.to_vec()).await,
        }
    }
}

/// A client for this endpoint, and what it sends.
pub(crate) fn client(
    fake: &FakeEc2,
    seed: u64,
    hostility: Hostility,
    calls_per_minute: u16,
) -> (Ec2, Sent) {
    to(End::Fake(fake.clone()), seed, hostility, calls_per_minute)
}

/// The same for whichever end.
pub(crate) fn to(end: End, seed: u64, hostility: Hostility, calls_per_minute: u16) -> (Ec2, Sent) {
    let sent = Sent::default();
    let chance = Arc::new(Mutex::new(Chance::new(seed)));
    let wire = Wire { end, chance, hostility, sent: Arc::clone(&sent) };
    let config = config(SharedHttpConnector::new(wire));
    (Ec2::over(config, calls_per_minute), sent)
}

fn config(connector: SharedHttpConnector) -> Builder {
    Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(Credentials::new("fake", "fake", None, None, "fake"))
        .time_source(PausedTime(Instant::now()))
        .http_client(wire(connector))
}

fn wire(connector: SharedHttpConnector) -> SharedHttpClient {
    http_client_fn(move |_, _| connector.clone())
}

/// The SDK's own throttle reads a clock: this one is the tests', the same on every run.
#[derive(Debug)]
struct PausedTime(Instant);

impl TimeSource for PausedTime {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.0.elapsed()
    }
}

#[derive(Clone)]
struct Wire {
    end: End,
    chance: Arc<Mutex<Chance>>,
    hostility: Hostility,
    sent: Sent,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let wire = self.clone();
        HttpConnectorFuture::new(async move {
            let body = request.body().bytes().unwrap_or_default().to_vec();
            wire.pass(&body).await
        })
    }
}

impl Wire {
    async fn pass(&self, body: &[u8]) -> Result<HttpResponse, ConnectorError> {
        self.sent.lock().unwrap().push(Instant::now());
        let fault = self.hostility.draw(&mut self.chance.lock().unwrap());
        match fault {
            None => Ok(response(self.end.answer(body).await)),
            Some(Fault::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(response(self.end.answer(body).await))
            }
            Some(Fault::Throttled) => Ok(response((
                503,
                "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit \
                 exceeded.</Message></Error></Errors><RequestID>r</RequestID></Response>"
                    .to_owned(),
            ))),
            Some(Fault::Html) => Ok(response((503, "<html><body>503</body></html>".to_owned()))),
            Some(Fault::HtmlAsSuccess) => {
                Ok(response((200, "<!DOCTYPE html><html><body>Sign in".to_owned())))
            }
            Some(Fault::Failed { was_done }) => {
                if was_done {
                    self.end.answer(body).await;
                }
                Ok(response((
                    500,
                    "<Response><Errors><Error><Code>InternalError</Code><Message>An internal error \
                     has occurred</Message></Error></Errors><RequestID>r</RequestID></Response>"
                        .to_owned(),
                )))
            }
            Some(Fault::Ended { was_done }) => {
                if was_done {
                    self.end.answer(body).await;
                }
                Err(ConnectorError::io("the connection ended".into()))
            }
            Some(Fault::Cut) => {
                let (status, text) = self.end.answer(body).await;
                Ok(response((status, text[..text.len() / 2].to_owned())))
            }
            Some(Fault::Silence) => {
                self.end.answer(body).await;
                std::future::pending().await
            }
        }
    }
}

fn response((status, body): (u16, String)) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), body.into())
}
