use super::super::number::{NumberRule, write_double};

fn number(raw: &str, scale: Option<f64>, offset: Option<f64>, decimals: Option<u8>) -> String {
    let mut out = Vec::new();
    let written = NumberRule::new(scale, offset, decimals).write(raw, &mut out);
    assert_eq!(written, !out.is_empty(), "{raw}");
    String::from_utf8(out).unwrap()
}

#[test]
fn numbers_are_printed_without_noise() {
    for (raw, scale, offset, decimals, expected) in [
        ("1824", Some(0.1), None, Some(1), "182.4"),
        ("1824", Some(0.1), None, None, "182.4"),
        ("1820", Some(0.1), None, Some(1), "182"),
        ("3", Some(0.1), None, None, "0.3"),
        ("-3", Some(0.1), Some(0.3), None, "0"),
        ("1", Some(0.1), Some(0.2), None, "0.3"),
        ("7", None, Some(-273.15), None, "-266.15"),
        ("2.675", None, None, Some(2), "2.68"),
        ("-2.675", None, None, Some(2), "-2.68"),
        ("2.665", None, None, Some(2), "2.67"),
        ("2.5", None, None, Some(0), "3"),
        ("-2.5", None, None, Some(0), "-3"),
        ("0.4", None, None, Some(0), "0"),
        ("-0.4", None, None, Some(0), "0"),
        ("-0", None, None, None, "0"),
        ("-0.0", None, None, None, "0"),
        ("0e99999", None, None, None, "0"),
        ("12.50", None, None, None, "12.5"),
        ("1e2", None, None, None, "100"),
        ("1.5E-3", None, None, None, "0.0015"),
        ("1E+21", None, None, None, "1000000000000000000000"),
        ("9007199254740993", None, None, None, "9007199254740993"),
        ("9007199254740993", None, None, Some(2), "9007199254740993"),
        (
            "123456789012345678901234567890123456789012345",
            None,
            None,
            None,
            "123456789012345678901234567890123456789012345",
        ),
        ("0.1", Some(3.0), None, None, "0.3"),
        ("1e-40", None, None, None, "0.0000000000000000000000000000000000000001"),
        ("1e-300", None, None, None, "1e-300"),
        ("1e-300", None, None, Some(2), "0"),
        ("-1e-300", None, None, Some(2), "0"),
        ("1e300", None, None, None, "1e300"),
        ("1e300", None, None, Some(2), "1e300"),
        ("-1.5e300", Some(2.0), None, None, "-3e300"),
        ("123456789.123456789", Some(0.123456789), None, None, "15241578.765432099"),
        ("9", Some(0.333333333333333), None, None, "2.999999999999997"),
        ("1e999", None, None, None, ""),
        ("-1e999", Some(0.1), None, Some(1), ""),
        ("1e308", Some(100.0), None, None, ""),
        ("1e308", None, Some(1e308), None, ""),
    ] {
        assert_eq!(number(raw, scale, offset, decimals), expected, "{raw} {scale:?} {offset:?} {decimals:?}");
    }
}

#[test]
fn an_integer_of_any_length_is_printed_if_it_is_finite() {
    let large = "9".repeat(308);
    assert_eq!(number(&large, None, None, None), large);
    assert_eq!(number(&"9".repeat(400), None, None, None), "");
}

#[test]
fn doubles_are_printed_short() {
    for (value, decimals, expected) in [
        (0.1 + 0.2, None, "0.30000000000000004"),
        (0.1 + 0.2, Some(9), "0.3"),
        (1.0 / 3.0, Some(3), "0.333"),
        (2.675, Some(2), "2.68"),
        (1e21, None, "1e21"),
        (1e15, None, "1000000000000000"),
        (-0.0, None, "0"),
        (5e-324, None, "5e-324"),
        (5e-324, Some(1), "0"),
        (f64::MAX, Some(1), "1.7976931348623157e308"),
        (f64::NAN, None, ""),
        (f64::INFINITY, None, ""),
    ] {
        let mut out = Vec::new();
        assert_eq!(write_double(value, decimals, &mut out), !expected.is_empty());
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
