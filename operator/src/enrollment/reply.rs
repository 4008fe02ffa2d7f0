//! Replies to devices.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_contract::subject;
use serde::Serialize;

use crate::metrics::closed_set;

closed_set! {
    /// Why a device doesn't get its topics. A closed set: it is documented, and devices branch on it.
    #[derive(PartialOrd, Ord, Serialize)]
    pub(super) enum Reason {
        InvalidRequest,
        InvalidCode,
        /// No Device has the code, and none is created for it.
        UnknownDevice,
        /// No Device has the code, and the code is not among those for which a Device is created.
        CodeNotAllowed,
        /// The name of the Device to be created is taken.
        NameTaken,
        /// The Device is refused, or waits for another object.
        NotReady,
        /// The Device exists, and is about to be in the mapping.
        Pending,
        QuotaExceeded,
        RateLimited,
        /// A Device can't be created at the moment.
        Unavailable,
    }
}

impl Reason {
    /// Returns the time after which the same request may have another reply; `None` if it never has.
    pub(super) fn retry_after(self) -> Option<Duration> {
        match self {
            Self::InvalidRequest | Self::InvalidCode => None,
            Self::Pending => Some(Duration::from_secs(1)),
            Self::RateLimited => Some(Duration::from_secs(2)),
            Self::NotReady => Some(Duration::from_secs(10)),
            Self::Unavailable => Some(Duration::from_secs(30)),
            Self::UnknownDevice | Self::CodeNotAllowed | Self::NameTaken | Self::QuotaExceeded => {
                Some(Duration::from_secs(60))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// The error, with what would be right.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Topics {
    tenant: TenantName,
    device_code: DeviceCode,
    iot_id: IotId,
    subjects: BTreeMap<ChannelName, String>,
    mqtt_topics: BTreeMap<ChannelName, String>,
}

impl Topics {
    pub(super) fn new(
        tenant: &TenantName,
        code: &DeviceCode,
        iot_id: &IotId,
        channels: &[ChannelName],
    ) -> Self {
        let each = |name: fn(&TenantName, &IotId, &ChannelName) -> String| {
            channels.iter().map(|channel| (channel.clone(), name(tenant, iot_id, channel))).collect()
        };
        Self {
            tenant: tenant.clone(),
            device_code: code.clone(),
            iot_id: iot_id.clone(),
            subjects: each(subject::stored),
            mqtt_topics: each(subject::mqtt_topic),
        }
    }
}

pub(super) type Reply = Result<Topics, Refusal>;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Error<'a> {
    tenant: &'a TenantName,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_code: Option<&'a DeviceCode>,
    error: ErrorText<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorText<'a> {
    reason: Reason,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u128>,
}

/// Encodes a reply as JSON. `jitter` spreads the retries of many devices that were refused together.
pub(super) fn encode(
    tenant: &TenantName,
    code: Option<&DeviceCode>,
    reply: &Reply,
    jitter: fn(Duration) -> Duration,
) -> Vec<u8> {
    let json = match reply {
        Ok(topics) => serde_json::to_vec(topics),
        Err(Refusal { reason, message }) => {
            let retry_after_ms = reason.retry_after().map(|wait| (wait + jitter(wait)).as_millis());
            let error = ErrorText { reason: *reason, message, retry_after_ms };
            serde_json::to_vec(&Error { tenant, device_code: code, error })
        }
    };
    // Strings and numbers can always be encoded.
    json.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ClosedSet;

    #[test]
    fn replies_are_as_documented() {
        let tenant = TenantName::new("acme").unwrap();
        let code = DeviceCode::new("CORR-01").unwrap();
        let channels = ["telemetry", "power"].map(|name| ChannelName::new(name).unwrap());
        let topics = Topics::new(&tenant, &code, &IotId::new("k3v5").unwrap(), &channels);
        let text = |reply: &Reply| {
            String::from_utf8(encode(&tenant, Some(&code), reply, |_| Duration::ZERO)).unwrap()
        };
        assert_eq!(
            text(&Ok(topics)),
            concat!(
                r#"{"tenant":"acme","deviceCode":"CORR-01","iotId":"k3v5","#,
                r#""subjects":{"power":"iot.acme.k3v5.power","telemetry":"iot.acme.k3v5.telemetry"},"#,
                r#""mqttTopics":{"power":"iot/acme/k3v5/power","telemetry":"iot/acme/k3v5/telemetry"}}"#
            )
        );
        assert_eq!(
            text(&Err(Refusal::new(Reason::Pending, "soon"))),
            concat!(
                r#"{"tenant":"acme","deviceCode":"CORR-01","#,
                r#""error":{"reason":"Pending","message":"soon","retryAfterMs":1000}}"#
            )
        );
    }

    #[test]
    fn each_reason_is_documented() {
        let page = include_str!("../../../docs/enrollment.md");
        for &reason in Reason::ALL {
            assert!(page.contains(&format!("\n| `{reason:?}` |")), "{reason:?} is not in docs/enrollment.md");
        }
    }
}
