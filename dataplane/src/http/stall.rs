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
    /// From the connection until it is known which HTTP the peer speaks; hyper's own timeout begins only
    /// behind that.
    pub(crate) greeting: Duration,
    /// While bytes are to be written and the peer takes none.
    pub(crate) write: Duration,
}

/// After so many bytes it is known: HTTP/2 begins with `PRI * HTTP/2.0`, two line ends, `SM` and two line
/// ends (RFC 9113, 3.4).
const GREETING_BYTES: usize = 24;

/// A socket that fails with `TimedOut` when the peer doesn't say what it wants, or takes nothing of what is
/// written, for too long. Waiting for the next request is not its business.
#[derive(Debug)]
pub(crate) struct Impatient<S> {
    socket: S,
    patience: Patience,
    greeting: Option<Greeting>,
    write: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Greeting {
    read: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(socket: S, patience: Patience) -> Self {
        let greeting = Some(Greeting { read: 0, timer: Box::pin(sleep(patience.greeting)) });
        Self { socket, patience, greeting, write: None }
    }

    /// Lets an outcome of the socket through, but a wait only for as long as there is patience.
    fn judge<T>(&mut self, outcome: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        // Whoever is answered has been understood; a whole request may be shorter than a greeting.
        self.greeting = None;
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
        let filled = buf.filled().len();
        let outcome = Pin::new(&mut this.socket).poll_read(cx, buf);
        if let Some(greeting) = &mut this.greeting {
            greeting.read += buf.filled().len() - filled;
            if greeting.read >= GREETING_BYTES {
                this.greeting = None;
            } else if outcome.is_pending() {
                ready!(greeting.timer.as_mut().poll(cx));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer asks for nothing",
                )));
            }
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

    const PATIENCE: Patience = Patience { greeting: Duration::from_secs(10), write: Duration::from_secs(30) };

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_asks_for_nothing_is_left() {
        for sent in ["", "PRI * HTTP/2.0\r\n"] {
            let (mut peer, socket) = duplex(64);
            let start = Instant::now();
            peer.write_all(sent.as_bytes()).await.unwrap();
            let error = Impatient::new(socket, PATIENCE).read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!((error.kind(), start.elapsed().as_secs()), (io::ErrorKind::TimedOut, 10), "{sent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_greeting_or_an_answer_silence_is_fine() {
        for (sent, answered) in
            [("GET / HTTP/1.1\r\n\r\n", true), ("GET / HTTP/1.1\r\nhost: example\r\n", false)]
        {
            let (mut peer, socket) = duplex(64);
            let mut socket = Impatient::new(socket, PATIENCE);
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
