//! The event stream as an HTTP body: hyper polls it whenever the socket has room, and it takes frames from
//! the fan-out's [`Connection`].

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame};
use http_body_util::Either;

use super::metrics::{Counted, HttpMetrics};
use super::streams::{CloseReason, StreamGuard};
use crate::fanout::Connection;

/// The most frames taken at once: enough that a burst becomes one write, few enough that a fast client
/// doesn't occupy a worker for long.
const MAX_FRAMES: usize = 64;

#[derive(Debug)]
pub(crate) struct EventBody {
    /// `None` after the end. Without a guard, only what the connection already holds is sent.
    open: Option<(Connection, Option<StreamGuard>)>,
    metrics: HttpMetrics,
    frames: Vec<Bytes>,
    _counted: Counted,
}

impl EventBody {
    /// Returns a body that sends the frames of a connection until the guard ends the stream.
    pub(crate) fn new(connection: Connection, guard: Option<StreamGuard>, metrics: HttpMetrics) -> Self {
        let counted = Counted::new(&metrics.streams);
        Self { open: Some((connection, guard)), metrics, frames: Vec::new(), _counted: counted }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some((connection, guard)) = &mut self.open else { return Poll::Ready(None) };
        let guard = guard.as_ref();
        if let Some(end) = guard.and_then(|guard| guard.polled(cx.waker())) {
            self.open = None;
            return Poll::Ready(Some(farewell(end)));
        }
        let waker = guard.map_or(cx.waker(), |guard| &guard.waker);
        let mut cx = Context::from_waker(waker);
        if ready!(connection.poll_frames(&mut cx, MAX_FRAMES, &mut self.frames)).is_none() {
            self.open = None;
            return Poll::Ready(None);
        }
        if let Some(guard) = guard {
            guard.gave();
        }
        Poll::Ready(Some(join(&mut self.frames)))
    }
}

/// Joins several frames into one buffer, so that they become one chunk. A single one is shared with the other
/// clients as it is.
fn join(frames: &mut Vec<Bytes>) -> Bytes {
    if frames.len() == 1 {
        return frames.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
    for frame in frames.drain(..) {
        joined.extend_from_slice(&frame);
    }
    joined.freeze()
}

/// Returns a `bye` event with a random retry time.
fn farewell(end: CloseReason) -> Bytes {
    let (reason, retry) = (end.as_str(), rand::random_range(end.retry_ms()));
    Bytes::from(format!(
        "retry: {retry}\nevent: bye\ndata: {{\"reason\":\"{reason}\",\"retryMs\":{retry}}}\n\n"
    ))
}

impl Body for EventBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = self.get_mut();
        let bytes = ready!(body.poll_bytes(cx));
        if let Some(bytes) = &bytes {
            body.metrics.stream_bytes.inc_by(bytes.len() as u64);
        }
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Carries an [`EventBody`] through warp, whose replies can't hold bodies of other types: as an extension of
/// the reply, which replaces the reply's body afterwards.
#[derive(Debug, Clone)]
struct Carried(Arc<Mutex<Option<EventBody>>>);

pub(crate) fn attach<B>(response: &mut Response<B>, body: EventBody) {
    response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(body)))));
}

/// Replaces the body by the attached event stream, if there is one.
pub(crate) fn detach<B>(mut response: Response<B>) -> Response<Either<B, EventBody>> {
    let carried = response.extensions_mut().remove::<Carried>();
    let events = carried.and_then(|carried| carried.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    response.map(|plain| events.map_or(Either::Left(plain), Either::Right))
}
