//! The query of an address, as parameters.

use std::borrow::Cow;

use super::{Key, Names, Parameter, RequestError, suggest};
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
            let value = decode(value).map_err(|problem| {
                // What is wrong quotes the value, and that may be a token but for one character.
                let problem = match key {
                    Key::AccessToken => "it is not percent-encoded UTF-8; write %25 for a %".to_owned(),
                    _ => problem,
                };
                RequestError::BadRequest(format!("{name}: {problem}"))
            })?;
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

/// What is shown of the value under a name that isn't known.
fn value_for_message(name: &str, value: &str) -> String {
    if suggest::may_name_a_secret(name) {
        return "…".to_owned();
    }
    decode(value).unwrap_or(Cow::Borrowed(value)).chars().take(64).collect()
}
