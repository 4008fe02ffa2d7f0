//! The checks of an API server before it stores an object, for folders: the schema of the CRD with its
//! patterns, bounds and CEL rules. It is made from the API types, so that it can't differ from the CRDs.

use std::collections::{BTreeMap, BTreeSet};

use flutecast_crds::{duration, pattern, quantity};
use kube_cel::{CompiledSchema, Validator};
use regex::Regex;
use serde_json::Value;

use super::located::join;
use crate::finding::{Finding, Reason};

pub(crate) struct KindSchema {
    schema: Value,
    patterns: BTreeMap<String, Regex>,
    rules: CompiledSchema,
}

impl KindSchema {
    /// Compiles the `openAPIV3Schema` of a CRD.
    pub(crate) fn new(schema: Value) -> Self {
        let mut patterns = BTreeMap::new();
        collect_patterns(&schema, &mut patterns);
        let rules = kube_cel::compile_schema(&schema);
        Self { schema, patterns, rules }
    }

    pub(crate) fn check(&self, object: &Value) -> Vec<Finding> {
        let object = &without_nulls(object);
        let mut check = Check { patterns: &self.patterns, findings: Vec::new() };
        if let Some(spec) = self.schema["properties"].get("spec") {
            match object.get("spec") {
                Some(value) => check.value("spec", spec, value),
                None => check.wrong("spec", "is missing".to_owned()),
            }
        }
        if !check.findings.is_empty() {
            // The rules assume an object of the right shape.
            return check.findings;
        }
        match Validator::new().validate_compiled(&self.rules, object, None) {
            Ok(()) => Vec::new(),
            Err(errors) => errors
                .iter()
                .map(|error| {
                    Finding::new(Reason::InvalidObject, error.field_path.clone(), error.message.clone())
                })
                .collect(),
        }
    }
}

/// An API server treats a null field as one that is left out.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(entries) => Value::Object(
            entries
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

fn collect_patterns(schema: &Value, patterns: &mut BTreeMap<String, Regex>) {
    match schema {
        Value::Object(entries) => {
            if let Some(pattern) = entries.get("pattern").and_then(Value::as_str)
                && let Ok(regex) = Regex::new(pattern)
            {
                patterns.insert(pattern.to_owned(), regex);
            }
            entries.values().for_each(|value| collect_patterns(value, patterns));
        }
        Value::Array(items) => items.iter().for_each(|value| collect_patterns(value, patterns)),
        _ => {}
    }
}

struct Check<'a> {
    patterns: &'a BTreeMap<String, Regex>,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn wrong(&mut self, path: &str, message: String) {
        self.findings.push(Finding::new(Reason::InvalidObject, path, message));
    }

    fn value(&mut self, path: &str, schema: &Value, value: &Value) {
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().filter(|value| !value.is_null()).map(short).collect();
            return self.wrong(path, format!("{} is not one of {}", short(value), allowed.join(", ")));
        }
        match schema["type"].as_str() {
            Some("object") => self.object(path, schema, value),
            Some("array") => self.array(path, schema, value),
            Some("string") => self.string(path, schema, value),
            Some("integer") if !is_whole(value) => {
                self.wrong(path, format!("{} is not a whole number", short(value)))
            }
            Some("number") if !value.is_number() => {
                self.wrong(path, format!("{} is not a number", short(value)))
            }
            Some("integer" | "number") => self.bounds(path, schema, value),
            Some("boolean") if !value.is_boolean() => {
                self.wrong(path, format!("{} is not true or false", short(value)));
            }
            _ => {}
        }
    }

    fn object(&mut self, path: &str, schema: &Value, value: &Value) {
        let Some(entries) = value.as_object() else {
            return self.wrong(path, format!("{} is not a set of fields (name: value)", short(value)));
        };
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !entries.contains_key(name) {
                self.wrong(&join(path, name), "is missing".to_owned());
            }
        }
        self.count(path, schema, entries.len(), ("minProperties", "maxProperties"), "entries");
        let properties = schema["properties"].as_object();
        for (name, value) in entries {
            let path = join(path, name);
            if let Some(schema) = properties.and_then(|properties| properties.get(name)) {
                self.value(&path, schema, value);
            } else if schema["additionalProperties"].is_object() {
                self.value(&path, &schema["additionalProperties"], value);
            } else if let Some(properties) = properties
                && schema["x-kubernetes-preserve-unknown-fields"] != true
            {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                self.wrong(&path, format!("is not a field; there are {}", known.join(", ")));
            }
        }
    }

    fn array(&mut self, path: &str, schema: &Value, value: &Value) {
        let Some(items) = value.as_array() else {
            return self.wrong(path, format!("{} is not a list", short(value)));
        };
        self.count(path, schema, items.len(), ("minItems", "maxItems"), "items");
        for (index, item) in items.iter().enumerate() {
            self.value(&format!("{path}[{index}]"), &schema["items"], item);
        }
        let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
            Some("set") => Vec::new(),
            _ => return,
        };
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let identity: Vec<String> = if keys.is_empty() {
                vec![item.to_string()]
            } else {
                keys.iter().map(|key| item[*key].to_string()).collect()
            };
            let identity = identity.join(", ");
            if !seen.insert(identity.clone()) {
                self.wrong(
                    &format!("{path}[{index}]"),
                    format!("{identity} stands here twice; it must be unique in the list"),
                );
            }
        }
    }

    fn string(&mut self, path: &str, schema: &Value, value: &Value) {
        let Some(text) = value.as_str() else {
            return self.wrong(
                path,
                format!("{} is not a string; put it in quotes if it is meant as text", short(value)),
            );
        };
        self.count(path, schema, text.chars().count(), ("minLength", "maxLength"), "characters");
        if let Some(pattern) = schema["pattern"].as_str()
            && let Some(regex) = self.patterns.get(pattern)
            && !regex.is_match(text)
        {
            self.wrong(path, format!("{} is not right; it needs {}", short(value), in_words(pattern)));
        }
    }

    fn bounds(&mut self, path: &str, schema: &Value, value: &Value) {
        let number = value.as_f64().unwrap_or(f64::NAN);
        let exclusive = |key: &str| schema[key] == true;
        if let Some(least) = schema["minimum"].as_f64()
            && (number < least || exclusive("exclusiveMinimum") && number <= least)
        {
            self.wrong(path, format!("{value} is too small; it needs {least} at least"));
        }
        if let Some(most) = schema["maximum"].as_f64()
            && (number > most || exclusive("exclusiveMaximum") && number >= most)
        {
            self.wrong(path, format!("{value} is too large; it may be {most} at most"));
        }
    }

    fn count(&mut self, path: &str, schema: &Value, count: usize, (least, most): (&str, &str), what: &str) {
        if let Some(least) = schema[least].as_u64()
            && (count as u64) < least
        {
            self.wrong(path, format!("has {count} {what}; it needs {least} at least"));
        }
        if let Some(most) = schema[most].as_u64()
            && (count as u64) > most
        {
            self.wrong(path, format!("has {count} {what}; it may have {most} at most"));
        }
    }
}

/// Returns a pattern of the API in words.
fn in_words(pattern: &str) -> String {
    let words = match pattern {
        pattern::DNS_LABEL => {
            "lower-case letters, digits and '-', with a letter or digit at both ends (gw-line1)"
        }
        pattern::DNS_SUBDOMAIN => {
            "lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each part \
             (on-off)"
        }
        pattern::DEVICE_CODE => {
            "letters, digits, '.', '_', ':', '/' and '-', with a letter or digit first (CORR-01)"
        }
        pattern::IOT_ID => "letters, digits, '_' and '-'",
        pattern::CHANNEL => "lower-case letters, digits and '-', with a letter first (telemetry)",
        pattern::FIELD => "letters, digits and '_', with no digit first (speed)",
        pattern::SECRET_KEY => "letters, digits, '-', '_' and '.' (wall-1)",
        pattern::JSON_POINTER => "a JSON pointer: it begins with '/', as in /d/speed, and '~' is written ~0",
        pattern::SUBJECT => {
            "a NATS subject: words with single dots in between, '*' for one of them, '>' at the end \
             (plant.*.power)"
        }
        pattern::ORIGIN => "a web origin without a path (https://screens.acme.example), or *",
        duration::PATTERN => {
            "whole hours, minutes, seconds and milliseconds in this order (200ms, 10s, 1h30m)"
        }
        quantity::PATTERN => "a whole number of bytes, with Ki, Mi, Gi or Ti (512Mi)",
        other => return format!("to match {other}"),
    };
    words.to_owned()
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Returns a value for a message, shortened to fit in a line.
fn short(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = match value {
        Value::Object(_) => "{…}".to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST {
        text
    } else {
        format!("{}…", text.chars().take(LONGEST).collect::<String>())
    }
}
