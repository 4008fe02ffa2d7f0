//! What one pod announces, and what is known of all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

/// The revision of each shard of a tenant, in the order of the shards.
pub(super) type Revisions = Arc<[String]>;

/// What one pod serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announced {
    /// The pod's name.
    pub server: String,
    /// Which revisions, by tenant. A tenant that isn't here isn't served.
    pub tenants: BTreeMap<String, Revisions>,
}

/// What all pods serve that were heard of lately.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// Whether NATS is connected. While it isn't, silence says nothing about a pod.
    pub connected: bool,
    /// By the pod's name.
    pub pods: BTreeMap<String, Arc<Announced>>,
}

#[derive(Deserialize)]
struct Document {
    server: String,
    tenants: BTreeMap<String, Tenant>,
}

#[derive(Deserialize)]
struct Tenant {
    shards: BTreeMap<usize, String>,
}

impl Announced {
    /// Reads an announcement. None: it isn't one. A tenant whose shards are not numbered from 0 on counts as
    /// not served.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let Document { server, tenants } = serde_json::from_slice(payload).ok()?;
        let tenants = tenants.into_iter().filter_map(|(name, Tenant { shards })| {
            let is_whole = !shards.is_empty() && shards.keys().copied().eq(0..shards.len());
            is_whole.then(|| (name, shards.into_values().collect()))
        });
        Some(Self { server, tenants: tenants.collect() })
    }
}

/// Where announcements come from and questions go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subjects {
    /// `flutecast.serving.<release>.*`
    pub(super) announcements: String,
    /// `flutecast.serving.<release>.query`
    pub(super) query: String,
}

/// The last token of the subject that pods are asked on.
const QUERY: &str = "query";

impl Subjects {
    pub(super) fn new(release: &str) -> Self {
        let release = token(release);
        Self {
            announcements: format!("flutecast.serving.{release}.*"),
            query: format!("flutecast.serving.{release}.{QUERY}"),
        }
    }

    /// Whether a pod of this name announces on this subject. The rights on NATS bind a pod to its subject, so
    /// that none can speak for another.
    pub(super) fn is_of(&self, subject: &str, server: &str) -> bool {
        let mut expected = token(server);
        if expected == QUERY {
            expected.push('_');
        }
        subject != self.query && subject.rsplit('.').next() == Some(expected.as_str())
    }
}

/// A name as one token of a subject, as the pods write it.
fn token(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let token: String = name.chars().map(safe).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_read_as_it_is_documented() {
        let text = r#"{"server":"p-1","tenants":{"acme":{"shards":{"0":"a","1":"b"}},"empty":{"shards":{}},"torn":{"shards":{"1":"b"}}}}"#;
        let announced = Announced::parse(text.as_bytes()).unwrap();
        assert_eq!(announced.server, "p-1");
        let revisions: Revisions = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(announced.tenants, BTreeMap::from([("acme".to_owned(), revisions)]));
        for broken in ["", "{}", "[]", r#"{"server":1,"tenants":{}}"#, r#"{"server":"p"}"#] {
            assert_eq!(Announced::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn nobody_speaks_for_another_and_a_question_is_no_announcement() {
        let subjects = Subjects::new("my.release");
        assert_eq!(subjects.announcements, "flutecast.serving.my_release.*");
        assert!(subjects.is_of("flutecast.serving.my_release.pod_1", "pod.1"));
        assert!(!subjects.is_of("flutecast.serving.my_release.pod_2", "pod.1"));
        assert!(subjects.is_of("flutecast.serving.my_release.query_", "query"));
        assert!(!subjects.is_of("flutecast.serving.my_release.query", "query"));
    }
}
