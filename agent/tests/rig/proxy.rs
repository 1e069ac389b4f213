//! A bad network between agent and control plane, on demand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::plane::PLAIN;
use crate::netns::HOST_V4;

/// What happens to what the plane sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It gets through.
    Fair,
    /// It gets through, each piece so much later.
    Slow(Duration),
    /// Nothing gets through any more, and no connection ends.
    BlackHole,
    /// Every connection ends after so many further bytes: in the middle of a line.
    CutAfter(usize),
    /// One bit of each of so many bytes is turned.
    Garble(usize),
    /// Streams are refused, everything else gets through.
    NoStreams,
}

/// Passes connections on to the plane, from an address that the plane takes for the host's own.
pub(crate) struct Proxy {
    mood: watch::Sender<Mood>,
    refused: Arc<AtomicUsize>,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Proxy {
    /// Starts to pass connections on.
    pub(crate) fn start() -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, moods) = watch::channel(Mood::Fair);
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refused);
        runtime.spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // Whatever ends a connection, the next one is another.
                let (moods, counted) = (moods.clone(), Arc::clone(&counted));
                tokio::spawn(async move { drop(pass_on(client, moods, counted).await) });
            }
        });
        Proxy { mood, refused, address, _runtime: runtime }
    }

    /// Where the agent finds the plane now.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what happens, to the connections that there are as well.
    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many streams were refused.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

async fn pass_on(
    client: TcpStream,
    moods: watch::Receiver<Mood>,
    refused: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    let own: IpAddr = HOST_V4.parse().unwrap();
    socket.bind(SocketAddr::new(own, 0))?;
    let plane = socket.connect(PLAIN.parse().unwrap()).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_plane, mut to_plane) = plane.into_split();
    let up = moods.clone();
    tokio::select! {
        done = upwards(&mut from_client, &mut to_plane, up, refused) => done,
        done = downwards(&mut from_plane, &mut to_client, moods) => done,
    }
}

async fn upwards(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moods: watch::Receiver<Mood>,
    refused: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let is_stream = buffer[..count].starts_with(b"GET /api/v1/stream");
        if is_stream && *moods.borrow() == Mood::NoStreams {
            // The plane itself refuses it then: 405.
            buffer[..3].copy_from_slice(b"PUT");
            refused.fetch_add(1, Ordering::SeqCst);
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn downwards(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut moods: watch::Receiver<Mood>,
) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    let mut passed = 0;
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count?,
            // A mood that ends connections ends those that are silent as well.
            _ = moods.changed() => continue,
        };
        // As it is now: what was sent under a fair mood must not fall into the hole before it.
        let mood = *moods.borrow_and_update();
        if count == 0 {
            return Ok(());
        }
        match mood {
            Mood::Fair | Mood::NoStreams => {}
            Mood::Slow(by) => tokio::time::sleep(by).await,
            Mood::BlackHole => continue,
            Mood::CutAfter(bytes) => {
                let rest = bytes.saturating_sub(passed).min(count);
                to.write_all(&buffer[..rest]).await?;
                if rest < count {
                    return Ok(());
                }
                passed += count;
                continue;
            }
            Mood::Garble(every) => {
                for at in (0..count).filter(|at| (passed + at) % every == every - 1) {
                    buffer[at] ^= 1 << (at % 7);
                }
                passed += count;
            }
        }
        to.write_all(&buffer[..count]).await?;
    }
}
