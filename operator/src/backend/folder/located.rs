//! A YAML document as JSON, with the line of each value.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::Spanned;

#[derive(Debug, Clone, Default)]
pub(crate) struct Located {
    pub(crate) value: Value,
    /// The line of each value within the document, from 1, by its path (`spec.channels[1].format`).
    lines: BTreeMap<String, u64>,
}

impl Located {
    /// Reads one document. An error has the line within the document, from 1, if it is known.
    pub(crate) fn parse(text: &str) -> Result<Self, (Option<u64>, String)> {
        let node: Spanned<Node> = serde_yaml::from_str(text).map_err(|error| {
            let error = error.without_snippet();
            (error.location().map(|location| location.line()), first_line(&error.to_string()))
        })?;
        let mut located = Self::default();
        located.value = located.take(node, "");
        Ok(located)
    }

    /// Returns the line of the value at `path`, or of the nearest value around it that exists.
    pub(crate) fn line(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.lines.get("").copied().unwrap_or(1),
            }
        }
    }

    fn take(&mut self, node: Spanned<Node>, path: &str) -> Value {
        self.lines.insert(path.to_owned(), node.referenced.line());
        match node.value {
            Node::Scalar(value) => value,
            Node::List(items) => Value::Array(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| self.take(item, &format!("{path}[{index}]")))
                    .collect(),
            ),
            Node::Map(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let value = self.take(value, &join(path, &key));
                        (key, value)
                    })
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

/// Returns the path of a key within the value at `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(String, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number must be finite"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind: Device # a comment\nspec:\n  on: true\n  values: {\"0\": off, '1': 1.5}\n  \
        channels:\n  - name: a\n    format: b\n  - {name: c}\n";

    #[test]
    fn values_have_their_lines() {
        // As with kubectl, `off` without quotes is a boolean.
        let located = Located::parse(TEXT).unwrap();
        assert_eq!(
            located.value,
            serde_json::json!({"kind": "Device", "spec": {"on": true, "values": {"0": false, "1": 1.5},
                "channels": [{"name": "a", "format": "b"}, {"name": "c"}]}})
        );
        for (path, line) in
            [("kind", 1), ("spec.on", 3), ("spec.channels[0].format", 7), ("spec.channels[1].name", 8)]
        {
            assert_eq!(located.line(path), line, "{path}");
        }
        // A value that does not exist has the line of the one around it.
        assert_eq!(located.line("spec.channels[1].format"), 8);
    }

    #[test]
    fn errors_have_a_line_and_stay_on_one() {
        for text in ["a: 1\nb: [1, 2\nc: 3\n", "a: 1\n\tb: 2\n", "a: 1\na: 2\n", "a: *nobody\n", "x: .nan\n"]
        {
            let (line, message) = Located::parse(text).unwrap_err();
            assert!(
                line.is_some() && !message.contains('\n') && !message.is_empty(),
                "{text:?}: {line:?} {message}"
            );
        }
    }
}
