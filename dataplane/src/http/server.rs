//! Accepts sockets, and serves HTTP/1.1 or HTTP/2 on each.

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
use super::metrics::{Counted, HttpMetrics};
use super::timeout_io::{IoTimeouts, TimeoutIo};

/// The largest head of a request in bytes, and the most bytes of a response that wait in user space for a
/// full socket. Long lists of devices fit into it; longer ones go into a body.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most streams of one HTTP/2 connection: the default of nginx.
const MAX_HTTP2_STREAMS: u32 = 128;
/// The interval of HTTP/2 pings.
const HTTP2_PING: Duration = Duration::from_secs(20);
/// The pause after a failed accept, which fails at once when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    /// The most open sockets; more wait in the listener's queue.
    pub(crate) max_sockets: usize,
    /// The longest that the head of a request may take, from the connection or the previous request on.
    pub(crate) head_timeout: Duration,
    /// After this time a client that reads nothing is closed.
    pub(crate) take_timeout: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ServerShutdown {
    /// No new sockets; open ones end with their last stream.
    pub(crate) drain: CancellationToken,
    /// Everything ends at once.
    pub(crate) abort: CancellationToken,
}

/// Ends the socket of a request. An extension of each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct SocketControl {
    /// Ends what carries the response at once: the socket with HTTP/1.1, only the stream with HTTP/2, as the
    /// socket's other streams may be those of other clients of a gateway.
    pub(crate) end: CancellationToken,
    /// Accepts no further request on the socket, which ends with its last stream.
    pub(crate) leave: CancellationToken,
}

task_local! {
    /// Ends the HTTP/2 stream whose task runs.
    static STREAM_END: CancellationToken;
}

/// Runs each stream of an HTTP/2 connection as a task that can be cancelled alone, which resets the stream
/// (`RST_STREAM`).
#[derive(Debug, Clone, Copy)]
struct CancellableStreams;

impl<F> Executor<F> for CancellableStreams
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

/// Serves until `shutdown` is cancelled and the last socket has ended.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    settings: ServerSettings,
    metrics: HttpMetrics,
    shutdown: ServerShutdown,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(settings.max_sockets.min(Semaphore::MAX_PERMITS)));
    let tasks = TaskTracker::new();
    let accept = async {
        loop {
            let (socket, permit) = accept(&listener, &permits, &metrics).await;
            let (service, settings) = (service.clone(), settings.clone());
            tasks.spawn(serve_socket(socket, permit, service, settings, metrics.clone(), shutdown.clone()));
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

/// Waits for room, then for the next socket.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    metrics: &HttpMetrics,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            // The semaphore is never closed.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((socket, _peer)) => return (socket, permit),
            Err(error) => {
                metrics.socket_errors.inc();
                // A peer that is already gone is normal. Without descriptors each attempt would fail at once.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
                {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves a socket until it ends, and gives the permit back.
async fn serve_socket<S, B>(
    socket: TcpStream,
    _permit: OwnedSemaphorePermit,
    service: S,
    settings: ServerSettings,
    metrics: HttpMetrics,
    shutdown: ServerShutdown,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    if let Err(error) = prepare(&socket, &settings) {
        // The peer is already gone.
        tracing::debug!(%error, "a socket could not be prepared");
        return;
    }
    let _counted = Counted::new(&metrics.sockets);
    let timeouts = IoTimeouts { preface: settings.head_timeout, write: settings.take_timeout };
    let io = TokioIo::new(TimeoutIo::new(socket, timeouts));
    let ends = SocketControl { end: shutdown.abort.child_token(), leave: shutdown.drain.child_token() };
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
            () = ends.leave.cancelled(), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
            () = ends.end.cancelled() => return,
        }
    }
}
fn builder(settings: &ServerSettings) -> auto::Builder<CancellableStreams> {
    let mut builder = auto::Builder::new(CancellableStreams);
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

/// Sends small frames at once, and ends the connection of a peer that acknowledges nothing: otherwise a
/// screen that lost power would keep its socket for a quarter of an hour.
fn prepare(socket: &TcpStream, settings: &ServerSettings) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_user_timeout(Some(settings.take_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = settings;
    Ok(())
}
