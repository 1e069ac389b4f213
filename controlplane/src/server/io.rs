//! What lies between a socket and its connection: traffic is noted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::server::activity::SharedActivity;

/// A socket, below TLS where there is TLS.
#[derive(Debug)]
pub(crate) struct Noted<S> {
    socket: S,
    activity: SharedActivity,
}

impl<S> Noted<S> {
    pub(crate) fn new(socket: S, activity: SharedActivity) -> Noted<S> {
        Noted { socket, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if before < buffer.filled().len() {
            self.activity.lock().read(Instant::now());
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> Noted<S> {
    fn note(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(bytes)) => self.activity.lock().wrote(Some(*bytes), Instant::now()),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.lock().wrote(None, Instant::now()),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_flush(cx);
        if let Poll::Ready(Ok(())) = polled {
            self.activity.lock().flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::server::activity::{Activity, Reason, Verdict};
    use crate::server::limits::Limits;

    #[tokio::test]
    async fn who_took_everything_in_the_end_is_not_slow_any_more() {
        const ROOM_BYTES: usize = 64;
        let (now, limits) = (Instant::now(), Limits::PUBLIC);
        let later = now + limits.write * 2;
        let activity = SharedActivity::new(Activity::new(now, later + limits.age));
        activity.lock().begin(false);
        activity.lock().read(now);
        let (socket, mut client) = duplex(ROOM_BYTES);
        let mut socket = Noted::new(socket, activity.clone());

        tokio::select! {
            biased;
            _ = socket.write_all(&[0; 2 * ROOM_BYTES]) => panic!("there is no room for it"),
            () = ready(()) => {}
        }
        let while_blocked = activity.lock().verdict(&limits, later);
        client.read_exact(&mut [0; ROOM_BYTES]).await.unwrap();
        socket.write_all(&[0; ROOM_BYTES / 2]).await.unwrap();
        socket.flush().await.unwrap();

        assert_eq!(while_blocked, Verdict::Close(Reason::Write));
        assert!(matches!(activity.lock().verdict(&limits, later), Verdict::Wait(_)));
    }
}
