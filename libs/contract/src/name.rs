//! A type for each kind of name, so that one can't be passed for another.
//!
//! A name is validated where it is parsed, from a string or from a document, and valid from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The error for a string that is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid; it needs {expected}")]
pub struct InvalidName {
    /// The kind of name, in words.
    pub kind: &'static str,
    /// The invalid string, cut to 128 characters.
    pub value: String,
    /// The accepted form, in words.
    pub expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Validates `value`.
            ///
            /// # Errors
            /// [`InvalidName`] with the accepted form.
            pub fn new(value: &str) -> Result<Self, InvalidName> {
                let valid: fn(&str) -> bool = $valid;
                if valid(value) {
                    Ok(Self(value.into()))
                } else {
                    let value = value.chars().take(128).collect();
                    Err(InvalidName { kind: $kind, value, expected: $expected })
                }
            }

            /// Returns the name as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(value: &str) -> Result<Self, InvalidName> {
                Self::new(value)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({:?})"), &*self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = String::deserialize(deserializer)?;
                Self::new(&value).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a Tenant object, a DNS label.
    TenantName,
    "tenant name",
    "1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends (acme, plant-2)",
    is_dns_label
);

name!(
    /// The name that people in the plant use for a device (`CORR-01`); unique within its tenant.
    DeviceCode,
    "device code",
    "1 to 64 letters, digits, '.', '_', ':', '/' and '-', with a letter or digit first (CORR-01)",
    |value| {
        (1..=64).contains(&value.len())
            && value.as_bytes()[0].is_ascii_alphanumeric()
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
    }
);

name!(
    /// The id of a device in subjects and topics; one token of a NATS subject.
    IotId,
    "iotId",
    "1 to 64 letters, digits, '_' and '-' (it becomes one token of a subject)",
    |value| {
        (1..=64).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    }
);

name!(
    /// One kind of a device's parameters (`telemetry`, `power`); one token of a NATS subject.
    ChannelName,
    "channel name",
    "1 to 32 lower-case letters, digits and '-', with a letter first (telemetry)",
    |value| {
        (1..=32).contains(&value.len())
            && value.as_bytes()[0].is_ascii_lowercase()
            && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
);

name!(
    /// The name of a source within its tenant, a DNS label.
    SourceName,
    "source name",
    "1 to 63 lower-case letters, digits and '-', with a letter or digit at both ends (gw-line1)",
    is_dns_label
);

name!(
    /// The name of a PushFormat object.
    FormatName,
    "format name",
    "1 to 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part \
     (on-off)",
    |value| value.len() <= 253 && value.split('.').all(is_dns_label)
);

fn is_dns_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => {
            bytes.len() <= 63 && inner(first) && inner(last) && bytes.iter().all(|&b| inner(b) || b == b'-')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_are_accepted() {
        for good in ["a", "acme", "plant-2", "0"] {
            assert!(TenantName::new(good).is_ok(), "{good}");
        }
        for good in ["CORR-01", "1", "a.b_c:d/e"] {
            assert!(DeviceCode::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn errors_of_invalid_names_show_the_accepted_form() {
        for bad in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            let error = TenantName::new(bad).unwrap_err();
            assert!(error.to_string().contains("lower-case letters"), "{error}");
        }
        for bad in ["", "-a", "a b", "a*", "a>", "ä", &"a".repeat(65)] {
            assert!(DeviceCode::new(bad).is_err(), "{bad}");
        }
        for bad in ["", "a.b", "*", ">", "a b", "\u{0}"] {
            assert!(IotId::new(bad).is_err() && ChannelName::new(bad).is_err(), "{bad}");
        }
    }
}
