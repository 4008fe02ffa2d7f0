//! The admin port: liveness, readiness and metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use flutecast_nats::ConnectionState;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warp::Filter;

use super::body::BoxError;
use crate::catalog::{Catalog, MappingState};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, Default)]
pub(crate) struct PodMetrics {
    /// 1 or 0.
    pub(crate) broker_connected: Gauge,
    pub(crate) broker_refusals: Counter,
    /// 1 or 0.
    pub(crate) ready: Gauge,
}

impl PodMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { broker_connected, broker_refusals, ready } = all.clone();
        let build = Info::new(vec![("version", flutecast_process::VERSION)]);
        registry.register("build", "What runs here", build);
        registry.register("broker_connected", "Whether the connection to NATS stands", broker_connected);
        registry.register("broker_refusals", "What NATS refused", broker_refusals);
        registry.register("ready", "Whether this pod takes part in the service", ready);
        all
    }
}

#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) registry: Registry,
    pub(crate) metrics: PodMetrics,
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    pub(crate) mapping: watch::Receiver<MappingState>,
    pub(crate) broker: watch::Receiver<ConnectionState>,
    pub(crate) draining: CancellationToken,
}

impl Admin {
    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let MappingState::Missing(reason) = &*self.mapping.borrow() {
            reasons.push(reason.clone());
        }
        if !self.broker.borrow().connected {
            reasons.push("the broker is not connected".to_owned());
        }
        if self.draining.is_cancelled() {
            reasons.push("the pod is draining".to_owned());
        }
        reasons
    }

    fn ready(&self) -> Response<Bytes> {
        let reasons = self.not_ready();
        let ready = reasons.is_empty();
        let body = serde_json::json!({ "ready": ready, "reasons": reasons, "revisions": self.revisions() });
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, "application/json", body.to_string())
    }

    /// Returns the revision of each shard that is served, by tenant.
    fn revisions(&self) -> serde_json::Value {
        let catalog = self.catalog.borrow().clone();
        let tenants = catalog.tenants.iter();
        let revisions = tenants.map(|(name, tenant)| (name.to_string(), serde_json::json!(tenant.revisions)));
        serde_json::Value::Object(revisions.collect())
    }

    fn metrics(&self) -> Response<Bytes> {
        let broker = *self.broker.borrow();
        self.metrics.broker_connected.set(i64::from(broker.connected));
        self.metrics.broker_refusals.inner().store(broker.refusals, Ordering::Relaxed);
        self.metrics.ready.set(i64::from(self.not_ready().is_empty()));
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => answer(StatusCode::OK, OPENMETRICS, text),
            Err(std::fmt::Error) => {
                answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", "the metrics could not be written")
            }
        }
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn service(
    admin: Arc<Admin>,
) -> impl Service<
    Request<Incoming>,
    Response = Response<impl Body<Data = Bytes, Error: Into<BoxError>> + Send + use<>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ use<> {
    let with_admin = warp::any().map(move || Arc::clone(&admin));
    let live = warp::path("livez").map(|| answer(StatusCode::OK, "text/plain", "ok\n"));
    let ready = warp::path("readyz").and(with_admin.clone()).map(|admin: Arc<Admin>| admin.ready());
    let metrics = warp::path("metrics").and(with_admin).map(|admin: Arc<Admin>| admin.metrics());
    let nothing =
        warp::any().map(|| answer(StatusCode::NOT_FOUND, "text/plain", "livez, readyz or metrics\n"));
    let routes = live.or(ready).unify().or(metrics).unify().or(nothing).unify();
    TowerToHyperService::new(warp::service(routes))
}
