//! The query of an address, as parameters.

use std::borrow::Cow;

use super::{Names, Parameter, ParameterKind, RequestError, suggest};
use crate::percent;

/// An unknown name is an error.
pub(super) fn parameters(query: &str, names: Names) -> Result<Vec<Parameter>, RequestError> {
    pairs(query)
        .map(|(name, value)| {
            let found = decode(name).and_then(|name| {
                let known = names.iter().find(|(known, _)| *known == name).copied();
                known.ok_or_else(|| suggest::unknown(&name, &value_for_message(&name, value), names))
            });
            let (name, key) = found.map_err(RequestError::BadRequest)?;
            let value = decode(value).map_err(|problem| {
                // The message quotes the value, which may be a token with one wrong character.
                let problem = match key {
                    ParameterKind::AccessToken => "it is not percent-encoded UTF-8; write %25 for a %",
                    _ => &problem,
                };
                RequestError::BadRequest(format!("{name}: {problem}"))
            })?;
            Ok(Parameter { key, name, value: value.into_owned() })
        })
        .collect()
}

/// Returns the token in a query, even if the rest of the query is invalid.
pub(crate) fn access_token(query: &str) -> Option<Cow<'_, str>> {
    pairs(query).filter(|(name, _)| *name == "access_token").find_map(|(_, value)| decode(value).ok())
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Decodes a part of a query, in which '+' also means a space. An error is a message for the client.
fn decode(text: &str) -> Result<Cow<'_, str>, String> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent::decode(&spaced).map(|text| Cow::Owned(text.into_owned()));
    }
    percent::decode(text)
}

/// Returns what a message shows of the value of an unknown name.
fn value_for_message(name: &str, value: &str) -> String {
    if suggest::may_name_a_secret(name) {
        return "…".to_owned();
    }
    decode(value).unwrap_or(Cow::Borrowed(value)).chars().take(64).collect()
}
