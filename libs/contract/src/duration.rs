//! Durations as people write them: `200ms`, `10s`, `1h30m`.
//!
//! This is the only parser of durations in the workspace. Callers narrow it: fields of manifests limit the
//! digits, query parameters and flags take one number with one unit ([`parse_single`]) within bounds.

use std::time::Duration;

/// The units, largest first, each with its milliseconds.
pub const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    /// The text is not made of whole numbers with units.
    #[error("not a duration")]
    Malformed,
    /// More milliseconds than 64 bits can hold.
    #[error("the duration is too long")]
    TooLong,
}

/// Parses whole hours, minutes, seconds and milliseconds in this order, each at most once.
///
/// # Errors
/// [`ParseDurationError`] if the text is empty or anything else, or if the sum exceeds 64 bits of
/// milliseconds.
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut milliseconds = 0_u64;
    loop {
        let (digits, unit, after) = split_number(rest)?;
        let (_, size) =
            units.by_ref().find(|(name, _)| *name == unit).ok_or(ParseDurationError::Malformed)?;
        milliseconds = milliseconds.checked_add(scale(digits, *size)?).ok_or(ParseDurationError::TooLong)?;
        rest = after;
        if rest.is_empty() {
            return Ok(Duration::from_millis(milliseconds));
        }
    }
}

/// Parses one whole number with one unit: `500ms`, `2s`, `90m`, `1h`.
///
/// # Errors
/// [`ParseDurationError`] if the text is anything else, or exceeds 64 bits of milliseconds.
pub fn parse_single(text: &str) -> Result<Duration, ParseDurationError> {
    let (_, unit, rest) = split_number(text)?;
    if rest.is_empty() && UNITS.iter().any(|(name, _)| *name == unit) {
        return parse(text);
    }
    Err(ParseDurationError::Malformed)
}

/// Returns the digits at the beginning, the letters behind them, and the rest.
fn split_number(text: &str) -> Result<(&str, &str, &str), ParseDurationError> {
    let (digits, rest) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (unit, rest) = rest.split_at(rest.bytes().take_while(u8::is_ascii_alphabetic).count());
    if digits.is_empty() { Err(ParseDurationError::Malformed) } else { Ok((digits, unit, rest)) }
}

fn scale(digits: &str, size: u64) -> Result<u64, ParseDurationError> {
    let number = digits.parse::<u64>().ok();
    number.and_then(|number| number.checked_mul(size)).ok_or(ParseDurationError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_in_falling_size_each_at_most_once() {
        for (text, milliseconds) in [
            ("200ms", 200),
            ("90m", 5_400_000),
            ("1h2m3s4ms", 3_723_004),
            ("0s", 0),
            ("0000000001h", 3_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "10", "s", "10 s", "-5s", "1.5s", "1d", "1s1m", "1s1s", "10S", "１s", "5µs", "1s "]
        {
            assert_eq!(parse(bad), Err(ParseDurationError::Malformed), "{bad:?}");
        }
        for long in ["18446744073709551616ms", "18446744073709551615h", "18446744073709551s616ms"] {
            assert_eq!(parse(long), Err(ParseDurationError::TooLong), "{long}");
        }
    }

    #[test]
    fn a_single_unit_is_all_that_parse_single_accepts() {
        assert_eq!(parse_single("90m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_single("18446744073709551615ms"), Ok(Duration::from_millis(u64::MAX)));
        assert_eq!(parse_single("99999999999999999999h"), Err(ParseDurationError::TooLong));
        for bad in ["", "5", "ms", "1h30m", "1m0s", "99999999999999999999h1s", "+1s", "٣s", "1 s"] {
            assert_eq!(parse_single(bad), Err(ParseDurationError::Malformed), "{bad:?}");
        }
    }
}
