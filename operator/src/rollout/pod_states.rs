//! The announcements of all pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::serving::Announcement;
use flutecast_contract::subject;

/// The latest announcements of the pods that announced lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodStates {
    /// `true` if NATS is connected. While it isn't, missing announcements say nothing about a pod.
    pub(crate) connected: bool,
    /// By the name of the pod.
    pub(crate) pods: BTreeMap<String, Arc<Announcement>>,
}

/// Reads the announcement of a pod of `release`. Returns `None` if the message is none, or is on the subject
/// of another pod: the rights on NATS bind a pod to its subject, so that it can't announce for another.
pub(super) fn read(release: &str, subject: &str, payload: &[u8]) -> Option<Announcement> {
    let is_its_own = |announcement: &Announcement| subject == subject::serving(release, &announcement.server);
    Announcement::parse(payload).filter(is_its_own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_cannot_announce_for_another_and_a_query_is_no_announcement() {
        let is_of = |subject: &str, server: &str| {
            let announcement = Announcement { server: server.to_owned(), ..Announcement::default() };
            read("my.release", subject, &announcement.to_json()) == Some(announcement)
        };
        assert!(is_of("flutecast.serving.my_release.pod_1", "pod.1"));
        assert!(!is_of("flutecast.serving.my_release.pod_2", "pod.1"));
        assert!(is_of("flutecast.serving.my_release.query_", "query"));
        assert!(!is_of("flutecast.serving.my_release.query", "query"));
    }
}
