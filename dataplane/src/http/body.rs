//! The event stream as an HTTP body: hyper polls it whenever the socket has room, and it takes frames from
//! the fan-out's [`Connection`]. No other file knows both.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::metrics::HttpMetrics;
use super::streams::{CloseReason, StreamGuard};
use crate::fanout::Connection;

/// The most frames taken at once: enough that a burst becomes one write, few enough that a fast client
/// doesn't occupy a worker for long.
const MAX_FRAMES: usize = 64;

#[derive(Debug)]
pub(crate) struct EventBody {
    source: BodyState,
    metrics: HttpMetrics,
    frames: Vec<Bytes>,
}

#[derive(Debug)]
enum BodyState {
    /// Without a guard, only what the connection already holds is sent.
    Open {
        connection: Connection,
        guard: Option<StreamGuard>,
    },
    Ended,
}

impl EventBody {
    /// Returns a body that sends the frames of a connection until the guard ends the stream.
    pub(crate) fn new(connection: Connection, guard: Option<StreamGuard>, metrics: HttpMetrics) -> Self {
        metrics.streams.inc();
        Self { source: BodyState::Open { connection, guard }, metrics, frames: Vec::new() }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let BodyState::Open { connection, guard } = &mut self.source else { return Poll::Ready(None) };
        let guard = guard.as_ref();
        if let Some(end) = guard.and_then(|guard| guard.polled(cx.waker())) {
            self.source = BodyState::Ended;
            return Poll::Ready(Some(farewell(end)));
        }
        let waker = guard.map_or(cx.waker(), StreamGuard::waker);
        let mut cx = Context::from_waker(waker);
        if ready!(connection.poll_frames(&mut cx, MAX_FRAMES, &mut self.frames)).is_none() {
            self.source = BodyState::Ended;
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

impl Drop for EventBody {
    fn drop(&mut self) {
        self.metrics.streams.dec();
    }
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

/// Attaches an event stream to a response; [`detach`] makes it the body.
pub(crate) fn attach<B>(response: &mut Response<B>, body: EventBody) {
    response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(body)))));
}

/// The body that the server writes.
#[derive(Debug)]
pub(crate) enum ResponseBody<B> {
    Plain(B),
    Events(EventBody),
}

/// Replaces the body by the attached event stream, if there is one.
pub(crate) fn detach<B>(mut response: Response<B>) -> Response<ResponseBody<B>> {
    let carried = response.extensions_mut().remove::<Carried>();
    let events = carried.and_then(|carried| carried.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    response.map(|plain| match events {
        Some(events) => ResponseBody::Events(events),
        None => ResponseBody::Plain(plain),
    })
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Plain(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Events(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
