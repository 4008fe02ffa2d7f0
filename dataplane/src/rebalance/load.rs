//! What pods tell each other about how much they have to do: plain data, without I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::planner::View;
use crate::peers::Peers;
use crate::serving::subject_token;

/// How often a pod tells how many clients it has.
pub(super) const PERIOD: Duration = Duration::from_secs(1);
/// A pod that has told nothing for this long isn't counted: five reports that got lost.
const FRESH: Duration = Duration::from_secs(5);
/// How many pods are listened to at most; more than any Service has, so that what somebody else publishes
/// takes no memory.
const MOST_PODS: usize = 1_000;

/// Where the reports go and come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadSubjects {
    /// `flutecast.load.<release>.<server>`.
    pub(super) own: String,
    /// `flutecast.load.<release>.*`.
    pub(super) all: String,
}

impl LoadSubjects {
    pub(crate) fn new(release: &str, server_name: &str) -> Self {
        let (release, server) = (subject_token(release), subject_token(server_name));
        Self { own: format!("flutecast.load.{release}.{server}"), all: format!("flutecast.load.{release}.*") }
    }
}

/// What one pod tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The pod's name, as its endpoint has it.
    pub(super) server: String,
    /// How many clients it has.
    pub(super) connections: usize,
    /// Whether it takes leave: then nobody counts on it, even while its endpoint still looks ready.
    #[serde(default)]
    pub(super) draining: bool,
}

impl Report {
    pub(super) fn to_bytes(&self) -> Bytes {
        // Text and numbers always can be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The newest report of each pod.
#[derive(Debug, Default)]
pub(super) struct Reports {
    by_server: BTreeMap<String, (Instant, Report)>,
}

impl Reports {
    /// Takes a message; not: it can't be understood.
    pub(super) fn take(&mut self, payload: &[u8], now: Instant) -> bool {
        let Ok(report) = serde_json::from_slice::<Report>(payload) else { return false };
        if self.by_server.len() >= MOST_PODS && !self.by_server.contains_key(&report.server) {
            self.forget_old(now);
            if self.by_server.len() >= MOST_PODS {
                return false;
            }
        }
        self.by_server.insert(report.server.clone(), (now, report));
        true
    }

    /// The pods that clients are sent to and that tell their load; none: this pod isn't one of them.
    pub(super) fn view(&self, own_name: &str, own: usize, peers: &Peers, now: Instant) -> Option<View> {
        let ready = |name: &str| peers.by_name.get(name).is_some_and(|peer| peer.ready);
        if !ready(own_name) {
            return None;
        }
        let counted = self.by_server.values().filter(|(at, report)| {
            !report.draining && now < *at + FRESH && report.server != own_name && ready(&report.server)
        });
        let others = counted.map(|(_, report)| (report.server.clone(), report.connections)).collect();
        Some(View { own, others })
    }

    /// Forgets pods that have told nothing for long.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.by_server.retain(|_, (at, _)| now < *at + FRESH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Peer;

    fn peers(states: &[(&str, bool)]) -> Peers {
        let peer = |(name, ready): &(&str, bool)| {
            ((*name).to_owned(), Peer { ready: *ready, serving: true, ..Peer::default() })
        };
        Peers { by_name: states.iter().map(peer).collect() }
    }

    fn report(server: &str, connections: usize, draining: bool) -> Bytes {
        Report { server: server.into(), connections, draining }.to_bytes()
    }

    #[test]
    fn only_ready_pods_that_tell_their_load_are_counted() {
        let now = Instant::now();
        let mut reports = Reports::default();
        for (server, connections, draining) in
            [("a", 7, false), ("b", 5, false), ("c", 9, true), ("d", 2, false), ("gone", 1, false)]
        {
            assert!(reports.take(&report(server, connections, draining), now));
        }
        assert!(!reports.take(b"{\"server\":\"x\"}", now));
        let peers = peers(&[("a", true), ("b", true), ("c", true), ("d", false), ("late", true)]);
        // Its own count is what it knows itself, not what it told.
        let view = reports.view("a", 8, &peers, now).unwrap();
        assert_eq!(view, View { own: 8, others: vec![("b".into(), 5)] });
        assert_eq!(reports.view("d", 2, &peers, now), None, "a pod that isn't ready");
        assert_eq!(reports.view("unknown", 2, &peers, now), None);
        let later = now + FRESH;
        assert_eq!(reports.view("a", 8, &peers, later).unwrap().others, []);
        reports.forget_old(later);
        assert_eq!(reports.by_server.len(), 0);
    }

    #[test]
    fn strangers_take_no_memory() {
        let now = Instant::now();
        let mut reports = Reports::default();
        for n in 0..MOST_PODS {
            assert!(reports.take(&report(&n.to_string(), 1, false), now));
        }
        assert!(!reports.take(&report("one-more", 1, false), now));
        assert!(reports.take(&report("7", 2, false), now), "one that is known");
        assert!(reports.take(&report("one-more", 1, false), now + FRESH), "when the others are silent");
    }

    #[test]
    fn a_report_is_what_the_contract_says() {
        let subjects = LoadSubjects::new("plant.1", "pod-1");
        assert_eq!(subjects.own, "flutecast.load.plant_1.pod-1");
        assert_eq!(subjects.all, "flutecast.load.plant_1.*");
        assert_eq!(report("p", 3, false), r#"{"server":"p","connections":3,"draining":false}"#);
    }
}
