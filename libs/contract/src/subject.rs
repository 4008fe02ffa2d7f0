//! The subjects, topics and stream names of NATS and MQTT that belong to a tenant, a device or a channel.

use crate::enrollment::Token;
use crate::name::{ChannelName, IotId, SourceName, TenantName};

/// The first token of every subject on which a device's messages are stored.
pub const STORED: &str = "iot";
/// The first token of every subject on which stored messages are republished.
pub const LIVE: &str = "live";

/// The name of the tenant's stream.
#[must_use]
pub fn stream(tenant: &TenantName) -> String {
    format!("IOT_{tenant}")
}

/// The name of the stream that captures what a source of the tenant publishes.
#[must_use]
pub fn source_stream(tenant: &TenantName, source: &SourceName) -> String {
    // A tenant and a source may both contain '-', never '_': so no two pairs share a name.
    format!("SRC_{tenant}_{source}")
}

/// Every stored subject of the tenant, as a wildcard.
#[must_use]
pub fn stored_all(tenant: &TenantName) -> String {
    format!("{STORED}.{tenant}.>")
}

/// Every live subject of the tenant, as a wildcard.
#[must_use]
pub fn live_all(tenant: &TenantName) -> String {
    format!("{LIVE}.{tenant}.>")
}

/// Where a device's messages of one channel are stored: what the device publishes to.
#[must_use]
pub fn stored(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{STORED}.{tenant}.{iot_id}.{channel}")
}

/// Where the data plane hears a device's messages of one channel.
#[must_use]
pub fn live(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{LIVE}.{tenant}.{iot_id}.{channel}")
}

/// The MQTT topic that nats-server maps to [`stored`].
#[must_use]
pub fn mqtt_topic(tenant: &TenantName, iot_id: &IotId, channel: &ChannelName) -> String {
    format!("{STORED}/{tenant}/{iot_id}/{channel}")
}

/// Where the devices of a tenant ask for their topics; in MQTT the same with `/`.
#[must_use]
pub fn enroll(tenant: &TenantName) -> String {
    format!("flutecast.{tenant}.enroll")
}

/// Where somebody without a reply subject hears the answer; in MQTT the same with `/`.
#[must_use]
pub fn enrolled(tenant: &TenantName, token: &Token) -> String {
    format!("flutecast.{tenant}.enrolled.{token}")
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
        assert_eq!(stored_all(&tenant), "iot.acme.>");
        assert_eq!(live_all(&tenant), "live.acme.>");
        assert_eq!(stored(&tenant, &id, &channel), "iot.acme.k3v5.power");
        assert_eq!(live(&tenant, &id, &channel), "live.acme.k3v5.power");
        assert_eq!(enroll(&tenant), "flutecast.acme.enroll");
        assert_eq!(enrolled(&tenant, &Token::of("A.1").unwrap()), "flutecast.acme.enrolled.A=2E1");
        assert_eq!(mqtt_topic(&tenant, &id, &channel), "iot/acme/k3v5/power");
    }
}
