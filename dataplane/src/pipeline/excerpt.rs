//! The part of a payload that people see who look for a fault.

/// The most bytes of an excerpt.
const MAX_BYTES: usize = 200;
/// The end of an excerpt that shows only the beginning of a payload.
const CUT: char = '…';

/// Returns the beginning of a payload as one line of at most 200 bytes. What isn't printable, and bytes that
/// are no UTF-8, are escaped as in a Rust string, so that no payload can forge a line or colour a terminal.
pub fn excerpt(payload: &[u8]) -> String {
    let mut excerpt = String::new();
    let mut pieces = payload.utf8_chunks().flat_map(|chunk| {
        let printable = chunk.valid().chars().map(printable);
        printable.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")))
    });
    // The end of what may stay if `CUT` has to follow.
    let mut kept = 0;
    for piece in &mut pieces {
        if excerpt.len() + piece.len() > MAX_BYTES {
            excerpt.truncate(kept);
            excerpt.push(CUT);
            break;
        }
        excerpt.push_str(&piece);
        if excerpt.len() + CUT.len_utf8() <= MAX_BYTES {
            kept = excerpt.len();
        }
    }
    excerpt
}

fn printable(character: char) -> String {
    match character {
        '"' | '\'' => character.to_string(),
        other => other.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_stays_readable() {
        let payload = r#"{"ts":1,"text":"Rücklauf 'kalt'"}"#;
        assert_eq!(excerpt(payload.as_bytes()), payload);
        assert_eq!(excerpt(b""), "");
    }

    #[test]
    fn what_could_forge_a_line_or_hide_is_escaped() {
        assert_eq!(excerpt(b"a\nb\r\x1b[31m\0"), r"a\nb\r\u{1b}[31m\0");
        assert_eq!(excerpt("\u{feff}{}\u{202e}".as_bytes()), r"\u{feff}{}\u{202e}");
        assert_eq!(excerpt(b"\xce\xc2\xb6\xc8"), r"\xce¶\xc8", "GBK");
        assert_eq!(excerpt(br"\x41"), r"\\x41", "what was escaped before is told from what is escaped here");
    }

    #[test]
    fn a_long_payload_is_cut_between_characters() {
        let fits = "x".repeat(200);
        assert_eq!(excerpt(fits.as_bytes()), fits);
        assert_eq!(excerpt("x".repeat(201).as_bytes()), format!("{}…", "x".repeat(197)));
        assert_eq!(excerpt("ü".repeat(101).as_bytes()), format!("{}…", "ü".repeat(98)));
    }

    proptest! {
        #[test]
        fn any_payload_is_one_short_line(payload in prop::collection::vec(any::<u8>(), 0..400)) {
            let excerpt = excerpt(&payload);
            prop_assert!(excerpt.len() <= MAX_BYTES);
            prop_assert!(!excerpt.chars().any(char::is_control));
        }
    }
}
