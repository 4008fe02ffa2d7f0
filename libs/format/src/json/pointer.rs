//! JSON pointers (RFC 6901).

use std::fmt;
use std::str::FromStr;

/// The most tokens of a pointer.
const MAX_TOKENS: usize = 32;

/// The longest pointer, in bytes.
const MAX_LENGTH: usize = 512;

/// A JSON pointer: `/d/speed`, `/readings/0`, or the empty pointer, which refers to the whole text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// The error for a string that is not a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer:?} is not a JSON pointer: {problem}")]
pub struct InvalidPointer {
    /// The invalid string, cut to 128 characters.
    pub pointer: String,
    /// The problem, as a sentence without a full stop.
    pub problem: &'static str,
}

impl Pointer {
    /// Returns the keys and indexes, outermost first, with `~0` and `~1` unescaped.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tokens.iter().map(String::as_str)
    }
}

impl FromStr for Pointer {
    type Err = InvalidPointer;

    fn from_str(text: &str) -> Result<Self, InvalidPointer> {
        let wrong = |problem| InvalidPointer { pointer: text.chars().take(128).collect(), problem };
        if text.is_empty() {
            return Ok(Self { tokens: Vec::new() });
        }
        if text.len() > MAX_LENGTH {
            return Err(wrong("it is longer than 512 bytes"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(wrong("it does not start with '/'"));
        };
        let tokens = rest.split('/').map(token).collect::<Option<Vec<_>>>();
        let tokens =
            tokens.ok_or_else(|| wrong("a '~' in it is not followed by 0 (for '~') or 1 (for '/')"))?;
        if tokens.len() > MAX_TOKENS {
            return Err(wrong("it has more than 32 parts"));
        }
        Ok(Self { tokens })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.tokens {
            write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

fn token(escaped: &str) -> Option<String> {
    let mut token = String::with_capacity(escaped.len());
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        token.push(match c {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_rfc_are_parsed() {
        for (text, tokens) in [
            ("", &[][..]),
            ("/foo", &["foo"]),
            ("/foo/0", &["foo", "0"]),
            ("/", &[""]),
            ("/a~1b", &["a/b"]),
            ("/c%d", &["c%d"]),
            ("/m~0n", &["m~n"]),
            ("/~01", &["~1"]),
            ("/ ", &[" "]),
        ] {
            let pointer: Pointer = text.parse().unwrap();
            assert_eq!(pointer.tokens().collect::<Vec<_>>(), tokens, "{text}");
            assert_eq!(pointer.to_string(), text);
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let long = format!("/{}", "a".repeat(512));
        let deep = "/a".repeat(33);
        for (text, problem) in [
            ("d/v", "start with '/'"),
            ("$.d.v", "start with '/'"),
            ("/a~", "'~'"),
            ("/a~2", "'~'"),
            (&long, "longer than 512"),
            (&deep, "more than 32"),
        ] {
            let error = text.parse::<Pointer>().unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
        }
    }
}
