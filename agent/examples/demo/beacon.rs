//! What a laptop does: reports where it is, with its bookmark and nothing else.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use postern_shared::wire::v1::{BeaconAnswer, BeaconRequest, Envelope};

use crate::daemon::operate;
use crate::hosts;
use crate::network::LAPTOP;

/// How long an answer may take; it waits up to 5 s for the hosts to confirm.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Reports from one of the laptop's addresses, in a process there. Answers when it began, too.
pub(crate) fn send(
    program: &str,
    source: Ipv4Addr,
    bookmark: &str,
) -> Result<(SystemTime, BeaconAnswer)> {
    let mut command = LAPTOP.command(program);
    command.args(["beacon", &source.to_string()]).arg(hosts::certificate());
    let sent = SystemTime::now();
    let answer = operate(command, bookmark)?;
    Ok((sent, serde_json::from_slice(&answer).context("read the beacon's answer")?))
}

/// The reporting process itself: reads a bookmark, posts to it from `source` and prints what came
/// back.
pub(crate) fn report(source: Ipv4Addr, certificate: &Path) -> Result<()> {
    let bookmark = io::read_to_string(io::stdin())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = runtime.block_on(post(source, bookmark.trim(), certificate))?;
    println!("{body}");
    Ok(())
}

async fn post(source: Ipv4Addr, bookmark: &str, certificate: &Path) -> Result<String> {
    // Whatever ends up first as the process's TLS provider is the one that is wanted.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let certificate = fs::read(certificate).context("read the plane's certificate")?;
    let client = reqwest::Client::builder()
        .local_address(IpAddr::from(source))
        .tls_certs_only([reqwest::Certificate::from_pem(&certificate)?])
        .timeout(ANSWER_WAIT)
        .build()?;
    let request = client.post(bookmark).header("prefer", "wait=5");
    let request = request.header("accept", "application/json").json(&BeaconRequest::default());
    let response = request.send().await.context("report the address")?;
    let status = response.status();
    let text = response.text().await?;
    ensure!(status.is_success(), "the beacon was refused: {status} {text}");
    let envelope: Envelope<BeaconAnswer> =
        serde_json::from_str(&text).with_context(|| format!("read the answer {text}"))?;
    Ok(serde_json::to_string(&envelope.data)?)
}
