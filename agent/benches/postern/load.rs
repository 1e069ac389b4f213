//! Clients that ask as fast as they are answered, over HTTP/1.1 connections that stay open.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request as it goes over the wire.
pub(crate) type Request = String;

/// A POST without a body, from a client whose address a trusted proxy reports.
pub(crate) fn post(path: &str, client: &str) -> Request {
    format!(
        "POST {path} HTTP/1.1\r\nHost: plane\r\nAccept: application/json\r\n\
         X-Forwarded-For: {client}\r\nContent-Length: 0\r\n\r\n"
    )
}

/// A GET by the holder of a key; `more` are header fields, each with its end of line.
pub(crate) fn get(path: &str, key: &str, more: &str) -> Request {
    format!(
        "GET {path} HTTP/1.1\r\nHost: plane\r\nX-Forwarded-For: 203.0.113.1\r\n\
         Authorization: Bearer {key}\r\n{more}\r\n"
    )
}

/// Has `clients` connections send what `next(client, round)` says, one request after the other,
/// for `span`; answers how many were answered, and fails on the first that was not a success.
pub(crate) async fn run<F>(
    server: SocketAddr,
    clients: usize,
    span: Duration,
    next: F,
) -> anyhow::Result<u64>
where
    F: Fn(usize, u64) -> Request + Clone + Send + 'static,
{
    let until = Instant::now() + span;
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let next = next.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(server).await?;
                let mut answered = 0;
                while Instant::now() < until {
                    connection.exchange(&next(client, answered)).await?;
                    answered += 1;
                }
                anyhow::Ok(answered)
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += task.await??;
    }
    Ok(answered)
}

/// A connection on which one request is under way at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(4_096) })
    }

    /// Sends a request and waits for the whole answer, which must be a success; answers its body.
    pub(crate) async fn ask(&mut self, request: &str) -> anyhow::Result<String> {
        let body = self.exchange(request).await?;
        Ok(String::from_utf8_lossy(&self.buffer[body]).into_owned())
    }

    /// The head of the last answer.
    pub(crate) fn last_head(&self) -> anyhow::Result<&str> {
        let end = self.head()?.map_or(0, |(head, _)| head);
        Ok(std::str::from_utf8(&self.buffer[..end])?)
    }

    /// Sends a request and waits for the whole answer; says where in the buffer the body is.
    async fn exchange(&mut self, request: &str) -> anyhow::Result<Range<usize>> {
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        loop {
            if let Some((head, length)) = self.head()?
                && head + length <= self.buffer.len()
            {
                return Ok(head..head + length);
            }
            anyhow::ensure!(0 < self.stream.read_buf(&mut self.buffer).await?, "connection closed");
        }
    }

    /// Where the body begins and how long it is, once the head is there.
    fn head(&self) -> anyhow::Result<Option<(usize, usize)>> {
        let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.buffer[..end])?;
        anyhow::ensure!(
            head.starts_with("HTTP/1.1 2") || head.starts_with("HTTP/1.1 304 "),
            "{}",
            String::from_utf8_lossy(&self.buffer)
        );
        if head.starts_with("HTTP/1.1 304 ") {
            return Ok(Some((end + 4, 0)));
        }
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(Ok(0), |(_, value)| value.trim().parse())?;
        Ok(Some((end + 4, length)))
    }
}
