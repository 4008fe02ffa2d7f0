//! What every request for data goes through before it is answered: who asks, from which page, for what.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use flutecast_contract::name::TenantName;
use futures_util::{Stream, StreamExt};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::RequestError;
use super::open::OpenStreams;
use super::params;
use crate::access::{Access, Credential, Grant};
use crate::fanout::{Hubs, Wanted};
use crate::metrics::HttpMetrics;
use crate::percent;

/// The largest body that is read, in bytes (docs/protocol.md).
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the handlers work on.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) hubs: Hubs,
    /// None: no access document was read yet.
    pub(crate) access: watch::Receiver<Option<Arc<Access>>>,
    pub(crate) open: OpenStreams,
    pub(crate) metrics: HttpMetrics,
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) headers: HeaderMap,
    /// What the client calls this server: host and port.
    pub(super) host: Option<String>,
    pub(super) query: String,
}

/// Where the token may stand besides the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenIn {
    HeaderOnly,
    HeaderOrQuery,
}

/// A caller who may read something of a tenant.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) credential: Credential,
    pub(super) grant: Grant,
}

/// Why a caller isn't let in now.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not known yet who may read what.
    Starting,
    /// It is known, and this caller may not.
    Error(RequestError),
}

impl Api {
    /// Lets a caller in, or not. Everything is refused before it is looked at more closely: an unknown
    /// tenant, a wrong token and a name that can't be a tenant's are answered alike.
    pub(super) fn admit(&self, tenant: &str, head: &Head, token_in: TokenIn) -> Result<Caller, Refusal> {
        let access = self.access.borrow().clone().ok_or(Refusal::Starting)?;
        let credential = credential(head, token_in);
        let tenant = percent::decode(tenant).unwrap_or_default();
        let grant = access
            .decide(&tenant, &credential)
            .map_err(|crate::access::Denied| Refusal::Error(RequestError::Unauthorized))?;
        check_origin(&access, &grant.tenant, head).map_err(Refusal::Error)?;
        Ok(Caller { credential, grant })
    }
}

impl Caller {
    /// Refuses a request that names a device which the caller may not read, whether it exists or not.
    pub(super) fn check_named(&self, wanted: &Wanted) -> Result<(), RequestError> {
        match wanted.codes.iter().find(|code| !self.grant.scope.allows(code)) {
            Some(code) => Err(RequestError::Forbidden(format!(
                "device: this token doesn't open {code:?}; ask for less",
                code = code.as_str()
            ))),
            None => Ok(()),
        }
    }
}

fn check_origin(access: &Access, tenant: &TenantName, head: &Head) -> Result<(), RequestError> {
    let Some(origin) = head.headers.get(header::ORIGIN) else {
        // Not a page of another server: browsers name those.
        return Ok(());
    };
    match origin.to_str() {
        Ok(text) if access.allows_origin(tenant, text, head.host.as_deref()) => Ok(()),
        _ => {
            Err(RequestError::Forbidden(format!("Origin: {origin:?} is not in the tenant's allowedOrigins")))
        }
    }
}

fn credential(head: &Head, token_in: TokenIn) -> Credential {
    if let Some(value) = head.headers.get(header::AUTHORIZATION) {
        // Another scheme is meant for a gateway before us, which many hand on.
        if let Some((scheme, token)) = value.as_bytes().split_at_checked("bearer ".len())
            && scheme.eq_ignore_ascii_case(b"bearer ")
        {
            return Credential::token(token.trim_ascii());
        }
    }
    match (token_in, params::access_token(&head.query)) {
        (TokenIn::HeaderOrQuery, Some(token)) => Credential::token(token.as_bytes()),
        _ => Credential::None,
    }
}

/// What an answer with data carries, so that a page that may read it can, and no cache keeps it.
pub(super) fn dress<B>(response: &mut Response<B>, head: &Head, content_type: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = head.headers.get(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // By it a page knows how far its clock is from ours; a stream that is never silent has no `ping`.
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    }
}

/// The answer to a browser that asks before it sends a request. It tells nothing about tenants: the request
/// itself is checked.
pub(super) fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, Last-Event-ID"),
        // Ten minutes; Chromium takes two hours at most.
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Reads a body of at most [`MAX_BODY_BYTES`].
pub(super) async fn read_body<S, D, E>(headers: &HeaderMap, body: S) -> Result<Bytes, RequestError>
where
    S: Stream<Item = Result<D, E>>,
    D: Buf,
{
    let too_large = RequestError::PayloadTooLarge { limit: MAX_BODY_BYTES };
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        return Err(too_large);
    }
    let read = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::new();
        while let Some(part) = body.next().await {
            let mut part = part.map_err(|_| RequestError::BadRequest("the body broke off".to_owned()))?;
            if bytes.len() + part.remaining() > MAX_BODY_BYTES {
                return Err(too_large);
            }
            while part.has_remaining() {
                let chunk = part.chunk();
                bytes.extend_from_slice(chunk);
                let length = chunk.len();
                part.advance(length);
            }
        }
        Ok(Bytes::from(bytes))
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or(Err(RequestError::RequestTimeout))
}
