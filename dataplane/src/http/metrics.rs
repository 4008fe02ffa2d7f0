//! Metrics of clients and requests.
//!
//! Every label has a closed set of values: no tenant, device or text of a client becomes one.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Route {
    /// `/v1/{tenant}/events`.
    Events,
    /// `/v1/{tenant}/devices`.
    Devices,
    /// `/v1/{tenant}/devices/{code}`.
    Device,
    Dashboard,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) route: Route,
    pub(crate) status: u16,
}

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct HttpMetrics {
    pub(crate) requests: Family<RequestLabels, Counter>,
    pub(crate) sockets: Gauge,
    pub(crate) socket_errors: Counter,
    pub(crate) streams: Gauge,
    pub(crate) stream_bytes: Counter<u64, AtomicU64>,
    pub(crate) revoked: Counter,
    pub(crate) stalled: Counter,
}

impl HttpMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { requests, sockets, socket_errors, streams, stream_bytes, revoked, stalled } = all.clone();
        registry.register("http_requests", "Requests that were answered", requests);
        registry.register("http_sockets", "Sockets that are open", sockets);
        registry.register("http_socket_errors", "Sockets that failed", socket_errors);
        registry.register("http_streams", "Event streams that are open", streams);
        registry.register_with_unit(
            "http_stream",
            "Event streams handed to sockets",
            Unit::Bytes,
            stream_bytes,
        );
        registry.register("http_streams_revoked", "Event streams ended as access has changed", revoked);
        registry.register("http_streams_stalled", "Event streams ended as the client took nothing", stalled);
        all
    }
}

/// Counts something as open until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
