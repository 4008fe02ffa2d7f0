//! JetStream: the streams, sources and consumers of the tenants.
//!
//! [`streams`] describes them as data, [`reconciler`] keeps them as wanted for as long as the operator runs,
//! `tenant` makes one pass for one tenant, `settings` knows which settings the operator owns, and [`orphans`]
//! finds streams whose Tenant is gone. Nothing here knows manifests or Kubernetes.

mod capture;
mod metrics;
pub(crate) mod orphans;
pub(crate) mod reconciler;
pub(crate) mod settings;
pub(crate) mod streams;
pub(crate) mod subject_pattern;
pub(crate) mod tenant;
#[cfg(test)]
mod tests;

pub(crate) use self::metrics::StreamMetrics;
