//! JetStream: the streams, sources and consumers that the tenants need.
//!
//! [`task`] keeps them as wanted for as long as the operator runs, [`tenant`] does so once for one tenant,
//! [`config`] says which settings are the operator's, [`flutecast_nats::api`] asks the broker. Nothing here knows of
//! manifests or of Kubernetes.

mod capture;
pub(crate) mod connection;
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
