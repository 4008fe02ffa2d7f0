use super::*;
use crate::json::{RawString, RawValue};
use flutecast_contract::document::TimestampUnit;

#[test]
fn rfc_3339_is_parsed_and_written() {
    for (text, micros, written) in [
        ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00.000Z"),
        ("2026-11-22T10:00:00.123Z", NOW_MS * 1_000 + 123_000, "2026-11-22T10:00:00.123Z"),
        ("2026-11-22t10:00:00.1z", NOW_MS * 1_000 + 100_000, "2026-11-22T10:00:00.100Z"),
        ("2026-11-22 18:00:00+08:00", NOW_MS * 1_000, "2026-11-22T10:00:00.000Z"),
        ("2026-11-22T04:30:00.000001-05:30", NOW_MS * 1_000 + 1, "2026-11-22T10:00:00.000001Z"),
        ("2026-11-22T10:00:00.123456999Z", NOW_MS * 1_000 + 123_456, "2026-11-22T10:00:00.123456Z"),
        ("1969-12-31T23:59:59.5Z", -500_000, "1969-12-31T23:59:59.500Z"),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000, "2024-02-29T00:00:00.000Z"),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000, "2017-01-01T00:00:00.000Z"),
        ("0000-01-01T00:00:00Z", Timestamp::MIN.0, "0000-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999999Z", Timestamp::MAX.0, "9999-12-31T23:59:59.999999Z"),
    ] {
        let time = Timestamp::from_rfc3339(text);
        assert_eq!(time, Some(Timestamp(micros)), "{text}");
        let mut out = Vec::new();
        Timestamp(micros).to_rfc3339(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), written);
    }
}

#[test]
fn other_texts_than_rfc_3339_are_refused() {
    for text in [
        "",
        "2026-11-22",
        "2026-11-22T10:00Z",
        "2026-11-22T10:00:00",
        "2026-11-22T10:00:00.Z",
        "2026-11-22T10:00:00Z ",
        "2026-11-22T10:00:00+0800",
        "2026-11-22T10:00:00+24:00",
        "2026-11-22T10:00:00+08:60",
        "2026-11-22T24:00:00Z",
        "2026-11-22T10:60:00Z",
        "2026-11-22T10:00:61Z",
        "2026-13-22T10:00:00Z",
        "2026-00-22T10:00:00Z",
        "2026-02-29T10:00:00Z",
        "2026-11-31T10:00:00Z",
        "2026/11/22T10:00:00Z",
        "-026-11-22T10:00:00Z",
        "20261-11-22T10:00:00Z",
        "0000-01-01T00:00:00+00:01",
        "9999-12-31T23:59:60Z",
        "２026-11-22T10:00:00Z",
    ] {
        assert_eq!(Timestamp::from_rfc3339(text), None, "{text}");
    }
}

#[test]
fn numbers_are_parsed_in_their_unit() {
    use TimestampUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
    for (number, unit, expected) in [
        ("1795341600", Seconds, Some(NOW_MS * 1_000)),
        ("1795341600.123456", Seconds, Some(NOW_MS * 1_000 + 123_456)),
        ("1.7953416e9", Seconds, Some(NOW_MS * 1_000)),
        ("1795341600123", Milliseconds, Some(NOW_MS * 1_000 + 123_000)),
        ("1795341600123.5", Milliseconds, Some(NOW_MS * 1_000 + 123_500)),
        ("1795341600123456", Microseconds, Some(NOW_MS * 1_000 + 123_456)),
        ("1795341600123456789", Nanoseconds, Some(NOW_MS * 1_000 + 123_456)),
        ("-1", Nanoseconds, Some(-1)),
        ("-1", Seconds, Some(-1_000_000)),
        ("0", Milliseconds, Some(0)),
        // Milliseconds where the format says seconds: the year 58861.
        ("1795341600123", Seconds, None),
        ("9223372036854775807", Milliseconds, None),
        ("9223372036854775808", Microseconds, None),
        ("-9223372036854775808", Seconds, None),
        ("1e999", Seconds, None),
        ("-1e999", Nanoseconds, None),
    ] {
        let expected = expected.map(Timestamp);
        assert_eq!(Timestamp::read(RawValue::Number(number), unit), expected, "{number} {unit:?}");
        assert_eq!(
            Timestamp::read(RawValue::String(RawString { raw: number, escaped: false }), unit),
            expected,
            "\"{number}\""
        );
    }
    assert_eq!(Timestamp::read(RawValue::Null, Seconds), None);
    assert_eq!(Timestamp::read(RawValue::Number("1"), TimestampUnit::Rfc3339), None);
    let escaped = RawValue::String(RawString { raw: r"2026-11-22T10:00:00\u002e5Z", escaped: true });
    assert_eq!(Timestamp::read(escaped, TimestampUnit::Rfc3339), Some(Timestamp(NOW_MS * 1_000 + 500_000)));
}

#[test]
fn differences_are_in_milliseconds() {
    let now = Timestamp::from_millis(NOW_MS);
    assert_eq!(now.as_millis(), NOW_MS);
    assert_eq!(now.millis_since(Timestamp(now.0 - 1_500)), 1);
    assert_eq!(Timestamp(0).millis_since(Timestamp(1)), -1);
    assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp::MAX);
    assert_eq!(Timestamp(i64::MAX).millis_since(Timestamp(i64::MIN)), i64::MAX / 1_000);
}
