//! Percent-decoding of parts of a URI (RFC 3986, section 2.1).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Returns an error message if a `%` is not followed by two hexadecimal digits, or the decoded bytes are not
/// UTF-8.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    let decoded = percent_decode_str(text);
    // Each `%` with its two digits becomes one byte; one without them is kept.
    if decoded.clone().count() + 2 * text.matches('%').count() != text.len() {
        return Err(format!("{text:?} has a % without two hexadecimal digits; write %25 for a %"));
    }
    decoded.decode_utf8().map_err(|_| format!("{text:?} is not percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn invalid_encodings_are_refused() {
        for bad in ["%", "%4", "100%", "%zz", "%+1", "%%41", "%2%35", "%ff", "a%c3"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
        assert_eq!(decode("a+b").unwrap(), "a+b");
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding(text in "\\PC{0,20}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(decode(&encoded).unwrap(), text.clone());
            let lower = encoded.to_lowercase();
            prop_assert_eq!(decode(&lower).unwrap(), text);
        }
    }
}
