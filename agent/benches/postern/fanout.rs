//! From one report to the last of all followers.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use postern_shared::token::Token;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::figure::{Figure, Times};
use crate::load::{self, Connection};
use crate::plane::{self, Plane};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn figures(folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = Vec::new();
    for (name, followers, moves) in
        [("fanout_100_p99_ms", 100, 300), ("fanout_1000_p99_ms", 1_000, 200)]
    {
        let folder = tempfile::tempdir_in(folder)?;
        let times = runtime.block_on(measure(folder.path(), followers, moves))?;
        figures.push(Figure::new(name, times.quantile_ms(0.99), "ms"));
    }
    Ok(figures)
}

async fn measure(folder: &Path, followers: usize, moves: u64) -> anyhow::Result<Times> {
    let plane = Plane::start(folder).await?;
    let bookmark = plane.pair(true).await?;
    let (heard, mut hears) = mpsc::channel(followers);
    let mut keys = Vec::new();
    for _ in 0..followers {
        keys.push(plane.key().await?);
    }
    try_join_all(keys.iter().map(|key| follow(&plane, key, heard.clone()))).await?;
    for _ in 0..followers {
        let first = timeout(PATIENCE, hears.recv()).await?;
        anyhow::ensure!(first == Some(()), "a follower did not get its first list");
    }
    let mut client = Connection::open(plane.address).await?;
    let mut times = Times::default();
    for round in 0..moves {
        let elsewhere = plane::address(1, round).to_string();
        let start = Instant::now();
        client.ask(&load::post(&format!("/b/{}", bookmark.expose()), &elsewhere)).await?;
        for _ in 0..followers {
            timeout(PATIENCE, hears.recv()).await?;
        }
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Follows the group, and says so for each list and each change that comes.
async fn follow(plane: &Plane, key: &Token, heard: mpsc::Sender<()>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(plane.address).await?;
    let request = format!(
        "GET /api/v1/stream?group={} HTTP/1.1\r\nHost: plane\r\nX-Forwarded-For: 203.0.113.1\r\n\
         Authorization: Bearer {}\r\n\r\n",
        plane.group,
        key.expose()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut lines = BufReader::new(stream).lines();
    let status = timeout(PATIENCE, lines.next_line()).await??.unwrap_or_default();
    anyhow::ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("data: ") && heard.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
