//! `GET` and `POST /v1/{tenant}/events`.

use bytes::Bytes;
use flutecast_mapping::name::TenantName;
use http::header::HeaderName;
use http::{HeaderValue, Response};

use super::api::{Api, Caller, Head, Refusal, TokenIn, dress};
use super::body::{self, EventBody};
use super::error::RequestError;
use super::params::{Subscription, resume};
use super::server::Socket;
use crate::fanout::SubscribeRequest;
use crate::percent;

/// nginx and those who do as it does pass an answer with this header on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Not in the crate `http`.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers a request for events whose parameters `read` reads.
pub(super) fn events(
    api: &Api,
    tenant: &str,
    head: &Head,
    token_in: TokenIn,
    socket: Socket,
    read: impl FnOnce() -> Result<Subscription, RequestError>,
) -> Result<Response<Bytes>, RequestError> {
    let body = match api.admit(tenant, head, token_in) {
        Ok(caller) => subscribe(api, caller, head, socket, read()?)?,
        Err(Refusal::Starting) => {
            // What can't be the name of a tenant will not become one.
            let tenant = percent::decode(tenant).ok().and_then(|tenant| TenantName::new(&tenant).ok());
            let tenant = tenant.ok_or(RequestError::Unauthorized)?;
            EventBody::new(api.hubs.not_yet(&tenant), None, api.metrics.clone())
        }
        Err(Refusal::Error(error)) => return Err(error),
    };
    let mut response = Response::new(Bytes::new());
    dress(&mut response, head, "text/event-stream");
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    body::attach(&mut response, body);
    Ok(response)
}

fn subscribe(
    api: &Api,
    caller: Caller,
    head: &Head,
    socket: Socket,
    subscription: Subscription,
) -> Result<EventBody, RequestError> {
    let Subscription { wanted, channels, interval, last_event_id } = subscription;
    caller.check_named(&wanted)?;
    let Caller { credential, grant } = caller;
    let header = head.headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
    let request = SubscribeRequest {
        tenant: grant.tenant.clone(),
        scope: grant.scope.clone(),
        wanted,
        channels,
        interval,
        resume: resume(header, last_event_id.as_deref()),
    };
    let lease = api.open.open(credential, grant, request.resume.is_some(), socket);
    Ok(EventBody::new(api.hubs.subscribe(request), Some(lease), api.metrics.clone()))
}
