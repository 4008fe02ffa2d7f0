//! What a device is told.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_contract::subject;
use prometheus_client::encoding::EncodeLabelValue;
use serde::Serialize;

/// Why a device isn't told its topics. A closed set: it is documented, and devices branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, EncodeLabelValue)]
pub enum Reason {
    /// The request can't be understood.
    InvalidRequest,
    /// The code can't be one.
    InvalidCode,
    /// No Device has the code, and none is created.
    UnknownDevice,
    /// No Device has the code, and it isn't one for which a Device is created.
    CodeNotAllowed,
    /// A Device should be created, and its name is that of another one.
    NameTaken,
    /// The Device exists, and is refused, or waits for something.
    NotReady,
    /// The Device was created a moment ago, and isn't in force yet.
    Pending,
    /// The tenant has no room for more devices.
    QuotaExceeded,
    /// The tenant's devices ask too often.
    RateLimited,
    /// A Device should be created, and can't be.
    Unavailable,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::InvalidRequest,
        Self::InvalidCode,
        Self::UnknownDevice,
        Self::CodeNotAllowed,
        Self::NameTaken,
        Self::NotReady,
        Self::Pending,
        Self::QuotaExceeded,
        Self::RateLimited,
        Self::Unavailable,
    ];

    /// After how long the same request may have another answer; none: when somebody has changed something.
    #[must_use]
    pub fn retry_after(self) -> Option<Duration> {
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

/// Why a device isn't told its topics, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a device is told when all is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Topics {
    tenant: TenantName,
    device_code: DeviceCode,
    iot_id: IotId,
    subjects: BTreeMap<ChannelName, String>,
    mqtt_topics: BTreeMap<ChannelName, String>,
}

impl Topics {
    /// The topics of a device.
    #[must_use]
    pub fn new(tenant: &TenantName, code: &DeviceCode, iot_id: &IotId, channels: &[ChannelName]) -> Self {
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

/// One answer.
pub type Answer = Result<Topics, Refusal>;

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

/// An answer as JSON. `jitter` spreads the retries of many devices that were refused together.
#[must_use]
pub fn json(
    tenant: &TenantName,
    code: Option<&DeviceCode>,
    answer: &Answer,
    jitter: fn(Duration) -> Duration,
) -> Vec<u8> {
    let json = match answer {
        Ok(topics) => serde_json::to_vec(topics),
        Err(Refusal { reason, message }) => {
            let retry_after_ms = reason.retry_after().map(|wait| (wait + jitter(wait)).as_millis());
            let error = ErrorText { reason: *reason, message, retry_after_ms };
            serde_json::to_vec(&Error { tenant, device_code: code, error })
        }
    };
    // Strings and numbers can always be written.
    json.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_as_documented() {
        let tenant = TenantName::new("acme").unwrap();
        let code = DeviceCode::new("CORR-01").unwrap();
        let channels = ["telemetry", "power"].map(|name| ChannelName::new(name).unwrap());
        let topics = Topics::new(&tenant, &code, &IotId::new("k3v5").unwrap(), &channels);
        let text = |answer: &Answer| {
            String::from_utf8(json(&tenant, Some(&code), answer, |_| Duration::ZERO)).unwrap()
        };
        assert_eq!(
            text(&Ok(topics)),
            r#"{"tenant":"acme","deviceCode":"CORR-01","iotId":"k3v5","subjects":{"power":"iot.acme.k3v5.power","telemetry":"iot.acme.k3v5.telemetry"},"mqttTopics":{"power":"iot/acme/k3v5/power","telemetry":"iot/acme/k3v5/telemetry"}}"#
        );
        assert_eq!(
            text(&Err(Refusal::new(Reason::Pending, "soon"))),
            r#"{"tenant":"acme","deviceCode":"CORR-01","error":{"reason":"Pending","message":"soon","retryAfterMs":1000}}"#
        );
    }

    #[test]
    fn each_reason_is_documented() {
        let page = include_str!("../../../docs/enrollment.md");
        for reason in Reason::ALL {
            assert!(page.contains(&format!("\n| `{reason:?}` |")), "{reason:?} is not in docs/enrollment.md");
        }
    }
}
