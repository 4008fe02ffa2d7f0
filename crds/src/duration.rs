//! Durations in manifests: `200ms`, `10s`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use flutecast_contract::duration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The pattern of a duration. Six digits for each unit keep every sum far below the 292 years that CEL can
/// hold.
pub const PATTERN: &str = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?([0-9]{1,6}ms)?$";

/// The most digits of a number before a unit, as in [`PATTERN`].
const MAX_DIGITS: usize = 6;

/// A duration in whole milliseconds, written as in Go: hours, minutes, seconds and milliseconds, in this
/// order and each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration {
    milliseconds: u64,
}

/// The error for a string that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is not a duration; write whole hours, minutes, seconds and milliseconds in this order, \
     such as 200ms, 10s or 1h30m"
)]
pub struct InvalidDuration {
    value: String,
}

impl Duration {
    /// Returns the duration of `milliseconds`.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self { milliseconds }
    }

    /// Returns the duration of `seconds`.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self { milliseconds: seconds.saturating_mul(1_000) }
    }

    /// Returns the duration in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.milliseconds
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        Self::from_millis(duration.milliseconds)
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(value: &str) -> Result<Self, InvalidDuration> {
        let short = value.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= MAX_DIGITS);
        let parsed = duration::parse(value).ok().filter(|_| short);
        let milliseconds = parsed.and_then(|duration| u64::try_from(duration.as_millis()).ok());
        let invalid = || InvalidDuration { value: value.chars().take(64).collect() };
        milliseconds.map(Self::from_millis).ok_or_else(invalid)
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milliseconds == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.milliseconds;
        for (unit, size) in duration::UNITS {
            let number = rest / size;
            rest %= size;
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = String::deserialize(deserializer)?;
        value.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "minLength": 2, "maxLength": 31 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_written_canonically() {
        for (text, milliseconds, canonical) in [
            ("200ms", 200, "200ms"),
            ("10s", 10_000, "10s"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1h2m3s4ms", 3_723_004, "1h2m3s4ms"),
            ("5m", 300_000, "5m"),
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("999999h999999m999999s999999ms", 3_660_997_338_999, "1016943h42m18s999ms"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(
                (duration.as_millis(), duration.to_string().as_str()),
                (milliseconds, canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_show_the_accepted_form() {
        for bad in
            ["", "10", "s", "10 s", "-5s", "1.5s", "1d", "1s1m", "1s1s", "1000000s", "10S", "１s", "5µs"]
        {
            let error = bad.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains("200ms, 10s or 1h30m") && error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn durations_are_strings_in_yaml() {
        assert_eq!(serde_yaml::from_str::<Duration>("1h30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(serde_json::to_value(Duration::from_secs(5400)).unwrap(), "1h30m");
        assert!(serde_yaml::from_str::<Duration>("10").is_err());
    }
}
