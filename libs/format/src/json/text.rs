//! Strings of JSON, with their escapes.

use super::scan;

/// The text between the quotes of a JSON string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawString<'a> {
    /// The text as written; its escapes are well-formed.
    pub raw: &'a str,
    /// `true` if `raw` has escapes.
    pub escaped: bool,
}

impl<'a> RawString<'a> {
    /// Returns the string without escapes. If it has escapes, `buffer` is overwritten to hold it.
    ///
    /// `None` if the string is not Unicode, since it has half of a surrogate pair (`"\ud800"`).
    pub fn resolve<'b>(self, buffer: &'b mut String) -> Option<&'b str>
    where
        'a: 'b,
    {
        if !self.escaped {
            return Some(self.raw);
        }
        buffer.clear();
        unescape(self.raw, buffer).then_some(buffer.as_str())
    }

    /// Returns whether the string is a JSON number, such as `"12.5"`.
    #[must_use]
    pub fn is_number(self) -> bool {
        !self.escaped && scan::is_number(self.raw)
    }
}

/// Appends the text between the quotes of a JSON string to `out`, without escapes. Returns `false` if an
/// escape is malformed or the string is not Unicode; `out` then holds the part before.
pub fn unescape(raw: &str, out: &mut String) -> bool {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        let resolved = match chars.next() {
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let Some(c) = code_point(&mut chars) else { return false };
                c
            }
            Some(c) => c,
            None => return false,
        };
        out.push(resolved);
        rest = chars.as_str();
    }
    out.push_str(rest);
    true
}

/// Parses the rest of an escape after `\u`: one code unit, or a pair of surrogates.
fn code_point(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let first = code_unit(chars)?;
    if !(0xd800..0xe000).contains(&first) {
        return char::from_u32(first);
    }
    if chars.next() != Some('\\') || chars.next() != Some('u') {
        return None;
    }
    let second = code_unit(chars)?;
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    // If the first unit is a low surrogate too, the sum is beyond the last character.
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

fn code_unit(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit << 4 | chars.next()?.to_digit(16)?))
}

/// Appends `text` as a JSON string with its quotes.
pub fn escape(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..at]);
        copied = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(control >> 4)]);
                out.push(DIGITS[usize::from(control & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}
