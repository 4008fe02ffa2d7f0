//! Times: how devices write them, and how clients read them.
//!
//! jiff knows the calendar; this module narrows what jiff accepts to RFC 3339. Against own code for the
//! calendar, that costs a message with a time in RFC 3339 9 % (650 ns instead of 600 ns; the parts are
//! measured by `cargo bench -p flutecast-format`).

use flutecast_contract::document::TimestampUnit;
use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimePrinter;

use crate::json::RawValue;

/// A time in microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

const MICROS_PER_SECOND: i64 = 1_000_000;
/// The origin of [`Timestamp`], in UTC. Not a `jiff::Timestamp`: these end a day before the year 9999 does.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
const MILLIS: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
const MICROS: DateTimePrinter = DateTimePrinter::new().precision(Some(6));

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        Self(time.as_microsecond())
    }
}

impl Timestamp {
    /// The first time that has a four-digit year, 0000-01-01T00:00:00Z.
    pub const MIN: Self = Self(-62_167_219_200 * MICROS_PER_SECOND);
    /// The last time that has a four-digit year, 9999-12-31T23:59:59.999999Z.
    pub const MAX: Self = Self(253_402_300_800 * MICROS_PER_SECOND - 1);

    /// Returns the time that is `millis` milliseconds after 1970-01-01T00:00:00Z, clamped to
    /// [`Self::MIN`] and [`Self::MAX`].
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000)).clamp(Self::MIN, Self::MAX)
    }

    /// Returns the milliseconds since 1970-01-01T00:00:00Z, rounded down.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Returns the milliseconds since `earlier`, rounded down; negative if `earlier` is later.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).div_euclid(1_000)
    }

    /// Parses RFC 3339: `2026-11-22T10:00:00.123Z`, with any number of decimals, and with `Z` or an offset
    /// such as `+08:00`. Digits after the sixth decimal are cut off. A leap second, `:60`, is the start of
    /// the next minute. `None` if `text` is anything else, or outside [`Self::MIN`] to [`Self::MAX`].
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        // jiff also accepts other forms of ISO 8601, refuses more than nine decimals and clamps leap seconds.
        let (local, rest) = text.split_at_checked(19)?;
        let separators = [4, 7, 10, 13, 16].map(|at| local.as_bytes()[at]);
        if !matches!(separators, [b'-', b'-', b'T' | b't' | b' ', b':', b':']) {
            return None;
        }
        let seconds = local.parse::<DateTime>().ok()?.duration_since(EPOCH).as_secs();
        let seconds = seconds + i64::from(local.ends_with("60"));
        let (fraction, zone) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("0", rest),
        };
        let kept = &fraction[..fraction.len().min(6)];
        let micros = kept.parse::<i64>().ok()? * 10_i64.pow(6 - u32::try_from(kept.len()).ok()?);
        Self((seconds - offset_seconds(zone)?) * MICROS_PER_SECOND + micros).in_range()
    }

    /// Appends the time as RFC 3339 in UTC: `2026-11-22T10:00:00.123Z`, with three decimals, or with six if
    /// it is not a whole millisecond. Times outside [`Self::MIN`] to [`Self::MAX`] are clamped.
    pub fn to_rfc3339(self, out: &mut Vec<u8>) {
        let Self(micros) = self.clamp(Self::MIN, Self::MAX);
        let utc = EPOCH.saturating_add(SignedDuration::from_micros(micros));
        // Writing into a `Vec` can't fail.
        let printer = if micros % 1_000 == 0 { &MILLIS } else { &MICROS };
        let _ = printer.print_datetime(&utc, &mut *out);
        out.push(b'Z');
    }

    /// Returns the microseconds since `earlier`; negative if `earlier` is later.
    pub(super) fn micros_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns whether the time is not a whole second.
    pub(super) fn is_finer_than_seconds(self) -> bool {
        self.0 % MICROS_PER_SECOND != 0
    }

    fn in_range(self) -> Option<Self> {
        (Self::MIN..=Self::MAX).contains(&self).then_some(self)
    }

    /// Parses the time that a device wrote. Units other than RFC 3339 take a number, or a string that holds
    /// one.
    pub(super) fn read(value: RawValue<'_>, unit: TimestampUnit) -> Option<Self> {
        match (unit, value) {
            (TimestampUnit::Rfc3339, RawValue::String(text)) if !text.escaped => Self::from_rfc3339(text.raw),
            (TimestampUnit::Rfc3339, RawValue::String(text)) => {
                Self::from_rfc3339(text.resolve(&mut String::new())?)
            }
            (TimestampUnit::Rfc3339, _) => None,
            (unit, RawValue::Number(number)) => from_number(number, unit),
            (unit, RawValue::String(text)) if text.is_number() => from_number(text.raw, unit),
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

/// Parses `Z`, or an offset such as `+08:00`, into seconds.
fn offset_seconds(zone: &str) -> Option<i64> {
    let (sign, hours, minutes) = match zone.as_bytes() {
        b"Z" | b"z" => return Some(0),
        [b'+', h1, h0, b':', m1, m0] => (1, [h1, h0], [m1, m0]),
        [b'-', h1, h0, b':', m1, m0] => (-1, [h1, h0], [m1, m0]),
        _ => return None,
    };
    let number = |digits: [&u8; 2], limit: i64| {
        let [tens, ones] = digits.map(|b| b.is_ascii_digit().then(|| i64::from(b - b'0')));
        Some(tens? * 10 + ones?).filter(|number| *number < limit)
    };
    Some(sign * (number(hours, 24)? * 3_600 + number(minutes, 60)? * 60))
}
