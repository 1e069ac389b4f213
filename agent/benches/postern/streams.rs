//! What the control plane's release build holds in memory for each follower of a list on which
//! nothing happens: a connection of its own, over TLS, with one HTTP/2 stream. Beside it what
//! hyper and rustls hold for the same stream, served by them alone.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::future::ready;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::{once, pending};
use http_body_util::StreamBody;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::{Client, Response, Version};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;

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
const FLOOR: &str = "127.0.0.1:8445";

/// Set in the process that is the floor: the folder with its certificate.
pub(crate) const PART: &str = "POSTERN_BENCH_IDLE";

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

    let ours = idle_kib(&plane, &format!("{url}/api/v1/stream?group={group}"), &keys)?;
    drop(plane);
    let floor = Daemon::start_self((PART, name), &folder.join("floor.log"))?;
    wait_for("the floor", || TcpStream::connect(FLOOR).is_ok())?;
    let floor = idle_kib(&floor, &format!("https://{FLOOR}/"), &keys)?;
    Ok(vec![Figure::new("stream_idle_kib", ours, "KiB").with_floor(floor)])
}

/// Opens all the streams, and answers by how much that made the server grow, for each of them.
fn idle_kib(server: &Daemon, url: &str, keys: &[String]) -> anyhow::Result<f64> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // What the first of all needs is no part of what each needs.
    drop(runtime.block_on(follow(0, url, &keys[0]))?);
    let before = server.resident_mib()?;
    let mut open = Vec::new();
    for first in (0..STREAMS).step_by(AT_ONCE) {
        let more = (first..first + AT_ONCE)
            .map(|number| follow(number, url, &keys[number / STREAMS_OF_KEY]));
        open.extend(runtime.block_on(try_join_all(more))?);
    }
    std::thread::sleep(SETTLED);
    let grown = server.resident_mib()? - before;
    anyhow::ensure!(open.len() == STREAMS, "all of them are open");
    Ok(grown * 1_024.0 / STREAMS as f64)
}

/// The floor: serves any request over TLS and HTTP/2 with one event and then silence, by hyper and
/// rustls alone, without a limit, a right or a list. Never ends.
pub(crate) fn serve_idle(folder: &OsStr) -> anyhow::Result<()> {
    let folder = Path::new(folder);
    let certificates = CertificateDer::pem_file_iter(folder.join("tls.crt"))?;
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(
        certificates.collect::<Result<_, _>>()?,
        PrivateKeyDer::from_pem_file(folder.join("tls.key"))?,
    )?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(FLOOR).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            let handshake = acceptor.accept(socket);
            tokio::spawn(async move {
                let Ok(socket) = Box::pin(handshake).await.map(Box::new) else { return };
                let served = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service_fn(answer_and_wait));
                drop(Box::pin(served).await);
            });
        }
    })
}

async fn answer_and_wait(
    _: Request<Incoming>,
) -> Result<hyper::Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let event = Ok(Frame::data(Bytes::from_static(b":\n\n")));
    Ok(hyper::Response::new(StreamBody::new(once(ready(event)).chain(pending()))))
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
