//! Durations as people write them: `500ms`, `2s`, `1m`.

use std::time::Duration;

/// The longest duration that is taken.
pub(crate) const MAX: Duration = Duration::from_secs(60 * 60);

/// Reads a whole number and a unit (`ms`, `s`, `m`, `h`), more than nothing and at most [`MAX`].
///
/// # Errors
/// What is wrong and what would be right, to be put behind the parameter's name.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let shown: String = text.chars().take(64).collect();
    let malformed = || format!("{shown:?} is not a duration; write 500ms, 2s or 1m");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(malformed()),
    };
    if number.is_empty() {
        return Err(malformed());
    }
    // A number that doesn't fit is only too large.
    let millis = number.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(millis_per_unit);
    let duration = Duration::from_millis(millis);
    if duration.is_zero() || duration > MAX {
        return Err(format!("{shown:?} is out of bounds; write more than 0ms and at most 1h"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, millis) in [("500ms", 500), ("1ms", 1), ("2s", 2_000), ("1m", 60_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "ms", "5 parsecs", "-1s", "+1s", "1.5s", "1S", "1s ", "٣s", "1d"] {
            assert_eq!(parse(bad), Err(format!("{bad:?} is not a duration; write 500ms, 2s or 1m")));
        }
        for bad in ["0s", "0ms", "61m", "2h", "99999999999999999999999ms"] {
            assert!(parse(bad).unwrap_err().contains("at most 1h"), "{bad}");
        }
    }
}
