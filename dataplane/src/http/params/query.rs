//! The query of an address, as parameters.

use std::borrow::Cow;

use super::{Names, Parameter, RequestError, suggest};
use crate::percent;

/// Reads a query. A name that isn't known is refused.
pub(super) fn parameters(query: &str, names: Names) -> Result<Vec<Parameter>, RequestError> {
    pairs(query)
        .map(|(name, value)| {
            let found = decode(name).and_then(|name| {
                let known = names.iter().find(|(known, _)| *known == name).copied();
                known.ok_or_else(|| suggest::unknown(&name, &value_for_message(&name, value), names))
            });
            let (name, key) = found.map_err(RequestError::BadRequest)?;
            let value =
                decode(value).map_err(|problem| RequestError::BadRequest(format!("{name}: {problem}")))?;
            Ok(Parameter { key, name, value: value.into_owned() })
        })
        .collect()
}

/// The token in a query, whatever else stands there.
pub(crate) fn access_token(query: &str) -> Option<Cow<'_, str>> {
    pairs(query).filter(|(name, _)| *name == "access_token").find_map(|(_, value)| decode(value).ok())
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Undoes the encoding of a query, in which '+' stands for a space as well.
///
/// # Errors
/// What is wrong.
fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent::decode(&spaced).map(|text| Cow::Owned(text.into_owned()));
    }
    percent::decode(text)
}

/// What may be a token under a misspelt name is not sent back, as answers end up in logs.
fn value_for_message(name: &str, value: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if ["token", "auth", "key", "secret", "pass"].iter().any(|word| lower.contains(word)) {
        return "…".to_owned();
    }
    decode(value).unwrap_or(Cow::Borrowed(value)).chars().take(64).collect()
}
