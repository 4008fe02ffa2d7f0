//! Converts raw values to the types of fields.

use std::borrow::Cow;

use super::{Conversion, MAX_STRING};
use crate::json::{RawValue, escape, unescape};

/// The most characters that are told of a raw value that can't be read.
pub(super) const MAX_TOLD: usize = 64;

impl Conversion {
    /// Appends the converted value. Returns `None` if the raw value can't be read; what was appended is to be
    /// removed then.
    #[inline]
    pub(super) fn write(&self, raw: &RawValue<'_>, buffer: &mut String, out: &mut Vec<u8>) -> Option<()> {
        if let RawValue::Null = raw {
            out.extend_from_slice(b"null");
            return Some(());
        }
        match self {
            Self::Number(rule) => match raw {
                RawValue::Number(number) => rule.write(number, out).then_some(()),
                // Some gateways quote every value.
                RawValue::String(text) if text.is_number() => rule.write(text.raw, out).then_some(()),
                _ => None,
            },
            Self::String => {
                let RawValue::String(text) = raw else { return None };
                let text = text.resolve(buffer).filter(|text| text.len() <= MAX_STRING);
                text.map(|text| escape(text, out))
            }
            Self::Bool => {
                let value = match raw {
                    RawValue::Bool(value) => *value,
                    RawValue::Number("0" | "0.0") => false,
                    RawValue::Number("1" | "1.0") => true,
                    _ => return None,
                };
                out.extend_from_slice(if value { b"true" } else { b"false" });
                Some(())
            }
            Self::Enum(words, otherwise) => {
                let raw = match raw {
                    RawValue::String(text) => text.resolve(buffer),
                    RawValue::Number(number) => Some(*number),
                    RawValue::Bool(value) => Some(if *value { "true" } else { "false" }),
                    RawValue::Null | RawValue::Container(_) | RawValue::NotFinite(_) => None,
                };
                // Devices with only one type of number write 1 as `1.0`.
                let word = |raw| word_of(words, raw).or_else(|| word_of(words, raw.strip_suffix(".0")?));
                raw.and_then(word).or(otherwise.as_deref()).map(|word| out.extend_from_slice(word))
            }
        }
    }
}

/// Returns the word of a raw value.
fn word_of<'a>(words: &'a [(Box<str>, Box<[u8]>)], raw: &str) -> Option<&'a [u8]> {
    let at = words.binary_search_by(|(value, _)| (**value).cmp(raw)).ok()?;
    Some(&words[at].1)
}

/// Returns what is told of a raw value that can't be read: at most [`MAX_TOLD`] characters.
pub(super) fn told(raw: RawValue<'_>) -> Cow<'_, str> {
    match raw {
        RawValue::Null => "null".into(),
        RawValue::Bool(value) => if value { "true" } else { "false" }.into(),
        RawValue::Number(text) | RawValue::NotFinite(text) | RawValue::Container(text) => shorten(text),
        RawValue::String(text) if text.escaped => {
            // No more of it than can matter; cutting an escape only changes the end, which is cut off anyway.
            let start = &text.raw[..text.raw.floor_char_boundary(MAX_TOLD * 12 + 12)];
            let mut unescaped = String::new();
            let is_unicode = unescape(start, &mut unescaped) || start.len() < text.raw.len();
            if is_unicode { shorten(&unescaped).into_owned().into() } else { shorten(text.raw) }
        }
        RawValue::String(text) => shorten(text.raw),
    }
}

fn shorten(text: &str) -> Cow<'_, str> {
    if text.char_indices().nth(MAX_TOLD).is_none() {
        return text.into();
    }
    let mut short: String = text.chars().take(MAX_TOLD - 1).collect();
    short.push('…');
    short.into()
}
