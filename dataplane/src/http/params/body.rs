//! The JSON body of a request, as parameters.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{Names, Parameter, ParameterKind, RequestError, suggest};

/// An unknown name is an error.
pub(super) fn parameters(body: &[u8], names: Names) -> Result<Vec<Parameter>, RequestError> {
    let Entries(entries) = serde_json::from_slice(body)
        .map_err(|error| RequestError::BadRequest(format!("the body is not a JSON object: {error}")))?;
    let mut parameters = Vec::new();
    let mut seen = Vec::new();
    for (name, value) in entries {
        let known = names.iter().find(|(known, _)| *known == name);
        let Some(&(name, key)) = known else {
            let value = if suggest::may_name_a_secret(&name) { "…".to_owned() } else { shown(&value) };
            return Err(RequestError::BadRequest(suggest::unknown(&name, &value, names)));
        };
        if seen.contains(&name) {
            return Err(RequestError::BadRequest(format!("{name}: it is there twice; write it once")));
        }
        seen.push(name);
        let texts =
            texts(key, value).map_err(|problem| RequestError::BadRequest(format!("{name}: {problem}")))?;
        parameters.extend(texts.into_iter().map(|value| Parameter { key, name, value }));
    }
    Ok(parameters)
}

fn texts(key: ParameterKind, value: Value) -> Result<Vec<String>, String> {
    match (key, value) {
        // Many programs write `null` for a parameter that is left out.
        (_, Value::Null) => Ok(Vec::new()),
        (ParameterKind::Device | ParameterKind::Channel, Value::Array(items)) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(format!("{} is not a string; write a list of strings", shown(&other))),
            })
            .collect(),
        (ParameterKind::Device | ParameterKind::Channel, other) => {
            Err(format!("{} is not a list; write a list of strings", shown(&other)))
        }
        (ParameterKind::Problems, Value::Bool(wanted)) => Ok(vec![wanted.to_string()]),
        (ParameterKind::Problems, other) => Err(format!("{} is neither true nor false", shown(&other))),
        (_, Value::String(text)) => Ok(vec![text]),
        (_, other) => Err(format!("{} is not a string; write it in quotes", shown(&other))),
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

/// The entries of an object in their order. Keeps duplicate names, which a map would drop silently.
struct Entries(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(r#"an object such as {"devices":["CORR-01"]}"#)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}
