//! The seam between "frames for a connection" and "bytes on a socket".
//!
//! On one side stands [`Connection`], which knows what the client is owed; on the other an HTTP body, which
//! hyper asks for bytes whenever the socket has room. Nothing else knows of both, so a leaner writer replaces
//! this file alone.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::open::{End, Lease};
use crate::fanout::Connection;
use crate::metrics::HttpMetrics;

/// How many frames are taken at once: enough that a burst becomes one write, few enough that a fast client
/// doesn't keep a worker for long.
const MAX_FRAMES: usize = 64;

/// The body of an event stream.
#[derive(Debug)]
pub(crate) struct EventBody {
    source: Source,
    metrics: HttpMetrics,
    frames: Vec<Bytes>,
}

#[derive(Debug)]
enum Source {
    /// There may be more. Without a lease only what the connection holds already is said.
    Open { connection: Connection, lease: Option<Lease> },
    /// All is said.
    Ended,
}

impl EventBody {
    /// The frames of a connection, for as long as the lease holds.
    pub(crate) fn new(connection: Connection, lease: Option<Lease>, metrics: HttpMetrics) -> Self {
        metrics.streams.inc();
        Self { source: Source::Open { connection, lease }, metrics, frames: Vec::new() }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Source::Open { connection, lease } = &mut self.source else { return Poll::Ready(None) };
        let lease = lease.as_ref();
        if let Some(end) = lease.and_then(|lease| lease.asked(cx.waker())) {
            self.source = Source::Ended;
            return Poll::Ready(Some(farewell(end)));
        }
        let waker = lease.map_or(cx.waker(), Lease::waker);
        let mut cx = Context::from_waker(waker);
        if ready!(connection.poll_frames(&mut cx, MAX_FRAMES, &mut self.frames)).is_none() {
            self.source = Source::Ended;
            return Poll::Ready(None);
        }
        if let Some(lease) = lease {
            lease.gave();
        }
        Poll::Ready(Some(join(&mut self.frames)))
    }
}

/// Several frames become one buffer, so that they cost one chunk; a single one goes as it is, shared with the
/// other clients.
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

/// `bye`, with a reconnect time of its own for each client.
fn farewell(end: End) -> Bytes {
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

/// The way of an [`EventBody`] through warp, whose replies can't hold a body of another type: it travels
/// beside the reply and takes the place of the reply's body behind it.
#[derive(Debug, Clone)]
struct Carried(Arc<Mutex<Option<EventBody>>>);

/// Attaches an event stream to a response.
pub(crate) fn attach<B>(response: &mut Response<B>, body: EventBody) {
    response.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(body)))));
}

/// What the server writes.
#[derive(Debug)]
pub(crate) enum ResponseBody<B> {
    /// An ordinary body.
    Plain(B),
    /// An event stream.
    Events(EventBody),
}

/// Puts the attached event stream, if there is one, in the place of the body.
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
