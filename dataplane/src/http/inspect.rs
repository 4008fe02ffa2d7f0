//! `GET /channels` on loopback: the last messages of a device's channels, and what became of each.
//!
//! It takes no token: who has a shell on this machine, or the right to `kubectl port-forward`, may see parts
//! of payloads. A page in a browser there could reach it under a name of its own that resolves to loopback:
//! therefore the request has to name a loopback host, and no answer may be read by another origin.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flutecast_contract::name::{ChannelName, TenantName};
use flutecast_nats::{NatsConnection, StreamReader};
use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::error::RequestError;
use super::params::InspectQuery;
use super::routes::host;
use crate::catalog::{Catalog, Channel, Device, TenantCatalog};

mod messages;

/// The most requests that read from streams at once; more wait.
const CONCURRENT: usize = 2;
/// The longest that an answer may take.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Inspect {
    catalog: watch::Receiver<Arc<Catalog>>,
    broker: NatsConnection,
    reads: Semaphore,
}

impl Inspect {
    pub(crate) fn new(catalog: watch::Receiver<Arc<Catalog>>, broker: NatsConnection) -> Self {
        Self { catalog, broker, reads: Semaphore::new(CONCURRENT) }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Result<Response<Bytes>, RequestError> {
        check_host(host(request).as_ref())?;
        if request.uri().path() != "/channels" {
            let message = "there is no such address; write /channels?device=CORR-01".to_owned();
            return Err(RequestError::NotFound(message));
        }
        if request.method() != Method::GET {
            return Err(RequestError::MethodNotAllowed);
        }
        let query = InspectQuery::read(request.uri().query().unwrap_or_default())?;
        let catalog = self.catalog.borrow().clone();
        let (tenant, device) = device(&catalog, &query)?;
        let channels = channels(device, query.channels.as_ref())?;
        let read = async {
            // The semaphore is never closed.
            let _permit = self.reads.acquire().await;
            self.read(tenant, device, &channels).await
        };
        let late = || unavailable("the messages could not be read in time".to_owned());
        let json = timeout(DEADLINE, read).await.unwrap_or_else(|_| Err(late()))?;
        let mut response = Response::new(Bytes::from(json));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    async fn read(
        &self,
        tenant: &TenantCatalog,
        device: &Device,
        channels: &[&Channel],
    ) -> Result<String, RequestError> {
        if !self.broker.state().connected {
            return Err(unavailable("the broker can't be reached".to_owned()));
        }
        let reader = StreamReader::new(self.broker.client.clone(), tenant.settings.stream.clone());
        let failed = |error: flutecast_nats::RequestError| unavailable(error.to_string());
        let state = reader.state().await.map_err(failed)?;
        let mut answer = messages::DeviceMessages::new(tenant, device, state.time.into());
        for channel in channels {
            let read = messages::read(&reader, &state, tenant, device, channel).await;
            answer.channels.push(read.map_err(failed)?);
        }
        Ok(answer.to_json())
    }
}

fn unavailable(message: String) -> RequestError {
    RequestError::Unavailable { code: "BrokerAway", message }
}

/// Refuses a request under a name that isn't this machine's own: any name can be made to resolve to loopback.
fn check_host(host: Option<&Authority>) -> Result<(), RequestError> {
    let named = host.map_or("", Authority::host);
    let address = named.trim_start_matches('[').trim_end_matches(']');
    if address.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    {
        return Ok(());
    }
    Err(RequestError::Forbidden(format!(
        "Host: {named:?} is not a name of this machine's loopback; ask for localhost, with the port"
    )))
}

/// Returns the device of a query, and its tenant.
fn device<'a>(
    catalog: &'a Catalog,
    query: &InspectQuery,
) -> Result<(&'a TenantCatalog, &'a Arc<Device>), RequestError> {
    let InspectQuery { tenant, device: code, channels: _ } = query;
    if let Some(tenant) = tenant
        && !catalog.tenants.contains_key(tenant)
    {
        return Err(RequestError::NotFound(format!("tenant: this pod serves no tenant {tenant}")));
    }
    let of = |name: &TenantName| tenant.as_ref().is_none_or(|tenant| tenant == name);
    let tenants = catalog.tenants.iter().filter(|(name, _)| of(name)).map(|(_, tenant)| &**tenant);
    let mut found: Vec<_> =
        tenants.filter_map(|tenant| tenant.by_code.get(code).map(|device| (tenant, device))).collect();
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(RequestError::BadRequest(format!(
            "tenant: several tenants have a device {code}; add tenant=…"
        ))),
        (None, _) => Err(RequestError::NotFound(format!("device: this pod serves no device {code}"))),
    }
}

/// Returns the channels of a query: all if it names none.
fn channels<'a>(
    device: &'a Device,
    wanted: Option<&BTreeSet<ChannelName>>,
) -> Result<Vec<&'a Channel>, RequestError> {
    let Some(wanted) = wanted else { return Ok(device.channels.values().collect()) };
    let channel = |name: &ChannelName| {
        device.channels.get(name).ok_or_else(|| {
            let known: Vec<&str> = device.channels.keys().map(ChannelName::as_str).collect();
            let (code, known) = (&device.code, known.join(", "));
            RequestError::NotFound(format!("channel: {code} has no channel {name}; it has {known}"))
        })
    };
    wanted.iter().map(channel).collect()
}

pub(crate) fn service(
    inspect: Arc<Inspect>,
) -> impl Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ use<> {
    service_fn(move |request: Request<Incoming>| {
        let inspect = Arc::clone(&inspect);
        async move {
            let mut response = inspect.answer(&request).await.unwrap_or_else(RequestError::into_response);
            // Pages of other origins may not even read an error.
            response.headers_mut().remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            response.headers_mut().remove(header::ACCESS_CONTROL_EXPOSE_HEADERS);
            if response.status() == http::StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            Ok(response.map(Full::new))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_are_served() {
        let checked = |host: &str| check_host(Some(&host.parse().unwrap())).is_ok();
        for own in ["localhost", "localhost:8082", "LOCALHOST:1", "127.0.0.1:8082", "127.3.2.1", "[::1]:8082"]
        {
            assert!(checked(own), "{own}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example:8082",
            "127.0.0.1.nip.io:8082",
            "10.0.0.1:8082",
            "0.0.0.0:8082",
            "[::]:8082",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(!checked(foreign), "{foreign}");
        }
        assert!(check_host(None).is_err());
    }
}
