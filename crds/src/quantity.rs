//! Quantities of bytes in manifests: `512Mi`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The pattern of a quantity: the form of Kubernetes without fractions and exponents.
pub const PATTERN: &str = "^[1-9][0-9]{0,11}(Ki|Mi|Gi|Ti|k|M|G|T)?$";

/// The suffixes with their factors, in the order in which they are tried for writing.
const SUFFIXES: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// The most digits before the suffix, as in [`PATTERN`].
const MAX_DIGITS: usize = 12;

/// A number of bytes, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    bytes: u64,
}

/// The error for a string that is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is not a quantity; write a whole number of bytes with Ki, Mi, Gi or Ti (or k, M, G, T), \
     such as 512Mi or 2Gi"
)]
pub struct InvalidQuantity {
    value: String,
}

impl Quantity {
    /// Returns the number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(value: &str) -> Result<Self, InvalidQuantity> {
        parse(value).ok_or_else(|| InvalidQuantity { value: value.chars().take(64).collect() })
    }
}

fn parse(value: &str) -> Option<Quantity> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = value.split_at(digits);
    if !(1..=MAX_DIGITS).contains(&digits) || number.starts_with('0') {
        return None;
    }
    let factor = match suffix {
        "" => 1,
        _ => SUFFIXES.iter().find(|(name, _)| *name == suffix)?.1,
    };
    let bytes = number.parse::<u64>().ok()?.checked_mul(factor)?;
    // NATS counts bytes in a signed 64-bit number.
    (bytes <= i64::MAX as u64).then_some(Quantity { bytes })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SUFFIXES.iter().find(|(_, factor)| self.bytes.is_multiple_of(*factor)) {
            Some((suffix, factor)) => write!(f, "{}{suffix}", self.bytes / factor),
            None => write!(f, "{}", self.bytes),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        value.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": 14 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_parsed_and_written_canonically() {
        for (text, bytes, canonical) in [
            ("512Mi", 512 << 20, "512Mi"),
            ("1024Mi", 1 << 30, "1Gi"),
            ("2Ti", 2 << 40, "2Ti"),
            ("5G", 5_000_000_000, "5G"),
            ("1000", 1_000, "1k"),
            ("1001", 1_001, "1001"),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.bytes(), quantity.to_string().as_str()), (bytes, canonical), "{text}");
            assert_eq!(canonical.parse::<Quantity>().unwrap(), quantity);
        }
    }

    #[test]
    fn errors_show_the_accepted_form() {
        for bad in [
            "",
            "Mi",
            "0",
            "012Mi",
            "-1",
            "1.5Gi",
            "512MB",
            "512 Mi",
            "1e9",
            "9999999999999",
            "999999999999Ti",
        ] {
            let error = bad.parse::<Quantity>().unwrap_err().to_string();
            assert!(error.contains("such as 512Mi or 2Gi"), "{error}");
        }
    }
}
