//! Serving announcements: which revisions of the mapping a pod of the data plane serves.
//!
//! A pod publishes an [`Announcement`] on [`subject::serving`]: at once when what it serves changes, when its
//! connection to NATS was made again or when it receives a message on [`subject::serving_query`], and
//! otherwise after each [`period`](ANNOUNCE_PERIOD). The newest announcement of a pod replaces its earlier
//! ones. `docs/protocol-internal.md` describes the JSON.
//!
//! [`subject::serving`]: crate::subject::serving
//! [`subject::serving_query`]: crate::subject::serving_query

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The time between two announcements of a pod while nothing changes. Pods choose at random within this
/// range, so that those that started together do not announce together.
pub const ANNOUNCE_PERIOD: Range<Duration> = Duration::from_secs(4)..Duration::from_secs(6);
/// A pod that has been silent for this long no longer counts: two announcements in a row were lost.
pub const ANNOUNCE_SILENCE: Duration = Duration::from_secs(15);

/// The revision of each shard of a tenant, in the order of the shards.
pub type Revisions = Arc<[String]>;

/// The revisions that one pod serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The pod's name, as the `targetRef` of its endpoint has it.
    pub server: String,
    /// The served revisions by tenant. A tenant that is missing is not served.
    pub tenants: BTreeMap<String, Revisions>,
}

#[derive(Serialize)]
struct Written<'a> {
    server: &'a str,
    tenants: BTreeMap<&'a str, Shards<&'a str>>,
}

#[derive(Deserialize)]
struct Read {
    server: String,
    tenants: BTreeMap<String, Shards<String>>,
}

#[derive(Serialize, Deserialize)]
struct Shards<T> {
    shards: BTreeMap<usize, T>,
}

impl Announcement {
    /// Returns the announcement as JSON. Equal announcements give the same bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let tenants = self.tenants.iter().map(|(name, revisions)| {
            let shards = revisions.iter().map(String::as_str).enumerate().collect();
            (name.as_str(), Shards { shards })
        });
        let written = Written { server: &self.server, tenants: tenants.collect() };
        // Maps with text and number keys always can be written.
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads an announcement. Returns `None` if `payload` is none. A tenant whose shards are not numbered
    /// from 0 without a gap counts as not served.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let Read { server, tenants } = serde_json::from_slice(payload).ok()?;
        let tenants = tenants.into_iter().filter_map(|(name, Shards { shards })| {
            let is_whole = !shards.is_empty() && shards.keys().copied().eq(0..shards.len());
            is_whole.then(|| (name, shards.into_values().collect()))
        });
        Some(Self { server, tenants: tenants.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(revisions: &[&str]) -> Revisions {
        revisions.iter().map(|&revision| revision.to_owned()).collect()
    }

    #[test]
    fn an_announcement_is_read_as_it_is_documented() {
        let text = r#"{"server":"p-1","tenants":{"acme":{"shards":{"0":"a","1":"b"}},"empty":{"shards":{}},
            "torn":{"shards":{"1":"b"}}}}"#;
        let announced = Announcement::parse(text.as_bytes()).unwrap();
        assert_eq!(announced.server, "p-1");
        assert_eq!(announced.tenants, BTreeMap::from([("acme".to_owned(), revisions(&["a", "b"]))]));
        for broken in ["", "{}", "[]", r#"{"server":1,"tenants":{}}"#, r#"{"server":"p"}"#] {
            assert_eq!(Announcement::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn an_announcement_is_written_as_it_is_documented() {
        let tenants = [("acme", revisions(&["r1", "r2"])), ("other", revisions(&["r3"]))]
            .map(|(name, revisions)| (name.to_owned(), revisions));
        let announcement = Announcement { server: "pod \"1\"".to_owned(), tenants: tenants.into() };
        let json = announcement.to_json();
        assert_eq!(
            std::str::from_utf8(&json).unwrap(),
            concat!(
                r#"{"server":"pod \"1\"","tenants":{"acme":{"shards":{"0":"r1","1":"r2"}},"#,
                r#""other":{"shards":{"0":"r3"}}}}"#
            )
        );
        assert_eq!(Announcement::parse(&json), Some(announcement));
    }
}
