//! Parses durations on the command line.

use std::time::Duration;

use flutecast_contract::duration;

/// Parses a duration such as `500ms`, `30s`, `5m` or `1h`.
///
/// # Errors
/// Returns an error with the valid form if the text is not a duration.
pub fn parse(text: &str) -> Result<Duration, String> {
    duration::parse_single(text)
        .map_err(|_| format!("{text:?} is not a duration; write 500ms, 30s, 5m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        for bad in
            ["", "30", "s", "1.5s", "-1s", "3 s", "5d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse(bad).is_err_and(|error| error.contains("write 500ms")), "{bad}");
        }
    }
}
