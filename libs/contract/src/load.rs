//! Load reports: how many clients a pod of the data plane has, which its pods tell each other.
//!
//! Each pod publishes a [`LoadReport`] on [`subject::load`](crate::subject::load) and listens to
//! [`subject::load_all`](crate::subject::load_all). `docs/protocol-internal.md` describes the JSON.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The time between two reports of a pod, chosen at random within this range.
pub const REPORT_PERIOD: Range<Duration> = Duration::from_millis(900)..Duration::from_millis(1_100);
/// A pod whose last report is older than this is not counted: five reports were lost.
pub const REPORT_EXPIRY: Duration = Duration::from_secs(5);

/// The report of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// The pod's name, as the `targetRef` of its endpoint has it.
    pub server: String,
    /// Number of clients that are connected to it.
    pub connections: usize,
    /// `true` if it is shutting down. Then it takes no more clients, even while its endpoint still is ready.
    #[serde(default)]
    pub draining: bool,
}

impl LoadReport {
    /// Returns the report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Text and numbers always can be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a report, or returns `None` if `payload` is none.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_written_as_it_is_documented() {
        let report = LoadReport { server: "p".into(), connections: 3, draining: false };
        let json = report.to_json();
        assert_eq!(json, br#"{"server":"p","connections":3,"draining":false}"#);
        assert_eq!(LoadReport::parse(&json), Some(report));
        assert_eq!(LoadReport::parse(br#"{"server":"x"}"#), None);
    }
}
