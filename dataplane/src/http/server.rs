//! Listens, and serves each socket by HTTP/1.1 or HTTP/2, whichever it speaks.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task_local;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::BoxError;
use super::stall::{Impatient, Patience};
use crate::metrics::HttpMetrics;

/// The largest head of a request in bytes, and how much of an answer waits in user space for a socket that is
/// full. Addresses with a long list of devices fit; lists that don't fit go into a body.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// How many streams one HTTP/2 connection may hold: hyper's and nginx's usual size.
const MAX_HTTP2_STREAMS: u32 = 128;
/// How often an HTTP/2 peer is asked whether it is still there.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// How long accepting rests when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bounds of a server.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    /// How many sockets may be open at once; more wait in the listener's queue.
    pub(crate) max_sockets: usize,
    /// How long the head of a request may take, from the connection or from the request before it.
    pub(crate) head_timeout: Duration,
    /// After how long a client that takes nothing is closed.
    pub(crate) take_timeout: Duration,
}

/// How a server is ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown {
    /// No new sockets; open ones end when what they carry ends.
    pub(crate) drain: CancellationToken,
    /// Everything ends now.
    pub(crate) abort: CancellationToken,
}

/// How what a request came on is ended. An extension of each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Socket {
    /// Ends at once what carries the answer: over HTTP/1.1 the socket, over HTTP/2 that one stream, as the
    /// others may be those of other clients of the same gateway.
    pub(crate) end: CancellationToken,
    /// Takes no further request on the socket: it ends when what it carries ends.
    pub(crate) leave: CancellationToken,
}

task_local! {
    /// What ends the HTTP/2 stream as whose task we run.
    static STREAM_END: CancellationToken;
}

/// Runs each stream of an HTTP/2 connection as a task that can be ended alone; its peer is told so
/// (`RST_STREAM`).
#[derive(Debug, Clone, Copy)]
struct EndableStreams;

impl<F> Executor<F> for EndableStreams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let end = CancellationToken::new();
        tokio::spawn(STREAM_END.scope(end.clone(), async move {
            tokio::select! {
                _ = stream => {}
                () = end.cancelled() => {}
            }
        }));
    }
}

/// Serves until `shutdown` says so and the last socket has ended.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    settings: ServerSettings,
    metrics: HttpMetrics,
    shutdown: Shutdown,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(settings.max_sockets.min(Semaphore::MAX_PERMITS)));
    let tasks = TaskTracker::new();
    let accept = async {
        loop {
            let (socket, permit) = accept(&listener, &permits, &metrics).await;
            let connection = Connection {
                settings: settings.clone(),
                metrics: metrics.clone(),
                shutdown: shutdown.clone(),
            };
            let service = service.clone();
            tasks.spawn(async move {
                connection.run(socket, service).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = shutdown.drain.cancelled() => {}
        () = shutdown.abort.cancelled() => {}
        () = accept => {}
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// The next socket, once there is room for it.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    metrics: &HttpMetrics,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            // Nobody closes the semaphore; if it were, there would be no room for ever.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((socket, _peer)) => return (socket, permit),
            Err(error) => {
                metrics.socket_errors.inc();
                // A peer that is gone already concerns nobody. Without descriptors each try would fail at
                // once.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

struct Connection {
    settings: ServerSettings,
    metrics: HttpMetrics,
    shutdown: Shutdown,
}

impl Connection {
    async fn run<S, B>(self, socket: TcpStream, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
        B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let Self { settings, metrics, shutdown } = self;
        if let Err(error) = prepare(&socket, &settings) {
            // It is gone already.
            tracing::debug!(%error, "a socket could not be prepared");
            return;
        }
        let _open = OpenSocket::count(&metrics);
        let patience = Patience { greeting: settings.head_timeout, write: settings.take_timeout };
        let io = TokioIo::new(Impatient::new(socket, patience));
        let ends = Socket::default();
        let service = service_fn({
            let ends = ends.clone();
            move |mut request: Request<Incoming>| {
                let (mut ends, service) = (ends.clone(), service.clone());
                async move {
                    if let Ok(stream) = STREAM_END.try_with(CancellationToken::clone) {
                        ends.end = stream;
                    }
                    request.extensions_mut().insert(ends);
                    service.call(request).await
                }
            }
        });
        let builder = builder(&settings);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let mut leaving = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        metrics.socket_errors.inc();
                        tracing::debug!(error = &*error, "a connection ended with a fault");
                    }
                    return;
                }
                () = async { tokio::select! { () = shutdown.drain.cancelled() => {} () = ends.leave.cancelled() => {} } }, if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = shutdown.abort.cancelled() => return,
                () = ends.end.cancelled() => return,
            }
        }
    }
}

struct OpenSocket<'a>(&'a HttpMetrics);

impl<'a> OpenSocket<'a> {
    fn count(metrics: &'a HttpMetrics) -> Self {
        metrics.sockets.inc();
        Self(metrics)
    }
}

impl Drop for OpenSocket<'_> {
    fn drop(&mut self) {
        self.0.sockets.dec();
    }
}

fn builder(settings: &ServerSettings) -> auto::Builder<EndableStreams> {
    let mut builder = auto::Builder::new(EndableStreams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.head_timeout)
        .max_buf_size(MAX_HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_HEAD_BYTES)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(settings.take_timeout);
    builder
}

/// Small frames go out at once, and a peer that acknowledges nothing any more is given up: without this a
/// screen that lost its power would hold its place for a quarter of an hour.
fn prepare(socket: &TcpStream, settings: &ServerSettings) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_user_timeout(Some(settings.take_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = settings;
    Ok(())
}
