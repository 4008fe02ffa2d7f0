//! A socket with timeouts for its peer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

#[derive(Debug, Clone, Copy)]
pub(crate) struct IoTimeouts {
    /// From the connection until the peer's version of HTTP is known; hyper's own timeout begins after that.
    pub(crate) preface: Duration,
    /// While bytes wait to be written and the peer reads none.
    pub(crate) write: Duration,
}

/// The length of the connection preface of HTTP/2 (RFC 9113, 3.4). After as many bytes the version is known.
const PREFACE_BYTES: usize = 24;

/// A socket that fails with `TimedOut` if the peer sends no preface or request, or reads nothing of what is
/// written, for too long. The time between requests is not limited.
#[derive(Debug)]
pub(crate) struct TimeoutIo<S> {
    socket: S,
    timeouts: IoTimeouts,
    preface: Option<Preface>,
    write: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Preface {
    read: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S> TimeoutIo<S> {
    pub(crate) fn new(socket: S, timeouts: IoTimeouts) -> Self {
        let preface = Some(Preface { read: 0, timer: Box::pin(sleep(timeouts.preface)) });
        Self { socket, timeouts, preface, write: None }
    }

    /// Passes an outcome of the socket on, or an error after waiting for too long.
    fn judge<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        // A peer that gets a response has sent a request, which may be shorter than a preface.
        self.preface = None;
        if outcome.is_ready() {
            self.write = None;
            return outcome;
        }
        let timeout = self.timeouts.write;
        let timer = self.write.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled = buf.filled().len();
        let outcome = Pin::new(&mut this.socket).poll_read(cx, buf);
        if let Some(preface) = &mut this.preface {
            preface.read += buf.filled().len() - filled;
            if preface.read >= PREFACE_BYTES {
                this.preface = None;
            } else if outcome.is_pending() {
                ready!(preface.timer.as_mut().poll(cx));
                let error = io::Error::new(io::ErrorKind::TimedOut, "the peer asks for nothing");
                return Poll::Ready(Err(error));
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.judge(outcome, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_flush(cx);
        if outcome.is_ready() {
            // Flushing a TCP socket does nothing; it doesn't show that the peer reads.
            return outcome;
        }
        this.judge(outcome, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_shutdown(cx);
        this.judge(outcome, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.judge(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUTS: IoTimeouts =
        IoTimeouts { preface: Duration::from_secs(10), write: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn peer_that_sends_no_request_times_out() {
        for sent in ["", "PRI * HTTP/2.0\r\n"] {
            let (mut peer, socket) = duplex(64);
            let start = Instant::now();
            peer.write_all(sent.as_bytes()).await.unwrap();
            let error = TimeoutIo::new(socket, TIMEOUTS).read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10), "{sent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_the_preface_or_a_response_is_allowed() {
        for (sent, answered) in
            [("GET / HTTP/1.1\r\n\r\n", true), ("GET / HTTP/1.1\r\nhost: example\r\n", false)]
        {
            let (mut peer, socket) = duplex(64);
            let mut socket = TimeoutIo::new(socket, TIMEOUTS);
            peer.write_all(sent.as_bytes()).await.unwrap();
            socket.read_exact(&mut vec![0; sent.len()]).await.unwrap();
            if answered {
                socket.write_u8(1).await.unwrap();
            }
            let later = tokio::spawn(async move {
                sleep(Duration::from_secs(3600)).await;
                peer.write_u8(2).await.unwrap();
                peer
            });
            assert_eq!(socket.read_u8().await.unwrap(), 2, "{sent}");
            later.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn peer_that_reads_nothing_times_out_but_a_slow_one_does_not() {
        let (mut peer, socket) = duplex(16);
        let mut socket = TimeoutIo::new(socket, TIMEOUTS);
        let slow = tokio::spawn(async move {
            for _ in 0..8 {
                sleep(Duration::from_secs(29)).await;
                peer.read_exact(&mut [0; 16]).await.unwrap();
            }
            peer
        });
        socket.write_all(&[0; 16 * 9]).await.unwrap();
        let _peer = slow.await.unwrap();
        let start = Instant::now();
        let error = socket.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }
}
