//! What this pod counts about itself, its catalog and its clients. (What the fan-out counts it registers
//! itself.)
//!
//! Every label has a closed set of values: neither tenants nor devices nor anything that a client sends
//! becomes one. The one exception is the revision of the catalog, of which there is one at a time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use sha2::{Digest, Sha256};

use crate::catalog::{Catalog, Problem, ProblemKind};

/// The addresses of the first port, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Route {
    /// `/v1/{tenant}/events`.
    Events,
    /// `/v1/{tenant}/devices`.
    Devices,
    /// `/v1/{tenant}/devices/{code}`.
    Device,
    /// A file of the dashboard.
    Dashboard,
    /// Anything else.
    Other,
}

/// The labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// Where it went.
    pub route: Route,
    /// The status of the answer.
    pub status: u16,
}

/// What is counted about clients. Cheap to clone; clones count together.
#[derive(Debug, Clone, Default)]
pub struct HttpMetrics {
    /// Requests that were answered.
    pub requests: Family<RequestLabels, Counter>,
    /// Sockets that are open.
    pub sockets: Gauge,
    /// Sockets that could not be accepted, or that ended with a fault.
    pub socket_errors: Counter,
    /// Event streams that are open.
    pub streams: Gauge,
    /// Bytes of event streams that were handed to sockets.
    pub stream_bytes: Counter<u64, AtomicU64>,
    /// Event streams that were ended because access changed.
    pub revoked: Counter,
    /// Event streams that were ended because the client took nothing.
    pub stalled: Counter,
}

impl HttpMetrics {
    /// Makes them known to `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RevisionLabels {
    revision: String,
}

/// What is counted about the catalog.
#[derive(Debug, Clone, Default)]
pub struct CatalogMetrics {
    /// Always 1, with the revision that is served now as its only label.
    revision: Family<RevisionLabels, Gauge>,
    problems: Family<ProblemLabels, Gauge>,
    tenants: Gauge,
    devices: Gauge,
    swaps: Counter,
}

impl CatalogMetrics {
    /// Makes them known to `registry`.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { revision, problems, tenants, devices, swaps } = all.clone();
        registry.register("catalog_revision", "The revision of the mapping that is served", revision);
        registry.register("catalog_problems", "What can't be served of the mapping", problems);
        registry.register("catalog_tenants", "Tenants in the catalog", tenants);
        registry.register("catalog_devices", "Devices in the catalog", devices);
        registry.register("catalog_swaps", "How often the catalog was replaced by a newer one", swaps);
        all
    }

    /// The problems that there are now.
    pub fn set_problems(&self, problems: &[Problem]) {
        for kind in ProblemKind::ALL {
            let count = problems.iter().filter(|problem| problem.kind == kind).count();
            self.problems
                .get_or_create(&ProblemLabels { kind: kind.as_str() })
                .set(count.try_into().unwrap_or(i64::MAX));
        }
    }

    /// A newer catalog was published.
    pub fn swapped(&self, catalog: &Catalog) {
        let devices: usize = catalog.tenants.values().map(|tenant| tenant.devices.len()).sum();
        self.tenants.set(catalog.tenants.len().try_into().unwrap_or(i64::MAX));
        self.devices.set(devices.try_into().unwrap_or(i64::MAX));
        self.swaps.inc();
        self.revision.clear();
        self.revision.get_or_create(&RevisionLabels { revision: revision(catalog) }).set(1);
    }
}

/// One text for the revisions of all shards: pods that show the same one serve the same mapping.
fn revision(catalog: &Catalog) -> String {
    let sorted: BTreeMap<_, _> =
        catalog.tenants.iter().map(|(name, tenant)| (name, &tenant.revisions)).collect();
    let mut digest = Sha256::new();
    for (name, revisions) in sorted {
        // Neither names nor revisions hold line ends.
        digest.update(format!("{name}\n{}\n\n", revisions.join("\n")));
    }
    data_encoding::HEXLOWER.encode(&digest.finalize()[..6])
}

/// What is known of this pod as a whole.
#[derive(Debug, Clone, Default)]
pub struct PodMetrics {
    /// Whether the broker is connected: 1 or 0.
    pub broker_connected: Gauge,
    /// What the broker refused.
    pub broker_refusals: Counter,
    /// Whether this pod is ready: 1 or 0.
    pub ready: Gauge,
}

impl PodMetrics {
    /// Makes them known to `registry`, with what this build is.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { broker_connected, broker_refusals, ready } = all.clone();
        registry.register(
            "build",
            "What runs here",
            Info::new(vec![("version", flutecast_process::VERSION)]),
        );
        registry.register("broker_connected", "Whether the connection to NATS stands", broker_connected);
        registry.register("broker_refusals", "What NATS refused", broker_refusals);
        registry.register("ready", "Whether this pod takes part in the service", ready);
        all
    }
}
