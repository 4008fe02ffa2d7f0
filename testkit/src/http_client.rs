//! Sends single HTTP requests, each on a new connection, for monitoring endpoints, metrics and JSON APIs.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The time limit of a whole request, or of connecting and receiving the headers of an event stream.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest response body that is read, in bytes. The subscription list of nats-server with thousands of
/// devices fits.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// A response with its complete body.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    ///
    /// # Errors
    /// Returns an error with the body if it isn't JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// Sends a GET request without extra headers. Any status is a success.
///
/// # Errors
/// Returns an error if the response is not complete within 10 s.
pub async fn get(url: &str) -> anyhow::Result<Response> {
    request(Method::GET, url, &[], "").await
}

/// Sends a GET request and returns the body.
///
/// # Errors
/// Returns an error if the response is not complete within 10 s or has another status.
pub async fn get_text(url: &str) -> anyhow::Result<String> {
    let answer = get(url).await?;
    ensure!(answer.status.is_success(), "{url}: {}: {}", answer.status, answer.text());
    Ok(answer.text())
}

/// Sends a GET request and returns the body of a response with status 200 as JSON.
///
/// # Errors
/// Returns an error if the response is not complete within 10 s or has another status.
pub async fn get_json(url: &str) -> anyhow::Result<serde_json::Value> {
    let answer = get(url).await?;
    ensure!(answer.status == StatusCode::OK, "{url}: {}: {}", answer.status, answer.text());
    answer.json()
}

/// Sends a request with any method, headers and body. Any status is a success.
///
/// # Errors
/// Returns an error if the response is not complete within 10 s.
pub async fn request(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Response> {
    let body = body.into();
    let whole = async {
        let (head, body) = open(method, url, headers, body).await?.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes();
        Ok(Response { status: head.status, headers: head.headers, body })
    };
    timeout(DEADLINE, whole).await.with_context(|| format!("{url}: no answer within {DEADLINE:?}"))?
}

/// Sends a request and returns as soon as the response headers have arrived; the body is not read yet.
pub(crate) async fn open(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> anyhow::Result<http::Response<Incoming>> {
    let uri: Uri = url.parse().with_context(|| url.to_owned())?;
    let authority = uri.authority().with_context(|| format!("{url} has no host"))?.clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", authority.as_str());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body))?;
    let exchange = async {
        let socket = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await;
        let socket = socket.with_context(|| format!("{authority} can't be reached"))?;
        socket.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // The task ends with the response body, whose reader sees its errors.
        tokio::spawn(connection);
        anyhow::Ok(sender.send_request(request).await?)
    };
    timeout(DEADLINE, exchange).await.with_context(|| format!("{url}: no answer within {DEADLINE:?}"))?
}
