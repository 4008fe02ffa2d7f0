//! Label selectors in Kubernetes syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The length of the longest selector that is parsed, in bytes.
pub(super) const MAX_SELECTOR_LEN: usize = 4_096;

/// The labels that a device must have. All terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    Absent(String),
}

/// The error for a text that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; write k=v, k!=v, k in (a,b), k notin (a,b), k or !k, joined by commas")]
pub struct InvalidSelector {
    /// The problem, with the part of the text that has it.
    pub problem: String,
}

impl Selector {
    /// Returns whether these labels meet every term.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| term.matches(labels))
    }
}

impl Term {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            // As in Kubernetes, a device without the label meets `!=` and `notin`.
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let list =
                |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match term {
                Term::In(key, values) => write!(f, "{key} in ({})", list(values))?,
                Term::NotIn(key, values) => write!(f, "{key} notin ({})", list(values))?,
                Term::Exists(key) => write!(f, "{key}")?,
                Term::Absent(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > MAX_SELECTOR_LEN {
            return Err(InvalidSelector {
                problem: format!("a selector has {MAX_SELECTOR_LEN} bytes at most"),
            });
        }
        if text.trim().is_empty() {
            return Err(InvalidSelector { problem: "the selector is empty".to_owned() });
        }
        let terms = split_terms(text).into_iter().map(parse_term).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }
}

/// Splits at the commas that aren't in parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                terms.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn parse_term(term: &str) -> Result<Term, InvalidSelector> {
    let term = term.trim();
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Term::Absent(parse_key(key, term)?));
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Term::NotIn(parse_key(key, term)?, [parse_value(value, term)?].into()));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Term::In(parse_key(key, term)?, [parse_value(value, term)?].into()));
    }
    if let Some(list) = term.strip_suffix(')') {
        let (head, list) = list.split_once('(').ok_or_else(|| invalid(term))?;
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let values = list.split(',').map(|value| parse_value(value, term)).collect::<Result<_, _>>()?;
        return match (operator, words.next()) {
            ("in", None) => Ok(Term::In(parse_key(key, term)?, values)),
            ("notin", None) => Ok(Term::NotIn(parse_key(key, term)?, values)),
            _ => Err(invalid(term)),
        };
    }
    Ok(Term::Exists(parse_key(term, term)?))
}

fn invalid(term: &str) -> InvalidSelector {
    InvalidSelector { problem: format!("{term:?} can't be understood") }
}

/// A Kubernetes label key: an optional DNS prefix, '/', and a name. 317 = 253 + 1 + 63 bytes.
fn parse_key(key: &str, term: &str) -> Result<String, InvalidSelector> {
    let key = key.trim();
    let valid = (1..=317).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && key.bytes().filter(|&b| b == b'/').count() <= 1
        && key.as_bytes()[0].is_ascii_alphanumeric();
    if valid { Ok(key.to_owned()) } else { Err(invalid(term)) }
}

/// A Kubernetes label value: up to 63 letters, digits, '-', '_' and '.'; may be empty.
fn parse_value(value: &str, term: &str) -> Result<String, InvalidSelector> {
    let value = value.trim();
    let valid = value.len() <= 63 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if valid { Ok(value.to_owned()) } else { Err(invalid(term)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn terms_match_as_in_kubernetes() {
        let device = labels(&[("line", "l1"), ("type", "corrugator")]);
        for (selector, expected) in [
            ("line=l1", true),
            ("line==l1", true),
            ("line=l2", false),
            ("line!=l2", true),
            ("other!=x", true),
            ("line in (l1,l2)", true),
            ("line in (l2, l3),type", false),
            ("line notin (l2,l3), type=corrugator", true),
            ("other notin (a)", true),
            ("!other", true),
            ("!line", false),
            ("other", false),
        ] {
            let parsed: Selector = selector.parse().unwrap();
            assert_eq!(parsed.matches(&device), expected, "{selector}");
            assert_eq!(parsed.to_string().parse::<Selector>().unwrap(), parsed);
        }
    }

    #[test]
    fn invalid_selectors_are_refused() {
        for bad in [
            "",
            " ",
            ",",
            "=",
            "line=l1,",
            "line in l1",
            "line foo (a)",
            "a b",
            "line=a b",
            "(",
            "a/b/c=1",
            "line in (a",
        ] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
