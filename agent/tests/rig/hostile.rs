//! A control plane in the wrong hands: it answers as it should and says what it wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use postern_shared::allowlist::Allowlist;
use postern_shared::ids::{AgentId, Epoch, GroupId};
use postern_shared::network::Network;
use postern_shared::position::Revision;
use postern_shared::time::Expiry;
use postern_shared::wire::v1::{Entry, Snapshot, StreamEvent};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::now;

/// The plane and what it was told.
pub(crate) struct Hostile {
    address: SocketAddr,
    group: GroupId,
    said: watch::Sender<String>,
    receipts: Receipts,
    _runtime: Runtime,
}

type Receipts = Arc<Mutex<Vec<Value>>>;

impl Hostile {
    /// Takes the place of the plane that this group came from.
    pub(crate) fn start(group: GroupId) -> Hostile {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (said, hears) = watch::channel(String::from(":\n\n"));
        let receipts = Receipts::default();
        let noted = Arc::clone(&receipts);
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (hears, noted) = (hears.clone(), Arc::clone(&noted));
                // Whatever ends a connection, the next one is another.
                tokio::spawn(async move { drop(converse(stream, group, hears, noted).await) });
            }
        });
        Hostile { address, group, said, receipts, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says that this is the whole list, in a new epoch, to whoever follows or comes.
    pub(crate) fn snapshot(&self, epoch: u8, list: impl IntoIterator<Item = (Network, Expiry)>) {
        let list: Allowlist = list.into_iter().collect();
        let as_of = now();
        let entry = |(cidr, expires_at)| Entry { cidr, expires_at };
        let snapshot = StreamEvent::Snapshot(Snapshot {
            group: self.group,
            epoch: Epoch::from_random([epoch; 16]),
            revision: Revision(1),
            as_of,
            digest: list.digest_at(as_of),
            entries: list.iter().map(entry).collect(),
        });
        self.receipts.lock().unwrap().clear();
        self.said.send_replace(snapshot.to_sse().unwrap());
    }

    /// What the agent last said of the newest list.
    pub(crate) fn receipt(&self, epoch: u8) -> Option<Value> {
        let epoch = Epoch::from_random([epoch; 16]).to_string();
        let receipts = self.receipts.lock().unwrap();
        receipts.iter().rev().find(|receipt| receipt["epoch"] == epoch.as_str()).cloned()
    }
}

async fn converse(
    mut stream: TcpStream,
    group: GroupId,
    mut hears: watch::Receiver<String>,
    receipts: Receipts,
) -> std::io::Result<()> {
    let mut text = Vec::new();
    loop {
        let Some((line, body)) = request(&mut stream, &mut text).await? else { return Ok(()) };
        if line.starts_with("GET /api/v1/stream") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await?;
            loop {
                let said = hears.borrow_and_update().clone();
                stream.write_all(said.as_bytes()).await?;
                if hears.changed().await.is_err() {
                    return Ok(());
                }
            }
        }
        if line.starts_with("POST /api/v1/agents/self/receipts") {
            let body: Value = serde_json::from_slice(&body).unwrap();
            receipts.lock().unwrap().extend(body["receipts"].as_array().unwrap().iter().cloned());
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            continue;
        }
        let data = if line.starts_with("PUT /api/v1/agents/self") {
            json!({ "agent": AgentId::from_random([1; 16]), "name": "gatekeeper",
                "groups": [{ "id": group, "number": 1, "name": "web" }] })
        } else {
            json!({ "ipv4": "192.0.2.1", "ipv6": null, "moved": false, "expires_at": now(),
                "next": 300, "visit": "v", "confirmation": { "open": 0, "of": 0 } })
        };
        let meta = json!({ "request_id": "r", "timestamp": now() });
        let body = json!({ "data": data, "meta": meta }).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
    }
}

/// Reads the next request: its first line and its body.
async fn request(
    stream: &mut TcpStream,
    text: &mut Vec<u8>,
) -> std::io::Result<Option<(String, Vec<u8>)>> {
    loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let body_end = end + 4 + length.map_or(0, |length| length.parse().unwrap());
            if body_end <= text.len() {
                let body = text[end + 4..body_end].to_vec();
                let line = String::from_utf8_lossy(text).lines().next().unwrap().to_owned();
                text.drain(..body_end);
                return Ok(Some((line, body)));
            }
        }
        let mut buffer = [0; 16 * 1024];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        text.extend_from_slice(&buffer[..count]);
    }
}
