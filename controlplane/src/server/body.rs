//! Bodies with their limits: requests come in time and size, answers are noted as they go.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::body::BodyRefused;
use crate::server::activity::SharedActivity;

/// The body of a request, which ends with [`BodyRefused`] when it is too long or too slow.
pub(crate) struct LimitedBody {
    body: Incoming,
    bytes_max: usize,
    bytes_left: usize,
    within: Duration,
    deadline: Instant,
    /// Made when the body first has to be waited for: most are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl LimitedBody {
    pub(crate) fn new(body: Incoming, bytes_max: usize, within: Duration) -> LimitedBody {
        let deadline = Instant::now() + within;
        LimitedBody { body, bytes_max, bytes_left: bytes_max, within, deadline, timer: None }
    }
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let too_large = BodyRefused::TooLarge { bytes_max: this.bytes_max };
        // Before the first byte is asked for: a client that waits for "100 Continue" sends none.
        if usize::try_from(this.body.size_hint().lower()).unwrap_or(usize::MAX) > this.bytes_left {
            return Poll::Ready(Some(Err(axum::Error::new(too_large))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let deadline = this.deadline;
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            ready!(timer.as_mut().poll(cx));
            let too_slow = BodyRefused::TooSlow { within: this.within };
            return Poll::Ready(Some(Err(axum::Error::new(too_slow))));
        };
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(axum::Error::new)?;
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match this.bytes_left.checked_sub(bytes) {
            Some(left) => {
                this.bytes_left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err(axum::Error::new(too_large)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request that runs, from the end of its head to the end of its answer.
pub(crate) struct Running {
    activity: SharedActivity,
    number: u64,
}

impl Running {
    pub(crate) fn begin(activity: &SharedActivity, is_http2: bool) -> Running {
        let number = activity.lock().begin(is_http2);
        Running { activity: activity.clone(), number }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.activity.lock().end(self.number, Instant::now());
    }
}

/// The body of an answer; it ends the request when it is dropped.
pub(crate) struct NotedBody {
    body: Body,
    running: Running,
}

impl NotedBody {
    pub(crate) fn new(body: Body, running: Running) -> NotedBody {
        NotedBody { body, running }
    }
}

impl HttpBody for NotedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.running.activity.lock().take_next(this.running.number);
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(_)) = &frame {
            this.running.activity.lock().hand_over(this.running.number, Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
