//! The load reports of the other pods. Synchronous state without I/O; the time is an argument.

use std::collections::BTreeMap;

use flutecast_contract::load::{LoadReport, REPORT_EXPIRY};
use tokio::time::Instant;

use super::planner::View;
use crate::peers::Peers;

/// The largest number of pods whose reports are kept, which is more than any Service has. It bounds the
/// memory that foreign messages can take.
const MOST_PODS: usize = 1_000;

/// The newest report of each pod.
#[derive(Debug, Default)]
pub(super) struct Reports {
    by_server: BTreeMap<String, (Instant, LoadReport)>,
}

impl Reports {
    /// Records a report. Returns `false` if `payload` is none, or there is no room for one more pod.
    pub(super) fn take(&mut self, payload: &[u8], now: Instant) -> bool {
        let Some(report) = LoadReport::parse(payload) else { return false };
        if self.by_server.len() >= MOST_PODS && !self.by_server.contains_key(&report.server) {
            self.forget_old(now);
            if self.by_server.len() >= MOST_PODS {
                return false;
            }
        }
        self.by_server.insert(report.server.clone(), (now, report));
        true
    }

    /// Returns the ready pods that report their load, or `None` if this pod is not ready itself.
    pub(super) fn view(&self, own_name: &str, own: usize, peers: &Peers, now: Instant) -> Option<View> {
        let ready = |name: &str| peers.get(name).is_some_and(|peer| peer.ready);
        if !ready(own_name) {
            return None;
        }
        let counted = self.by_server.values().filter(|(at, report)| {
            !report.draining
                && now < *at + REPORT_EXPIRY
                && report.server != own_name
                && ready(&report.server)
        });
        let others = counted.map(|(_, report)| (report.server.clone(), report.connections)).collect();
        Some(View { own, others })
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        self.by_server.retain(|_, (at, _)| now < *at + REPORT_EXPIRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flutecast_kube::ServicePod;

    fn peers(states: &[(&str, bool)]) -> Peers {
        let peer = |(name, ready): &(&str, bool)| {
            ((*name).to_owned(), ServicePod { ready: *ready, serving: true, ..ServicePod::default() })
        };
        states.iter().map(peer).collect()
    }

    fn report(server: &str, connections: usize, draining: bool) -> Vec<u8> {
        LoadReport { server: server.into(), connections, draining }.to_json()
    }

    #[test]
    fn only_ready_pods_that_report_their_load_are_counted() {
        let now = Instant::now();
        let mut reports = Reports::default();
        for (server, connections, draining) in
            [("a", 7, false), ("b", 5, false), ("c", 9, true), ("d", 2, false), ("gone", 1, false)]
        {
            assert!(reports.take(&report(server, connections, draining), now));
        }
        assert!(!reports.take(b"{\"server\":\"x\"}", now));
        let peers = peers(&[("a", true), ("b", true), ("c", true), ("d", false), ("late", true)]);
        // The pod's own count is the current one, not that of its report.
        let view = reports.view("a", 8, &peers, now).unwrap();
        assert_eq!(view, View { own: 8, others: vec![("b".into(), 5)] });
        assert_eq!(reports.view("d", 2, &peers, now), None, "a pod that isn't ready");
        assert_eq!(reports.view("unknown", 2, &peers, now), None);
        let later = now + REPORT_EXPIRY;
        assert_eq!(reports.view("a", 8, &peers, later).unwrap().others, []);
        reports.forget_old(later);
        assert_eq!(reports.by_server.len(), 0);
    }

    #[test]
    fn reports_of_unknown_pods_use_bounded_memory() {
        let now = Instant::now();
        let mut reports = Reports::default();
        for n in 0..MOST_PODS {
            assert!(reports.take(&report(&n.to_string(), 1, false), now));
        }
        assert!(!reports.take(&report("one-more", 1, false), now));
        assert!(reports.take(&report("7", 2, false), now), "one that is known");
        assert!(
            reports.take(&report("one-more", 1, false), now + REPORT_EXPIRY),
            "when the others are silent"
        );
    }
}
