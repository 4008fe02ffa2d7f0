//! A socket that ends when its peer lets us wait.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer may let us wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the connection to its first byte; hyper's own timeout begins only behind that.
    pub(crate) first_byte: Duration,
    /// While bytes are to be written and the peer takes none.
    pub(crate) write: Duration,
}

/// A socket that fails with `TimedOut` when the peer sends no first byte, or takes nothing of what is written, for too long.
/// Waiting for the next request is not its business.
#[derive(Debug)]
pub(crate) struct Impatient<S> {
    socket: S,
    patience: Patience,
    first_byte: Option<Pin<Box<Sleep>>>,
    write: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(socket: S, patience: Patience) -> Self {
        let first_byte = Some(Box::pin(sleep(patience.first_byte)));
        Self { socket, patience, first_byte, write: None }
    }

    /// Lets an outcome of the socket through, but a wait only for as long as there is patience.
    fn judge<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write = None;
            return outcome;
        }
        let patience = self.patience.write;
        let timer = self.write.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_read(cx, buf);
        if let Some(timer) = &mut this.first_byte {
            if outcome.is_pending() {
                ready!(timer.as_mut().poll(cx));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer sends nothing")));
            }
            this.first_byte = None;
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.judge(outcome, cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.socket).poll_flush(cx);
        if outcome.is_ready() {
            // A flush of a TCP socket does nothing; it doesn't show that the peer takes what waits.
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

    const PATIENCE: Patience =
        Patience { first_byte: Duration::from_secs(10), write: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_nothing_is_left() {
        let (_peer, socket) = duplex(16);
        let start = Instant::now();
        let error = Impatient::new(socket, PATIENCE).read_u8().await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_first_byte_silence_is_fine() {
        let (mut peer, socket) = duplex(16);
        let mut socket = Impatient::new(socket, PATIENCE);
        peer.write_u8(1).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), 1);
        tokio::spawn(async move {
            sleep(Duration::from_secs(3600)).await;
            peer.write_u8(2).await
        });
        assert_eq!(socket.read_u8().await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_left_but_a_slow_one_is_not() {
        let (mut peer, socket) = duplex(16);
        let mut socket = Impatient::new(socket, PATIENCE);
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
