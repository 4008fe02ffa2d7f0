//! Subjects with wildcards, as in sources.

use std::fmt;

/// A NATS subject, possibly with `*` (one token) and `>` (one or more tokens, at the end).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SubjectPattern {
    tokens: Vec<String>,
}

/// In bytes. NATS accepts more, but longer subjects only waste memory.
const MAX_LENGTH: usize = 255;

impl SubjectPattern {
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("a subject has {MAX_LENGTH} characters at most"));
        }
        let tokens: Vec<String> = text.split('.').map(str::to_owned).collect();
        for (index, token) in tokens.iter().enumerate() {
            let last = index + 1 == tokens.len();
            match token.as_str() {
                "" => {
                    return Err(format!(
                        "{text:?} has an empty token; a subject is words with single dots in between"
                    ));
                }
                "*" => {}
                ">" if last => {}
                ">" => {
                    return Err(format!("{text:?} has '>' before its end; only the last token may be '>'"));
                }
                word if word.contains(['*', '>'])
                    || word.chars().any(|c| c.is_whitespace() || c.is_control()) =>
                {
                    return Err(format!(
                        "{word:?} in {text:?} is not a token; a token is '*', or has no spaces, '*' and '>'"
                    ));
                }
                _ => {}
            }
        }
        Ok(Self { tokens })
    }

    /// Returns whether there is a subject that both match.
    #[must_use]
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let (mut one, mut two) = (self.tokens.iter(), other.tokens.iter());
        loop {
            match (one.next().map(String::as_str), two.next().map(String::as_str)) {
                (None, None) => return true,
                // `>` matches at least one token.
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (None, Some(_)) | (Some(_), None) => return false,
                (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
                (Some(_), Some(_)) => return false,
            }
        }
    }

    /// Returns the token at `position`, counted from 1.
    #[must_use]
    pub(crate) fn token(&self, position: usize) -> Option<&str> {
        self.tokens.get(position.checked_sub(1)?).map(String::as_str)
    }

    /// Returns whether it ends with `>`.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.last().is_some_and(|token| token == ">")
    }

    /// Returns the number of the `*` at `position`, counted from 1, for `{{wildcard(n)}}`; `None` if there is
    /// no `*`.
    #[must_use]
    pub(crate) fn wildcard_at(&self, position: usize) -> Option<usize> {
        (self.token(position)? == "*")
            .then(|| self.tokens[..position].iter().filter(|token| *token == "*").count())
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tokens.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> SubjectPattern {
        SubjectPattern::new(text).unwrap()
    }

    #[test]
    fn invalid_subjects_have_an_error() {
        for bad in ["", "a..b", ".a", "a.", "a b", "a.>.b", "a*", "a.b>", "a\tb", &"a".repeat(256)] {
            assert!(SubjectPattern::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_overlap_if_a_subject_matches_both() {
        for (one, two, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.*", "a.b", true),
            ("a.*", "*.b", true),
            ("a.*.c", "a.b.*", true),
            ("a.*.c", "a.b.d", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            (">", "a", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.>", true),
            ("*.>", "a.b", true),
        ] {
            assert_eq!(pattern(one).overlaps(&pattern(two)), expected, "{one} {two}");
            assert_eq!(pattern(two).overlaps(&pattern(one)), expected, "{two} {one}");
        }
    }

    #[test]
    fn wildcards_are_counted_from_one() {
        let gateway = pattern("plant.*.line.*.power");
        assert_eq!(
            (gateway.wildcard_at(2), gateway.wildcard_at(4), gateway.wildcard_at(3)),
            (Some(1), Some(2), None)
        );
        assert_eq!((gateway.wildcard_at(0), gateway.wildcard_at(6)), (None, None));
    }
}
