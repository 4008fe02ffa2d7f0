//! Moments: how devices write them, and how clients read them.

use crate::json::Value;
use flutecast_contract::document::TimestampUnit;

/// A moment, in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

impl Timestamp {
    /// The first moment that has a four-digit year, 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200 * MICROS_PER_SECOND);
    /// The last one, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// A moment from milliseconds since 1970; what doesn't fit becomes the nearest moment that does.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000)).clamp(Self::MIN, Self::MAX)
    }

    /// Milliseconds since 1970, rounded down.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// How many milliseconds this is after `earlier`; negative if it is before.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).div_euclid(1_000)
    }

    /// Reads RFC 3339: `2026-11-22T10:00:00.123Z`, with any number of decimals, and with `Z` or an offset
    /// such as `+08:00`. What is finer than a microsecond is cut off. A leap second, `:60`, is the start of
    /// the next minute.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            bytes
                .get(from..to)?
                .iter()
                .try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
        };
        let separated = |at: usize, by: &[u8]| bytes.get(at).is_some_and(|b| by.contains(b));
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let shaped = separated(4, b"-") && separated(7, b"-") && separated(10, b"Tt ");
        let shaped = shaped && separated(13, b":") && separated(16, b":");
        let day_exists = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        if !shaped || !day_exists || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut at = 19;
        let mut micros = 0;
        if separated(at, b".") {
            at += 1;
            let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let kept = digits.min(6);
            micros = number(at, at + kept)? * 10_i64.pow(6 - u32::try_from(kept).ok()?);
            at += digits;
        }
        let offset_minutes = match bytes.get(at)? {
            b'Z' | b'z' if bytes.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == at + 6 && separated(at + 3, b":") => {
                let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let offset = hours * 60 + minutes;
                if *sign == b'-' { -offset } else { offset }
            }
            _ => return None,
        };
        let seconds = days_from_civil(year, month, day) * SECONDS_PER_DAY
            + hour * 3_600
            + (minute - offset_minutes) * 60
            + second;
        Self(seconds * MICROS_PER_SECOND + micros).in_range()
    }

    /// Appends RFC 3339 in UTC: `2026-11-22T10:00:00.123Z`, with three decimals, or six if it is finer than a
    /// millisecond.
    pub fn to_rfc3339(self, out: &mut Vec<u8>) {
        let Self(micros) = self.clamp(Self::MIN, Self::MAX);
        let seconds = micros.div_euclid(MICROS_PER_SECOND);
        let fraction = micros.rem_euclid(MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let second_of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        write_digits(&mut text[0..4], year);
        write_digits(&mut text[5..7], month);
        write_digits(&mut text[8..10], day);
        write_digits(&mut text[11..13], second_of_day / 3_600);
        write_digits(&mut text[14..16], second_of_day / 60 % 60);
        write_digits(&mut text[17..19], second_of_day % 60);
        write_digits(&mut text[20..26], fraction);
        if fraction % 1_000 == 0 {
            out.extend_from_slice(&text[..23]);
            out.push(b'Z');
        } else {
            out.extend_from_slice(&text);
        }
    }

    fn in_range(self) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&self).then_some(self)
    }

    /// Reads the time that a device wrote. Units other than RFC 3339 take a number, or a string that holds
    /// one.
    pub(super) fn read(value: Value<'_>, unit: TimestampUnit) -> Option<Self> {
        match (unit, value) {
            (TimestampUnit::Rfc3339, Value::Text(text)) if !text.escaped => Self::from_rfc3339(text.raw),
            (TimestampUnit::Rfc3339, Value::Text(text)) => {
                Self::from_rfc3339(text.resolve(&mut String::new())?)
            }
            (TimestampUnit::Rfc3339, _) => None,
            (unit, Value::Number(number)) => from_number(number, unit),
            (unit, Value::Text(text)) if text.is_number() => from_number(text.raw, unit),
            _ => None,
        }
    }
}

fn from_number(number: &str, unit: TimestampUnit) -> Option<Timestamp> {
    let units_per_second = match unit {
        TimestampUnit::Seconds => 1,
        TimestampUnit::Milliseconds => 1_000,
        TimestampUnit::Microseconds => MICROS_PER_SECOND,
        TimestampUnit::Nanoseconds => 1_000_000_000,
        TimestampUnit::Rfc3339 => return None,
    };
    let micros = if let Ok(whole) = number.parse::<i64>() {
        if units_per_second <= MICROS_PER_SECOND {
            whole.checked_mul(MICROS_PER_SECOND / units_per_second)?
        } else {
            whole.div_euclid(units_per_second / MICROS_PER_SECOND)
        }
    } else {
        // A fraction or an exponent. A double holds today's time to a quarter of a microsecond.
        #[expect(
            clippy::cast_precision_loss,
            reason = "the factors are powers of ten, which a double holds exactly"
        )]
        let micros = number.parse::<f64>().ok()? * MICROS_PER_SECOND as f64 / units_per_second as f64;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is too large saturates, and is out of range then"
        )]
        let micros = micros.round() as i64;
        micros
    };
    Timestamp(micros).in_range()
}

fn write_digits(digits: &mut [u8], mut value: i64) {
    for digit in digits.iter_mut().rev() {
        // The remainder of ten is a digit.
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar. From Howard Hinnant, "chrono-compatible low-level date
/// algorithms": the year starts in March, so that the leap day is its last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}
