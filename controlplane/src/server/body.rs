//! Bodies with their limits: requests come in time and size, answers are noted as they go.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use crate::http::body::BodyRefused;
use crate::server::activity::SharedActivity;

/// Most bytes of an unread body that are thrown away: what an HTTP/2 client may have sent before
/// it can have heard anything, which is the window of a stream.
const UNREAD_BYTES_MAX: usize = 1024 * 1024;

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

/// The body of an HTTP/2 request, of which the rest is thrown away when nobody reads it.
///
/// A stream whose body is given up half-way is reset, and there are clients that then throw away
/// the answer too (curl before 8.0 does): an early refusal would reach nobody. The rest is waited
/// for beside the answer, no longer than the whole body might have taken; HTTP/1.1 needs none of
/// this, since there hyper closes the connection in its own way.
pub(crate) struct FinishedBody(Option<LimitedBody>);

impl FinishedBody {
    pub(crate) fn new(body: LimitedBody) -> FinishedBody {
        FinishedBody(Some(body))
    }
}

impl HttpBody for FinishedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.0.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::new, HttpBody::size_hint)
    }
}

impl Drop for FinishedBody {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        // Without a runtime there is no connection any more that could bring the rest.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(throw_away(body));
        }
    }
}

/// Reads what is left of a body, within its time; gives up at an error.
async fn throw_away(body: LimitedBody) {
    let LimitedBody { mut body, deadline, .. } = body;
    let mut left = UNREAD_BYTES_MAX;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Late or not, the body is dropped now.
    drop(timeout_at(deadline, rest).await);
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
