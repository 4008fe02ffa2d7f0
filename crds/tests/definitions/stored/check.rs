//! Compares two CustomResourceDefinitions. Returns the changes by which an object that is stored under the
//! old one is refused, loses data, or changes its meaning under the new one.
//!
//! Changes that can't be proven harmless count as breaking, and so do changes of unknown keywords. Additions
//! are accepted: optional fields, enum values, wider bounds, and rules about fields that no stored object
//! has.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// A change that breaks stored objects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Break {
    /// The path: `Device v1alpha1 spec.channels[].name`.
    pub(crate) at: String,
    /// The change: `maxLength is 16 instead of 32`.
    pub(crate) what: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// Keywords that don't affect what is accepted.
const WORDS_FOR_PEOPLE: [&str; 5] = ["description", "title", "example", "externalDocs", "$schema"];
/// Keywords that must not change.
const FIXED: [&str; 13] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "uniqueItems",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "default",
];
/// Keywords that widen the schema when added, and narrow it when removed.
const FREEDOMS: [&str; 3] =
    ["nullable", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"];
/// Upper bounds: a lower one, or a new one, refuses what was accepted.
const UPPER: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// Lower bounds: a higher one, or a new one, refuses what was accepted.
const LOWER: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
/// Keywords that are compared in functions of their own.
const OWN: [&str; 9] = [
    "type",
    "enum",
    "pattern",
    "format",
    "required",
    "properties",
    "items",
    "additionalProperties",
    "x-kubernetes-validations",
];

/// Returns the changes from `old` to `new` that break stored objects, sorted.
pub(crate) fn breaks(old: &Value, new: &Value) -> Vec<Break> {
    let kind = old["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    let mut comparison = Comparison { at: kind, found: Vec::new() };
    comparison.definitions(&old["spec"], &new["spec"]);
    comparison.found.sort();
    comparison.found
}

struct Comparison {
    at: String,
    found: Vec<Break>,
}

impl Comparison {
    fn say(&mut self, what: impl Into<String>) {
        self.found.push(Break { at: self.at.clone(), what: what.into() });
    }

    fn below(&mut self, path: &str, compare: impl FnOnce(&mut Self)) {
        let above = self.at.clone();
        self.at.push_str(path);
        compare(self);
        self.at = above;
    }

    fn definitions(&mut self, old: &Value, new: &Value) {
        for field in [
            "/group",
            "/scope",
            "/names/kind",
            "/names/plural",
            "/names/singular",
            "/names/listKind",
            "/conversion",
        ] {
            let (old, new) = (old.pointer(field), new.pointer(field));
            if old != new {
                self.say(format!("{} is {} instead of {}", &field[1..], text(new), text(old)));
            }
        }
        for list in ["shortNames", "categories"] {
            for gone in words(&old["names"][list]).difference(&words(&new["names"][list])) {
                self.say(format!("names.{list} has no {gone} any more"));
            }
        }
        for old in array(&old["versions"]) {
            let name = old["name"].as_str().unwrap_or_default();
            let new = array(&new["versions"]).find(|new| new["name"] == name);
            self.below(&format!(" {name}"), |this| match new {
                None => this.say("the version is removed"),
                Some(new) => this.version(old, new),
            });
        }
    }

    fn version(&mut self, old: &Value, new: &Value) {
        for flag in ["served", "storage"] {
            if old[flag] == true && new[flag] != true {
                self.say(format!("{flag} is no longer true"));
            }
        }
        for subresource in ["status", "scale"] {
            let (old, new) = (&old["subresources"][subresource], &new["subresources"][subresource]);
            if !old.is_null() && old != new {
                self.say(format!("the subresource {subresource} is removed or changed"));
            }
        }
        let schema = "/schema/openAPIV3Schema";
        let (old, new) = (old.pointer(schema), new.pointer(schema));
        self.below(" ", |this| this.node(old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null)));
    }

    /// Compares two schemas of the same value.
    fn node(&mut self, old: &Value, new: &Value) {
        self.types(old, new);
        self.enums(old, new);
        self.bounds(old, new);
        for keyword in ["pattern", "format"] {
            let (old, new) = (&old[keyword], &new[keyword]);
            let is_wider = new.is_null()
                || (*old == "int32" && *new == "int64")
                || (*old == "float" && *new == "double");
            if old != new && !is_wider {
                self.say(format!("{keyword} is {new} instead of {}", text(Some(old))));
            }
        }
        for keyword in FIXED {
            if old.get(keyword) != new.get(keyword) {
                self.say(format!(
                    "{keyword} is {} instead of {}",
                    text(new.get(keyword)),
                    text(old.get(keyword))
                ));
            }
        }
        for keyword in FREEDOMS {
            if old[keyword] == true && new[keyword] != true {
                self.say(format!("{keyword} is no longer true"));
            }
        }
        self.required(old, new);
        self.rules(old, new);
        self.children(old, new);
        self.others(old, new);
    }

    fn types(&mut self, old: &Value, new: &Value) {
        let (old, new) = (&old["type"], &new["type"]);
        if old != new && !(*old == "integer" && *new == "number") {
            self.say(format!("type is {} instead of {}", text(Some(new)), text(Some(old))));
        }
    }

    fn enums(&mut self, old: &Value, new: &Value) {
        let Some(new) = new["enum"].as_array() else { return };
        let Some(old) = old["enum"].as_array() else {
            return self.say("enum is new: other values were taken");
        };
        for gone in old.iter().filter(|value| !new.contains(value)) {
            self.say(format!("enum has no {gone} any more"));
        }
    }

    fn bounds(&mut self, old: &Value, new: &Value) {
        for (keywords, is_narrower) in
            [(UPPER, (|old, new| new < old) as fn(f64, f64) -> bool), (LOWER, |old, new| new > old)]
        {
            for keyword in keywords {
                let Some(bound) = new[keyword].as_f64() else { continue };
                match old[keyword].as_f64() {
                    Some(before) if is_narrower(before, bound) => {
                        self.say(format!("{keyword} is {bound} instead of {before}"));
                    }
                    // A minimum length or number of 0 is the default.
                    None if !(keyword.starts_with("min") && keyword != "minimum" && bound == 0.0) => {
                        self.say(format!("{keyword} {bound} is new"));
                    }
                    _ => {}
                }
            }
        }
    }

    /// A field with a default may become required: the API server adds it to stored objects on reading.
    fn required(&mut self, old: &Value, new: &Value) {
        for field in words(&new["required"]).difference(&words(&old["required"])) {
            if new["properties"][*field].get("default").is_none() {
                self.say(format!("{field} is newly required"));
            }
        }
    }

    fn rules(&mut self, old: &Value, new: &Value) {
        let known: BTreeSet<&str> = rules(old).collect();
        for rule in rules(new).filter(|rule| !known.contains(rule)) {
            if !is_about_a_new_field(rule, old, new) {
                self.say(format!("the rule is new or changed: {rule}"));
            }
        }
    }

    fn children(&mut self, old: &Value, new: &Value) {
        for (name, schema) in old["properties"].as_object().into_iter().flatten() {
            let dot = if self.at.ends_with(' ') { "" } else { "." };
            self.below(&format!("{dot}{name}"), |this| match new["properties"].get(name) {
                Some(new) => this.node(schema, new),
                None => this.say("the field is removed: what is stored in it gets lost"),
            });
        }
        for (keyword, step) in [("items", "[]"), ("additionalProperties", ".*")] {
            match (old.get(keyword), new.get(keyword)) {
                (Some(old), Some(new)) => self.below(step, |this| this.node(old, new)),
                (None, None) => {}
                (old, new) => {
                    self.say(format!("{keyword} is {} instead of {}", text(new), text(old)));
                }
            }
        }
    }

    /// Reports changes of unknown keywords.
    fn others(&mut self, old: &Value, new: &Value) {
        let keywords = |schema: &Value| -> BTreeSet<String> {
            schema.as_object().into_iter().flatten().map(|(keyword, _)| keyword.clone()).collect()
        };
        for keyword in keywords(old).union(&keywords(new)) {
            let known = [&WORDS_FOR_PEOPLE[..], &FIXED, &FREEDOMS, &UPPER, &LOWER, &OWN];
            let is_known = known.iter().any(|list| list.contains(&keyword.as_str()));
            if !is_known && old.get(keyword) != new.get(keyword) {
                self.say(format!("{keyword}, which the comparison doesn't know, has changed"));
            }
        }
    }
}

/// Returns whether a rule is `!has(self.a.b) || …` for a field that is new and has no default. No stored
/// object has the field, so the rule is true for all of them.
fn is_about_a_new_field(rule: &str, old: &Value, new: &Value) -> bool {
    let path = rule.strip_prefix("!has(self.").and_then(|rest| rest.split_once(") ||"));
    let Some((path, rest)) = path else { return false };
    // `a || b ? c : d` is `(a || b) ? c : d`.
    if rest.contains('?') || path.contains(['(', ')', '[', ' ']) {
        return false;
    }
    let (mut old, mut new) = (Some(old), Some(new));
    for field in path.split('.') {
        old = old.and_then(|schema| schema["properties"].get(field));
        new = new.and_then(|schema| schema["properties"].get(field));
        if old.is_none() {
            return new.is_some_and(|schema| schema.get("default").is_none());
        }
    }
    false
}

fn rules(schema: &Value) -> impl Iterator<Item = &str> {
    array(&schema["x-kubernetes-validations"]).filter_map(|rule| rule["rule"].as_str())
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn words(value: &Value) -> BTreeSet<&str> {
    array(value).filter_map(Value::as_str).collect()
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(value) => value.to_string(),
    }
}
