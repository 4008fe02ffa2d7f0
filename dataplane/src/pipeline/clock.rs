//! The current time, and how clients read a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flutecast_format::program::Timestamp;
use tokio::time::Instant;

/// The current time by both clocks: the monotonic one for timers, the wall clock of the broker to compare
/// with the times of messages. State gets it as an argument and never reads a clock itself.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub instant: Instant,
    pub wall: Timestamp,
}

impl Now {
    /// Returns the time by the clocks of this pod alone.
    pub fn of_pod() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        Self { instant: Instant::now(), wall }
    }

    /// Returns how long ago `time` was; zero if it is ahead of the wall clock.
    pub fn since(self, time: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.wall.0.saturating_sub(time.0)).unwrap_or(0))
    }
}

/// Appends `time` as RFC 3339 in UTC with milliseconds, such as `2026-11-22T10:00:00.123Z`. Years outside 0
/// to 9999, which RFC 3339 can't write, become the nearest time that it can.
pub(super) fn write_rfc3339(time: Timestamp, out: &mut Vec<u8>) {
    // Without what is finer, three decimals are written.
    let millis = time.clamp(Timestamp::MIN, Timestamp::MAX).as_millis();
    Timestamp(millis * 1_000).to_rfc3339(out);
}

/// Returns `time` as JSON.
pub fn json_time(time: Option<Timestamp>) -> String {
    time.map_or("null".to_owned(), |time| format!("\"{}\"", rfc3339(time)))
}

/// Returns `time` as [`write_rfc3339`] writes it.
pub fn rfc3339(time: Timestamp) -> String {
    let mut out = Vec::with_capacity(24);
    write_rfc3339(time, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(micros: i64) -> String {
        let mut out = Vec::new();
        write_rfc3339(Timestamp(micros), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(written(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(1_795_341_600_123_999), "2026-11-22T10:00:00.123Z");
        assert_eq!(written(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(written(951_782_400_000_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(written(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(written(i64::MIN), "0000-01-01T00:00:00.000Z");
    }

    proptest::proptest! {
        #[test]
        fn times_are_parsed_by_an_independent_library(
            micros in -62_000_000_000_000_000_i64..250_000_000_000_000_000
        ) {
            let read: jiff::Timestamp = written(micros).parse().unwrap();
            proptest::prop_assert_eq!(read.as_millisecond(), micros.div_euclid(1_000));
        }
    }
}
