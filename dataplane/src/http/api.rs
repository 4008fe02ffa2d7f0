//! The checks of every request for data: credential, origin, devices.

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
use super::metrics::HttpMetrics;
use super::params;
use super::streams::StreamRegistry;
use crate::access::{Access, Credential, Denied, Grant};
use crate::fanout::{DeviceQuery, Hubs};
use crate::percent;

/// The largest body accepted, in bytes (docs/protocol.md).
pub(super) const MAX_BODY_BYTES: usize = 256 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) hubs: Hubs,
    /// `None` until an access document was read.
    pub(crate) access: watch::Receiver<Option<Arc<Access>>>,
    pub(crate) streams: StreamRegistry,
    pub(crate) metrics: HttpMetrics,
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) headers: HeaderMap,
    /// Host and port as the client named them.
    pub(super) host: Option<String>,
    pub(super) query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenIn {
    HeaderOnly,
    HeaderOrQuery,
}

/// A caller that may read something of a tenant.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) credential: Credential,
    pub(super) grant: Grant,
}

impl Api {
    /// Admits a caller to a tenant. An unknown tenant, a wrong token and a name that can't be a tenant's give
    /// the same error. `None` if no access document was read yet.
    pub(super) fn admit(
        &self,
        tenant: &str,
        head: &RequestHead,
        token_in: TokenIn,
    ) -> Result<Option<Caller>, RequestError> {
        let Some(access) = self.access.borrow().clone() else { return Ok(None) };
        let credential = credential(head, token_in);
        let tenant = percent::decode(tenant).unwrap_or_default();
        let grant = access.decide(&tenant, &credential).map_err(|Denied| RequestError::Unauthorized)?;
        check_origin(&access, &grant.tenant, head)?;
        Ok(Some(Caller { credential, grant }))
    }
}

impl Caller {
    /// Refuses a device that the caller may not read, whether it exists or not.
    pub(super) fn check_named(&self, wanted: &DeviceQuery) -> Result<(), RequestError> {
        match wanted.codes.iter().find(|code| !self.grant.scope.allows(code)) {
            Some(code) => {
                let code = code.as_str();
                let message = format!("device: this token doesn't open {code:?}; ask for less");
                Err(RequestError::Forbidden(message))
            }
            None => Ok(()),
        }
    }
}

fn check_origin(access: &Access, tenant: &TenantName, head: &RequestHead) -> Result<(), RequestError> {
    let Some(origin) = head.headers.get(header::ORIGIN) else {
        // Not a cross-origin request of a page: browsers send the header with those.
        return Ok(());
    };
    match origin.to_str() {
        Ok(text) if access.allows_origin(tenant, text, head.host.as_deref()) => Ok(()),
        _ => {
            Err(RequestError::Forbidden(format!("Origin: {origin:?} is not in the tenant's allowedOrigins")))
        }
    }
}

fn credential(head: &RequestHead, token_in: TokenIn) -> Credential {
    if let Some(value) = head.headers.get(header::AUTHORIZATION) {
        // Other schemes are meant for a gateway in front of us; many gateways forward them.
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

/// Sets the headers of a response with data: the page that asked may read it, and caches must not keep it.
pub(super) fn set_data_headers<B>(
    response: &mut Response<B>,
    head: &RequestHead,
    content_type: &'static str,
) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = head.headers.get(header::ORIGIN) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // With it a page measures the difference of the clocks; a stream that is never silent has no `ping`.
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    }
}

/// Returns the response to a CORS preflight. It reveals nothing about tenants; the request itself is checked.
pub(super) fn preflight() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, Last-Event-ID"),
        // Ten minutes; Chromium's maximum is two hours.
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Reads a body of at most [`MAX_BODY_BYTES`]. It is a `BadRequest` if the client breaks off.
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
                let length = part.chunk().len();
                bytes.extend_from_slice(part.chunk());
                part.advance(length);
            }
        }
        Ok(Bytes::from(bytes))
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or(Err(RequestError::RequestTimeout))
}
