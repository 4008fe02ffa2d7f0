//! Metrics of the catalog.
//!
//! Every label has a closed set of values but the revision, of which there is one at a time.

use std::collections::BTreeMap;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};

use super::{Catalog, Problem, ProblemKind};

#[derive(Debug, Clone, Default)]
pub(crate) struct CatalogMetrics {
    /// Always 1, with the revision that is served now as its only label.
    revision: Family<[(&'static str, String); 1], Gauge>,
    problems: Family<[(&'static str, ProblemKind); 1], Gauge>,
    tenants: Gauge,
    devices: Gauge,
    swaps: Counter,
}

impl CatalogMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let Self { revision, problems, tenants, devices, swaps } = all.clone();
        registry.register("catalog_revision", "The revision of the mapping that is served", revision);
        registry.register("catalog_problems", "What can't be served of the mapping", problems);
        registry.register("catalog_tenants", "Tenants in the catalog", tenants);
        registry.register("catalog_devices", "Devices in the catalog", devices);
        registry.register("catalog_swaps", "How often the catalog was replaced by a newer one", swaps);
        all
    }

    pub(crate) fn set_problems(&self, problems: &[Problem]) {
        for kind in ProblemKind::ALL {
            let count = problems.iter().filter(|problem| problem.kind == kind).count();
            self.problems.get_or_create(&[("kind", kind)]).set(count.try_into().unwrap_or(i64::MAX));
        }
    }

    /// To be called after a newer catalog was published.
    pub(crate) fn swapped(&self, catalog: &Catalog) {
        let devices: usize = catalog.tenants.values().map(|tenant| tenant.devices.len()).sum();
        self.tenants.set(catalog.tenants.len().try_into().unwrap_or(i64::MAX));
        self.devices.set(devices.try_into().unwrap_or(i64::MAX));
        self.swaps.inc();
        self.revision.clear();
        self.revision.get_or_create(&[("revision", revision(catalog))]).set(1);
    }
}

/// Returns a digest of the revisions of all shards: pods with the same one serve the same mapping.
fn revision(catalog: &Catalog) -> String {
    let sorted: BTreeMap<_, _> =
        catalog.tenants.iter().map(|(name, tenant)| (name, &tenant.revisions)).collect();
    let mut digest = Sha256::new();
    for (name, revisions) in sorted {
        // Neither names nor revisions contain line breaks.
        digest.update(format!("{name}\n{}\n\n", revisions.join("\n")));
    }
    data_encoding::HEXLOWER.encode(&digest.finalize()[..6])
}
