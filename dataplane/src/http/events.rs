//! `GET` and `POST /v1/{tenant}/events`.

use bytes::Bytes;
use flutecast_contract::name::TenantName;
use http::header::HeaderName;
use http::{HeaderValue, Response};

use super::api::{Api, Caller, RequestHead, TokenIn, set_data_headers};
use super::body::{self, EventBody};
use super::error::RequestError;
use super::params::{Subscription, resume};
use super::server::SocketControl;
use crate::fanout::SubscribeRequest;
use crate::percent;

/// nginx and compatible proxies do not buffer a response with this header.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Not defined by the crate `http`.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Opens an event stream. `read` parses the parameters, after the caller was admitted.
pub(super) fn events(
    api: &Api,
    tenant: &str,
    head: &RequestHead,
    token_in: TokenIn,
    socket: SocketControl,
    read: impl FnOnce() -> Result<Subscription, RequestError>,
) -> Result<Response<Bytes>, RequestError> {
    let body = match api.admit(tenant, head, token_in)? {
        Some(caller) => subscribe(api, caller, head, socket, read()?)?,
        None => {
            // A text that is no valid name will never be a tenant.
            let tenant = percent::decode(tenant).ok().and_then(|tenant| TenantName::new(&tenant).ok());
            let tenant = tenant.ok_or(RequestError::Unauthorized)?;
            EventBody::new(api.hubs.not_yet(&tenant), None, api.metrics.clone())
        }
    };
    let mut response = Response::new(Bytes::new());
    set_data_headers(&mut response, head, "text/event-stream");
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    body::attach(&mut response, body);
    Ok(response)
}

fn subscribe(
    api: &Api,
    caller: Caller,
    head: &RequestHead,
    socket: SocketControl,
    subscription: Subscription,
) -> Result<EventBody, RequestError> {
    let Subscription { wanted, channels, interval, problems, last_event_id } = subscription;
    caller.check_named(&wanted)?;
    let Caller { credential, grant } = caller;
    let header = head.headers.get(LAST_EVENT_ID).map(HeaderValue::as_bytes);
    let request = SubscribeRequest {
        tenant: grant.tenant.clone(),
        scope: grant.scope.clone(),
        wanted,
        channels,
        interval,
        problems: problems.unwrap_or_default(),
        resume: resume(header, last_event_id.as_deref()),
    };
    let guard = api.streams.open(credential, grant, request.resume.is_some(), socket);
    if !api.access.borrow().as_ref().is_some_and(|access| guard.holds(access)) {
        return Err(RequestError::Unauthorized);
    }
    Ok(EventBody::new(api.hubs.subscribe(request), Some(guard), api.metrics.clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flutecast_nats::Login;
    use http::{HeaderMap, HeaderValue};
    use prometheus_client::registry::Registry;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::access::Access;
    use crate::fanout::{HubSettings, Hubs};
    use crate::http::{HttpMetrics, StreamRegistry};
    use crate::ingest::broker;

    /// Access with one token of the tenant acme, which has this SHA-256 digest.
    fn access(digest: &str) -> Option<Arc<Access>> {
        let yaml = format!(
            "apiVersion: mapping.flutecast.io/v1\ntenants: {{acme: {{tokens: {{a: {{sha256: {digest}}}}}}}}}"
        );
        Some(Arc::new(Access::from_document(serde_yaml::from_str(&yaml).unwrap()).unwrap().0))
    }

    #[tokio::test]
    async fn token_revoked_while_a_request_is_read_opens_nothing() {
        const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let (sender, receiver) = watch::channel(access(SECRET));
        let broker = broker::connect(&Login::at("nats://127.0.0.1:1"), "test").await.unwrap();
        let (_catalog, catalog) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let (hubs, _handle) =
            Hubs::start(broker, catalog, HubSettings::default(), &mut Registry::default(), stop);
        let metrics = HttpMetrics::default();
        let streams = StreamRegistry::new(metrics.clone());
        let api = Api { hubs, access: receiver, streams, metrics };
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
        let head = RequestHead { headers, host: None, query: "device=A".to_owned() };
        let answer = |changed: Option<Arc<Access>>| {
            let read = || {
                sender.send_replace(changed);
                Subscription::from_events_query(&head.query)
            };
            events(&api, "acme", &head, TokenIn::HeaderOnly, SocketControl::default(), read)
                .map(|answer| answer.status())
        };
        assert_eq!(answer(access(SECRET)).unwrap(), http::StatusCode::OK);
        assert_eq!(answer(access(&SECRET.replace('2', "3"))), Err(RequestError::Unauthorized));
    }
}
