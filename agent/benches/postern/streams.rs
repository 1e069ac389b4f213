//! What the control plane's release build holds in memory for each follower of a list on which
//! nothing happens: a connection of its own, over TLS, with one HTTP/2 stream.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use reqwest::{Client, Response, Version};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::runtime::Builder;

use crate::daemon::{Daemon, binary, text, wait_for};
use crate::figure::Figure;

const STREAMS: usize = 5_000;
/// As many as one credential may have.
const STREAMS_OF_KEY: usize = 16;
/// Connections that are opened at once.
const AT_ONCE: usize = 100;
/// Loopback addresses that they come from: one alone has not enough seats.
const SOURCES: usize = 10;
/// What opening needed for the moment is given back some seconds after it.
const SETTLED: Duration = Duration::from_secs(20);
const PLANE: &str = "127.0.0.1:8444";

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    // Each stream is a file here and another in the control plane, which inherits the limit.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let folder = folder.join("streams");
    let name = folder.to_str().context("the path is text")?;
    let program = binary("postern-controlplane")?;
    let url = format!("https://{PLANE}");
    let init = ["init", "--data-dir", name, "--public-url", &url];
    crate::run(&program, &[&init[..], &["--org", "bench", "--admin", "a@example.org"]].concat())?;
    let config = folder.join("controlplane.yaml");
    fs::write(
        &config,
        format!(
            "data_dir: {name}\npublic_url: {url}\nlisten:\n  - address: {PLANE}\n    tls: {{ \
             certificate: {name}/tls.crt, key: {name}/tls.key }}\nlimits:\n  reads_per_minute: \
             100000\n"
        ),
    )?;
    let config = config.to_str().context("the path is text")?;
    let log = folder.join("controlplane.log");
    let plane = Daemon::start("postern-controlplane", &["serve"], config, &log)?;
    wait_for("the control plane", || TcpStream::connect(PLANE).is_ok())?;
    let ask = |args: &[&str]| -> anyhow::Result<Value> {
        let printed = crate::run(&program, &[args, &["--config", config, "--json"]].concat())?;
        Ok(serde_json::from_str(&printed)?)
    };
    let group = text(&ask(&["group", "add", "bench"])?, "id")?;
    let mint = ["key", "mint", "--name", "bench", "--scope", "groups.read"];
    let mint = [&mint[..], &["--origin", "127.0.0.0/8"]].concat();
    let keys: Vec<String> = (0..STREAMS.div_ceil(STREAMS_OF_KEY))
        .map(|_| text(&ask(&mint)?, "secret"))
        .collect::<anyhow::Result<_>>()?;

    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let url = format!("{url}/api/v1/stream?group={group}");
    let before = plane.resident_mib()?;
    let mut open = Vec::new();
    for first in (0..STREAMS).step_by(AT_ONCE) {
        let more = (first..first + AT_ONCE)
            .map(|number| follow(number, &url, &keys[number / STREAMS_OF_KEY]));
        open.extend(runtime.block_on(try_join_all(more))?);
    }
    std::thread::sleep(SETTLED);
    let grown = plane.resident_mib()? - before;
    anyhow::ensure!(open.len() == STREAMS, "all of them are open");
    drop(open);
    Ok(vec![Figure::new("stream_idle_kib", grown * 1_024.0 / STREAMS as f64, "KiB")])
}

/// Follows the group on a connection of its own; answers when the first list has come.
async fn follow(number: usize, url: &str, key: &str) -> anyhow::Result<(Client, Response)> {
    let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
    let client = Client::builder()
        .local_address(Some(source.into()))
        .tls_danger_accept_invalid_certs(true)
        .build()?;
    let mut answer = client.get(url).bearer_auth(key).send().await?.error_for_status()?;
    anyhow::ensure!(answer.version() == Version::HTTP_2, "not HTTP/2");
    anyhow::ensure!(answer.chunk().await?.is_some(), "no list came");
    Ok((client, answer))
}
