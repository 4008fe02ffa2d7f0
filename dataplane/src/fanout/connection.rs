//! The seam between "frames for a connection" and "bytes on a socket".

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;

/// The frames of one client, ready to be written as they are. Dropping it detaches the client.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    pub(crate) fn ended() -> Self {
        Self {}
    }

    /// The next frame: a whole number of SSE blocks. `None`: the server has ended the connection.
    pub fn poll_next_frame(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(None)
    }

    /// Takes up to `max` frames at once and appends them to `out`, for vectored writes. Ready with how many were taken, at least
    /// one; `None`: the server has ended the connection.
    pub fn poll_frames(&mut self, _cx: &mut Context<'_>, max: usize, out: &mut Vec<Bytes>) -> Poll<Option<usize>> {
        let _ = (max, out);
        Poll::Ready(None)
    }
}

impl Stream for Connection {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.get_mut().poll_next_frame(cx)
    }
}
