//! The frames of one client, on their way from the hub to a socket.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::backlog::Backlog;
use super::hub::Command;

/// The frames of one client, ready to be written. Dropping it detaches the client.
#[derive(Debug)]
pub struct Connection {
    pub(super) number: u64,
    pub(super) backlog: Arc<Backlog>,
    /// The hub that learns when the connection is dropped.
    pub(super) hub: Option<UnboundedSender<Command>>,
    pub(super) _permits: Vec<ConnectionPermit>,
}

/// Counts one client, among all or among those of a tenant, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit(Arc<AtomicUsize>);

impl ConnectionPermit {
    pub(super) fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let more = |taken| (taken < max).then_some(taken + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Connection {
    /// Returns the connection's number, which `hello` shows as `c-` and at least eight hexadecimal digits.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes up to `max` frames at once and appends them to `out`, for vectored writes. Ready with how many
    /// were taken, at least one; `None` if the server has ended the connection.
    pub fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        out: &mut Vec<Bytes>,
    ) -> Poll<Option<usize>> {
        self.backlog.poll_take(cx, max, out)
    }
}

impl Stream for Connection {
    /// A whole number of SSE blocks.
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = Vec::with_capacity(1);
        self.backlog.poll_take(cx, 1, &mut out).map(|taken| taken.and_then(|_| out.pop()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.backlog.detach();
        if let Some(hub) = &self.hub {
            // A hub that has ended has forgotten the client already.
            let _ = hub.send(Command::Detach(self.number));
        }
    }
}
