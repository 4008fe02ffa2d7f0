//! Durations in flags and requests: `500ms`, `2s`, `1m`.

use std::time::Duration;

use flutecast_contract::duration::{self, ParseDurationError};

const MAX: Duration = Duration::from_secs(60 * 60);

/// Parses a whole number and a unit (`ms`, `s`, `m`, `h`), more than zero and at most [`MAX`]. The error
/// message is to follow the parameter's name.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let shown: String = text.chars().take(64).collect();
    let duration = match duration::parse_single(text) {
        Ok(duration) => duration,
        Err(ParseDurationError::Malformed) => {
            return Err(format!("{shown:?} is not a duration; write 500ms, 2s or 1m"));
        }
        Err(ParseDurationError::TooLong) => Duration::MAX,
    };
    if duration.is_zero() || duration > MAX {
        return Err(format!("{shown:?} is out of bounds; write more than 0ms and at most 1h"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
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
