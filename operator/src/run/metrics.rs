//! All metrics of the operator, and whether it is ready.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::api_server::ApiWrites;
use crate::backend::cluster::mapping::MappingMetrics;
use crate::controller::metrics::ControllerMetrics;
use crate::enrollment::EnrollmentMetrics;
use crate::jetstream::StreamMetrics;
use crate::last_messages::LookMetrics;
use crate::lease::LeaseMetrics;
use crate::presence::PresenceMetrics;
use crate::rollout::RolloutMetrics;

/// docs/operations.md lists all of them.
#[derive(Debug, Clone)]
pub(crate) struct OperatorMetrics {
    pub(crate) controller: Arc<ControllerMetrics>,
    pub(crate) writes: ApiWrites,
    pub(crate) mapping: MappingMetrics,
    pub(crate) lease: LeaseMetrics,
    pub(crate) streams: Arc<StreamMetrics>,
    pub(crate) presence: Arc<PresenceMetrics>,
    pub(crate) looks: Arc<LookMetrics>,
    pub(crate) rollout: Arc<RolloutMetrics>,
    pub(crate) enrollment: Arc<EnrollmentMetrics>,
    /// What is wrong with the Secret of NATS's passwords.
    pub(crate) passwords_problem: watch::Sender<Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotReady {
    NatsPasswords(String),
    MappingNotWritten,
    StreamsNotApplied,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NatsPasswords(problem) => write!(f, "NATS's passwords can't be used: {problem}"),
            Self::MappingNotWritten => f.write_str("the mapping is not written"),
            Self::StreamsNotApplied => f.write_str("streams were not applied yet; is NATS there?"),
        }
    }
}

impl OperatorMetrics {
    pub(crate) fn new() -> Self {
        let writes = ApiWrites::default();
        Self {
            controller: Arc::default(),
            mapping: MappingMetrics::new(writes.clone()),
            lease: LeaseMetrics::new(writes.clone()),
            writes,
            streams: Arc::default(),
            presence: Arc::default(),
            looks: Arc::default(),
            rollout: Arc::default(),
            enrollment: Arc::default(),
            passwords_problem: watch::Sender::default(),
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        let Self {
            controller, writes, mapping, lease, streams, presence, looks, rollout, enrollment, ..
        } = self;
        let mut registry = Registry::with_prefix("flutecast");
        // Named as the data plane's, so that one query shows which versions run.
        let version = Info::new(vec![("version", flutecast_process::VERSION)]);
        registry.register("build", "What runs here", version);
        let operator = registry.sub_registry_with_prefix("operator");
        controller.register(operator);
        mapping.register(operator);
        writes.register(operator);
        streams.register(operator);
        lease.register(operator);
        presence.register(operator);
        looks.register(operator);
        rollout.register(operator);
        enrollment.register(operator);
        registry
    }

    /// Checks whether the operator has done its work: the mapping is written, and streams were applied at
    /// least once. An operator that is ready to take over from another one is ready too. When NATS goes away
    /// later, that is in conditions and metrics, but the operator stays ready.
    pub(crate) fn ready(&self) -> Result<(), NotReady> {
        if self.controller.is_standby() {
            return Ok(());
        }
        let works = self.controller.mapping_is_written() && self.streams.were_applied();
        // What keeps NATS from starting; later it is in the log.
        if let (false, Some(problem)) = (works, self.passwords_problem.borrow().as_ref()) {
            return Err(NotReady::NatsPasswords(problem.clone()));
        }
        if !self.controller.mapping_is_written() {
            return Err(NotReady::MappingNotWritten);
        }
        if !self.streams.were_applied() {
            return Err(NotReady::StreamsNotApplied);
        }
        Ok(())
    }
}

/// Encodes the metrics in the OpenMetrics text format.
pub(crate) fn encode(registry: &Registry) -> String {
    let mut encoded = String::new();
    // Writing into a String can't fail.
    let _ = text::encode(&mut encoded, registry);
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_exactly_the_metrics_that_exist() {
        let text = encode(&OperatorMetrics::new().registry());
        let is_ours = |name: &str| name.starts_with("flutecast_operator_") || name == "flutecast_build_info";
        let page = include_str!("../../../docs/operations.md");
        let differences = flutecast_testkit::metrics_page::differences(&text, page, is_ours);
        assert!(differences.is_empty(), "{differences:#?}");
    }
}
