//! One plain HTTP request on one new connection: monitor ports, metrics, JSON answers.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time that a whole request may take, and connecting and the head of an event stream.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: the subscription list of nats-server with thousands of devices
/// fits.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it isn't JSON; says what it is.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// GET without headers.
///
/// # Errors
/// If there is no answer within 10 s. An answer of any status is none.
pub async fn get(url: &str) -> anyhow::Result<Response> {
    request(Method::GET, url, &[], "").await
}

/// GET that must be answered with success; the answer is the body.
///
/// # Errors
/// If it isn't.
pub async fn get_text(url: &str) -> anyhow::Result<String> {
    let answer = get(url).await?;
    ensure!(answer.status.is_success(), "{url}: {}: {}", answer.status, answer.text());
    Ok(answer.text())
}

/// GET that must be answered with 200 and JSON.
///
/// # Errors
/// If it isn't.
pub async fn get_json(url: &str) -> anyhow::Result<serde_json::Value> {
    let answer = get(url).await?;
    ensure!(answer.status == StatusCode::OK, "{url}: {}: {}", answer.status, answer.text());
    answer.json()
}

/// Any request.
///
/// # Errors
/// If there is no answer within 10 s.
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

/// Sends a request and returns when the head of the answer is there; the body is still to be read.
pub(crate) async fn open(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> anyhow::Result<http::Response<Incoming>> {
    let uri: Uri = url.parse().with_context(|| url.to_owned())?;
    let authority = uri.authority().with_context(|| format!("{url} has no host"))?.clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(method).uri(path).header("host", authority.as_str());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body))?;
    let exchange = async {
        let socket = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await;
        let socket = socket.with_context(|| format!("{authority} can't be reached"))?;
        socket.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // It ends with the answer's body; its errors are seen there.
        tokio::spawn(connection);
        anyhow::Ok(sender.send_request(request).await?)
    };
    timeout(DEADLINE, exchange).await.with_context(|| format!("{url}: no answer within {DEADLINE:?}"))?
}
