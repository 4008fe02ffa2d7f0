//! Times: our own clocks, and how clients read a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flutecast_mapping::program::Timestamp;
use tokio::time::Instant;

/// Now, by both clocks: the monotonic one for timers, the wall clock for what messages say. State is handed
/// it and never asks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock.
    pub wall: Timestamp,
}

impl Moment {
    /// What our clocks say.
    #[must_use]
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall: wall_clock() }
    }

    /// How long ago `time` was; zero if it is ahead of our clock.
    #[must_use]
    pub fn since(self, time: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.wall.0.saturating_sub(time.0)).unwrap_or(0))
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Appends `time` as RFC 3339 in UTC with milliseconds, such as `2026-11-22T10:00:00.123Z`. Years outside 0
/// to 9999, which RFC 3339 can't write, become the nearest year that it can.
pub fn write_rfc3339(time: Timestamp, out: &mut Vec<u8>) {
    // 0000-01-01 and 9999-12-31 as days since 1970-01-01.
    let days = time.0.div_euclid(MICROS_PER_DAY).clamp(-719_528, 2_932_896);
    let in_day = time.0.rem_euclid(MICROS_PER_DAY);
    let (year, month, day) = civil_from_days(days);
    let millis = in_day / 1_000;
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, millis / 3_600_000, 2);
    out.push(b':');
    digits(out, millis / 60_000 % 60, 2);
    out.push(b':');
    digits(out, millis / 1_000 % 60, 2);
    out.push(b'.');
    digits(out, millis % 1_000, 3);
    out.push(b'Z');
}

fn digits(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_i64.pow(place) % 10;
        out.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

/// The proleptic Gregorian date of a day since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
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
        assert!(written(i64::MAX).starts_with("9999-12-31T"));
        assert!(written(i64::MIN).starts_with("0000-01-01T"));
    }

    proptest::proptest! {
        #[test]
        fn times_read_as_an_independent_library_reads_them(micros in -62_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let read: jiff::Timestamp = written(micros).parse().unwrap();
            proptest::prop_assert_eq!(read.as_millisecond(), micros.div_euclid(1_000));
        }
    }
}
