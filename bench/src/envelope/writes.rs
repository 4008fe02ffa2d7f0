//! The writes to the API server, by its own metrics.

use std::collections::BTreeMap;

use anyhow::Context as _;

/// The resources that the operator writes. Leases are left out: they are written every few
/// seconds, whatever the number of devices. So are creations of the three kinds: those are ours.
const OTHER_STATUSES: [&str; 2] = ["tenants", "pushformats"];
const MAPPING: [&str; 2] = ["configmaps", "secrets"];

/// Successful writes, by what was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Writes(BTreeMap<&'static str, u64>);

impl Writes {
    /// Reads them from the text of the API server's `/metrics`.
    ///
    /// # Errors
    /// Returns an error if a line isn't as Kubernetes writes it.
    pub(super) fn read(metrics: &str) -> anyhow::Result<Self> {
        let mut writes = Self::default();
        for line in metrics.lines().filter_map(|line| line.strip_prefix("apiserver_request_total{")) {
            let (labels, value) = line.rsplit_once("} ").with_context(|| line.to_owned())?;
            let label = |name: &str| {
                let value =
                    labels.split("\",").find_map(|label| label.strip_prefix(name)?.strip_prefix("=\""));
                value.map(|value| value.trim_end_matches('"')).unwrap_or_default()
            };
            let is_write = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&label("verb"));
            let Some(what) = what(label("resource"), label("subresource")) else { continue };
            if is_write && label("code").starts_with('2') {
                let count: f64 = value.parse().with_context(|| line.to_owned())?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
                let count = count as u64;
                *writes.0.entry(what).or_default() += count;
            }
        }
        Ok(writes)
    }

    /// Returns the writes since `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        let count = |what| before.0.get(what).copied().unwrap_or_default();
        Self(self.0.iter().map(|(what, now)| (*what, now.saturating_sub(count(what)))).collect())
    }

    /// All of them.
    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the number of one sort: `device status`, `other status`, `mapping`, `events`.
    pub(super) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
}

fn what(resource: &str, subresource: &str) -> Option<&'static str> {
    match (resource, subresource) {
        ("devices", "status") => Some("device status"),
        (resource, "status") if OTHER_STATUSES.contains(&resource) => Some("other status"),
        (resource, "") if MAPPING.contains(&resource) => Some("mapping"),
        ("events", "") => Some("events"),
        _ => None,
    }
}
