//! A list of 10,000 entries as text, beside nginx with the same bytes in a file; and the answer that
//! nothing has changed, beside a handler that does nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::{Builder, Runtime};

use crate::daemon::wait_for;
use crate::figure::Figure;
use crate::load::{self, Connection};
use crate::plane::{NOTHING, Plane};

const ENTRIES: u32 = 10_000;
const CLIENTS: usize = 50;
/// Many short rounds in turns: what else the machine does then meets both sides alike.
const ROUND: Duration = Duration::from_secs(1);
const ROUNDS: usize = 9;
const NGINX: &str = "127.0.0.1:8099";

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir_in(folder)?;
    let (server, clients) = (runtime()?, runtime()?);
    let (plane, key) = server.block_on(async {
        let plane = Plane::start(folder.path()).await?;
        plane.networks(ENTRIES).await?;
        let key = plane.key().await?.expose().to_owned();
        anyhow::Ok((plane, key))
    })?;
    let path = format!("/api/v1/groups/{}/ips?format=text", plane.group);
    let whole = load::get(&path, &key, "");
    let (list, tag) = clients.block_on(async {
        let mut client = Connection::open(plane.address).await?;
        let list = client.ask(&whole).await?;
        let tag = client.last_head()?.lines().find_map(|line| line.strip_prefix("etag: "));
        anyhow::Ok((list, tag.context("the list has a version")?.to_owned()))
    })?;
    anyhow::ensure!(list.lines().count() == ENTRIES as usize, "the list is whole");
    let nginx = Nginx::start(folder.path(), &list)?;
    let rate = |server: SocketAddr, request: &str| -> anyhow::Result<f64> {
        let request = request.to_owned();
        let next = move |_, _| request.clone();
        let answered = clients.block_on(load::run(server, CLIENTS, ROUND, next))?;
        Ok(answered as f64 / ROUND.as_secs_f64() / ROUNDS as f64)
    };
    // The same request to both: what it takes to read is no part of what the handlers take.
    let condition = format!("If-None-Match: {tag}\r\n");
    let unchanged = load::get(&path, &key, &condition);
    let nothing = load::get(NOTHING, &key, &condition);
    let file = "GET /list HTTP/1.1\r\nHost: nginx\r\n\r\n";
    let (mut text, mut text_floor, mut same, mut same_floor) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..ROUNDS {
        text_floor += rate(nginx.address()?, file)?;
        text += rate(plane.address, &whole)?;
        same_floor += rate(plane.floor, &nothing)?;
        same += rate(plane.address, &unchanged)?;
    }
    clients.shutdown_background();
    server.shutdown_background();
    Ok(vec![
        Figure::new("feed_text_10k_per_s", text, "1/s").with_floor(text_floor),
        Figure::new("feed_unchanged_per_s", same, "1/s").with_floor(same_floor),
    ])
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// An nginx that serves a file; ends with this value.
struct Nginx(Child);

impl Nginx {
    fn start(folder: &Path, list: &str) -> anyhow::Result<Nginx> {
        fs::write(folder.join("list"), list)?;
        let config = folder.join("nginx.conf");
        fs::write(
            &config,
            format!(
                "daemon off; user root; worker_processes 2; pid {0}/nginx.pid; error_log stderr;\n\
                 events {{}}\n\
                 http {{ access_log off; sendfile on; keepalive_requests 100000000;\n\
                 server {{ listen {NGINX}; root {0}; default_type text/plain; }} }}\n",
                folder.display()
            ),
        )?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .context("nginx (package nginx-light) is needed")?;
        let nginx = Nginx(child);
        wait_for("nginx", || std::net::TcpStream::connect(NGINX).is_ok())?;
        Ok(nginx)
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(NGINX.parse()?)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // TERM, so that the workers end with their master.
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap_or_default();
        drop(self.0.wait());
    }
}
