//! The subjects, topics and stream names of NATS and MQTT that belong to a tenant, a device or a channel.

use crate::enrollment::ReplyToken;
use crate::name::{ChannelName, IotId, SourceName, TenantName};

/// The first token of every subject on which a device's messages are stored.
pub const STORED: &str = "iot";
/// The first token of every subject on which stored messages are republished.
const LIVE: &str = "live";

/// The first token of every subject on which the last values of channels are kept.
const KEPT: &str = "last";

/// What the names of the tenants' streams begin with, those of their sources, and those of kept last values.
const STREAM: &str = "IOT_";
const SOURCE_STREAM: &str = "SRC_";
const KEPT_STREAM: &str = "LAST_";

/// Returns the name of the tenant's stream, `IOT_<tenant>`.
#[must_use]
pub fn stream(tenant: &TenantName) -> String {
    format!("{STREAM}{tenant}")
}

/// Returns the beginning of the names of all streams that capture sources of the tenant.
#[must_use]
pub fn source_stream_prefix(tenant: &TenantName) -> String {
    format!("{SOURCE_STREAM}{tenant}_")
}

/// Returns the name of the stream that keeps the last values of the tenant's channels, `LAST_<tenant>`.
#[must_use]
pub fn kept_stream(tenant: &TenantName) -> String {
    format!("{KEPT_STREAM}{tenant}")
}

/// Returns `true` if a stream has a name that [`stream`], [`source_stream`] or [`kept_stream`] gives to some
/// tenant.
#[must_use]
pub fn is_tenant_stream(name: &str) -> bool {
    [STREAM, SOURCE_STREAM, KEPT_STREAM].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns `true` if a stream has a name that [`source_stream`] gives to a source of some tenant.
#[must_use]
pub fn is_source_stream(name: &str) -> bool {
    name.starts_with(SOURCE_STREAM)
}

/// Returns the name of the stream that captures the messages of a source, `SRC_<tenant>_<source>`.
#[must_use]
pub fn source_stream(tenant: &TenantName, source: &SourceName) -> String {
    // Neither name can contain '_', so no two pairs share a stream.
    format!("{}{source}", source_stream_prefix(tenant))
}

/// Returns the wildcard of all stored subjects of the tenant.
#[must_use]
pub fn stored_all(tenant: &TenantName) -> String {
    format!("{STORED}.{tenant}.>")
}

/// Returns the wildcard of all live subjects of the tenant.
#[must_use]
pub fn live_all(tenant: &TenantName) -> String {
    format!("{LIVE}.{tenant}.>")
}

/// Returns the subject on which the messages of a channel are stored, and to which the device publishes.
#[must_use]
pub fn stored(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{STORED}.{tenant}.{iot_id}.{channel}")
}

/// Returns the subject on which the stored messages of a channel are republished to the data plane.
#[must_use]
pub fn live(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{LIVE}.{tenant}.{iot_id}.{channel}")
}

/// Returns the wildcard of all subjects on which last values of the tenant are kept.
#[must_use]
pub fn kept_all(tenant: &TenantName) -> String {
    format!("{KEPT}.{tenant}.>")
}

/// Returns the wildcard of the subjects on which the last values of a device are kept.
#[must_use]
pub fn kept_of_device(tenant: &TenantName, iot_id: &IotId) -> String {
    format!("{KEPT}.{tenant}.{iot_id}.>")
}

/// Returns the subject on which the last value of a channel is kept, in [`kept_stream`].
#[must_use]
pub fn kept(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{KEPT}.{tenant}.{iot_id}.{channel}")
}

/// Returns the device and the channel whose last value is kept on a subject; `None` if [`kept`] gives it to
/// none of the tenant.
#[must_use]
pub fn parse_kept(tenant: &TenantName, subject: &str) -> Option<(IotId, ChannelName)> {
    let all = kept_all(tenant);
    let (iot_id, channel) = subject.strip_prefix(all.strip_suffix('>')?)?.split_once('.')?;
    Some((IotId::new(iot_id).ok()?, ChannelName::new(channel).ok()?))
}

/// Returns whether last values are kept on this subject. No device may publish on it.
#[must_use]
pub fn is_kept(subject: &str) -> bool {
    subject.strip_prefix(KEPT).is_some_and(|rest| rest.starts_with('.'))
}

/// Returns the subject on which the last value of the channel is kept whose messages are stored on this one.
#[must_use]
pub fn kept_of(stored: &str) -> String {
    let channel = stored.strip_prefix(STORED).unwrap_or(stored);
    format!("{KEPT}{channel}")
}

/// Returns the MQTT topic that nats-server maps to [`stored`].
#[must_use]
pub fn mqtt_topic(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{STORED}/{tenant}/{iot_id}/{channel}")
}

/// Returns the subject on which the devices of a tenant ask for their topics; the MQTT topic has `/`.
#[must_use]
pub fn enroll(tenant: &TenantName) -> String {
    format!("flutecast.{tenant}.enroll")
}

/// Returns the subject of a reply to a request without a reply subject; the MQTT topic has `/`.
#[must_use]
pub fn enrolled(tenant: &TenantName, token: &ReplyToken) -> String {
    format!("flutecast.{tenant}.enrolled.{token}")
}

/// The last token of [`serving_query`].
const QUERY: &str = "query";

/// Returns a name as one token of a subject: each character that is neither an ASCII letter or digit nor `-`
/// nor `_` becomes `_`, and an empty name becomes `_`.
#[must_use]
pub fn token(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let token: String = name.chars().map(safe).collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

/// Returns the subject on which a pod of a release announces what it serves. It is never [`serving_query`]: a
/// pod named `query` announces on `query_`. The permissions of NATS bind a pod to its own subject.
#[must_use]
pub fn serving(release: &str, server: &str) -> String {
    let (release, mut server) = (token(release), token(server));
    if server == QUERY {
        server.push('_');
    }
    format!("flutecast.serving.{release}.{server}")
}

/// Returns the subject on which the pods of a release are asked to announce at once.
#[must_use]
pub fn serving_query(release: &str) -> String {
    format!("flutecast.serving.{}.{QUERY}", token(release))
}

/// Returns the wildcard of all announcements of a release, which [`serving_query`] matches too.
#[must_use]
pub fn serving_all(release: &str) -> String {
    format!("flutecast.serving.{}.*", token(release))
}

/// Returns the subject on which a pod of a release reports its load.
#[must_use]
pub fn load(release: &str, server: &str) -> String {
    format!("flutecast.load.{}.{}", token(release), token(server))
}

/// Returns the wildcard of the load reports of all pods of a release.
#[must_use]
pub fn load_all(release: &str) -> String {
    format!("flutecast.load.{}.*", token(release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_as_documented() {
        let tenant = TenantName::new("acme").unwrap();
        let id = IotId::new("k3v5").unwrap();
        let channel = ChannelName::new("power").unwrap();
        assert_eq!(stream(&tenant), "IOT_acme");
        assert_eq!(source_stream(&tenant, &SourceName::new("gw-line1").unwrap()), "SRC_acme_gw-line1");
        assert_eq!(source_stream_prefix(&tenant), "SRC_acme_");
        assert_eq!(kept_stream(&tenant), "LAST_acme");
        for ours in ["IOT_acme", "SRC_acme_gw", "LAST_acme"] {
            assert!(is_tenant_stream(ours), "{ours}");
        }
        assert!(!is_tenant_stream("KV_acme"));
        assert_eq!(stored_all(&tenant), "iot.acme.>");
        assert_eq!(live_all(&tenant), "live.acme.>");
        assert_eq!(stored(&tenant, &id, &channel), "iot.acme.k3v5.power");
        assert_eq!(live(&tenant, &id, &channel), "live.acme.k3v5.power");
        assert_eq!(kept_all(&tenant), "last.acme.>");
        assert_eq!(kept_of_device(&tenant, &id), "last.acme.k3v5.>");
        assert_eq!(kept(&tenant, &id, &channel), "last.acme.k3v5.power");
        assert_eq!(kept_of(&stored(&tenant, &id, &channel)), kept(&tenant, &id, &channel));
        assert_eq!(parse_kept(&tenant, &kept(&tenant, &id, &channel)), Some((id.clone(), channel.clone())));
        for other in ["last.other.k3v5.power", "iot.acme.k3v5.power", "last.acme.k3v5", "last.acme.k3v5.a.b"]
        {
            assert_eq!(parse_kept(&tenant, other), None, "{other}");
        }
        assert_eq!(enroll(&tenant), "flutecast.acme.enroll");
        assert_eq!(enrolled(&tenant, &ReplyToken::encode("A.1").unwrap()), "flutecast.acme.enrolled.A=2E1");
        assert_eq!(mqtt_topic(&tenant, &id, &channel), "iot/acme/k3v5/power");
    }

    #[test]
    fn names_become_one_token() {
        assert_eq!(
            serving("my.release", "pod-1.example *>"),
            "flutecast.serving.my_release.pod-1_example___"
        );
        assert_eq!(serving_query("my.release"), "flutecast.serving.my_release.query");
        assert_eq!(serving_all("my.release"), "flutecast.serving.my_release.*");
        assert_eq!(serving("", "query"), "flutecast.serving._.query_");
        assert_eq!(load("plant.1", "pod-1"), "flutecast.load.plant_1.pod-1");
        assert_eq!(load_all("plant.1"), "flutecast.load.plant_1.*");
    }
}
