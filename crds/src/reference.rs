//! Generates docs/api.md, the reference of the API, from the schemas.

use std::fmt::Write;

use serde_json::Value;

use crate::definition::CrdKind;

const INTRODUCTION: &str = "\
<!-- Written by `cargo run -p flutecast-crds --bin crdgen -- crds/yaml docs/api.md`;
change crds/src instead. -->

# The API: Tenant, Device, PushFormat

Group `flutecast.io`, version `v1alpha1`, all namespaced; `kubectl get flutecast` lists all three.
The objects of one namespace belong together: a Device names its Tenant and its PushFormats by name.
The same YAML works without Kubernetes, from a folder.
Examples with every field: [manifests/samples](../manifests/samples); a whole line:
[manifests/demo](../manifests/demo).

The schema below validates each object before it is stored.
What depends on other objects (a missing format, a device code that is taken) is reported in the conditions of
the object, and doesn't affect the others.

- A *duration* is whole hours, minutes, seconds and milliseconds, in this order: `200ms`, `10s`, `1h30m`.
- A *quantity* is a whole number of bytes with `Ki`, `Mi`, `Gi`, `Ti` (powers of 1024) or `k`, `M`, `G`, `T`
  (powers of 1000): `512Mi`.
- A *JSON pointer* (RFC 6901) is `/` before each name or index, with `~1` for `/` and `~0` for `~` in a name:
  `/d/speed`. The empty pointer, `\"\"`, refers to the whole document.
- *CEL* is the expression language of Kubernetes. Messages have a subset of it: operators, `? :`, `in` with a
  list, `has`, `size`, `int`, `double`, `string`, `bool`, `contains`, `startsWith`,
      `endsWith` and `math.` with
  `abs`, `ceil`, `floor`, `round`, `sign`, `sqrt`, `trunc`, `greatest`,
      `least`. Fields are `values.speed`; all
  numbers are doubles, so `values.total * 2` works.
- `[]` in the path of a field stands for each item of the list. A list with *unique* names is merged by them
  on server-side apply.
- A field is left out, not set to `null`. Unknown fields are refused in a folder and by `kubectl apply`.
";

const CONDITIONS: &str = "\
## Conditions

All three kinds have the conditions that `kubectl wait` and Argo CD understand (kstatus), each with a `reason`
(one word, for programs) and a `message` (for people, with the object and field to change).

| condition | meaning |
| --- | --- |
| `Ready` | `True`: the object is in force as its spec says; present from the first reconciliation on |
| `Reconciling` | `True` while the operator works on the object; absent otherwise |
| `Stalled` | `True` while the operator waits for a change by a user; absent otherwise |

`status.observedGeneration` is the generation of the spec that the status describes.
The status holds transitions, never telemetry.
";

/// Returns the page as Markdown; deterministic, byte for byte.
///
/// # Errors
/// Returns the same errors as [`CrdKind::definition`].
pub fn markdown() -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut page = INTRODUCTION.to_owned();
    for kind in CrdKind::ALL {
        section(&mut page, kind)?;
    }
    page.push('\n');
    page.push_str(CONDITIONS);
    Ok(page)
}

fn section(page: &mut String, kind: CrdKind) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let definition = serde_json::to_value(kind.definition()?)?;
    let names = &definition["spec"]["names"];
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    write!(page, "\n## {}\n\n{}", kind.as_str(), text(&schema["description"]))?;
    let (short, full) = (text(&names["shortNames"][0]), text(&definition["metadata"]["name"]));
    writeln!(page, " `kubectl get {short}` or `kubectl get {full}`.\n")?;
    fields(page, schema, "spec")?;
    rules(page, schema)?;
    writeln!(page, "\n### Status of {}\n", kind.as_str())?;
    fields(page, schema, "status")?;
    let columns = version["additionalPrinterColumns"].as_array();
    let columns: Vec<_> = columns.into_iter().flatten().map(|column| text(&column["name"])).collect();
    writeln!(page, "\n`kubectl get` shows {}; `Message` with `-o wide`.", columns.join(", "))?;
    Ok(())
}

/// Writes the table of the fields below `spec` or `status`.
fn fields(page: &mut String, schema: &Value, part: &str) -> std::fmt::Result {
    writeln!(
        page,
        "| field of `{part}` | type | default | bounds | meaning |\n| --- | --- | --- | --- | --- |"
    )?;
    rows(page, &schema["properties"][part], "")
}

fn rows(page: &mut String, object: &Value, prefix: &str) -> std::fmt::Result {
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        let required =
            object["required"].as_array().is_some_and(|required| required.contains(&name.as_str().into()));
        let default = match field.get("default") {
            _ if required => "**required**".to_owned(),
            Some(Value::Object(_)) => "its fields' defaults".to_owned(),
            Some(default) => format!("`{}`", plain(default)),
            None => String::new(),
        };
        let meaning = cell(text(&field["description"]));
        writeln!(
            page,
            "| `{path}` | {} | {default} | {} | {meaning} |",
            type_name(field),
            cell(&bounds(field))
        )?;
        // Conditions have a section of their own.
        if name != "conditions" {
            rows(page, field, &format!("{path}."))?;
            rows(page, &field["items"], &format!("{path}[]."))?;
        }
    }
    Ok(())
}

fn type_name(field: &Value) -> String {
    match (text(&field["type"]), field["pattern"].as_str()) {
        ("array", _) => format!("list of {}", type_name(&field["items"])),
        ("object", _) if field["additionalProperties"].is_object() => "map of strings".to_owned(),
        ("string", _) if field["enum"].is_array() => "word".to_owned(),
        ("string", _) if field["format"] == "date-time" => "time".to_owned(),
        ("string", Some(crate::duration::PATTERN)) => "duration".to_owned(),
        ("string", Some(crate::quantity::PATTERN)) => "quantity".to_owned(),
        ("string", Some(crate::pattern::JSON_POINTER)) => "JSON pointer".to_owned(),
        (other, _) => other.to_owned(),
    }
}

/// Returns the bounds of a value: all except the rules, which are listed below the table, and the patterns of
/// the types that the introduction explains.
fn bounds(field: &Value) -> String {
    let mut all = Vec::new();
    if let Some(words) = field["enum"].as_array() {
        all.push(words.iter().map(|word| format!("`{}`", plain(word))).collect::<Vec<_>>().join(", "));
    }
    let explained = ["duration", "quantity", "JSON pointer"].contains(&type_name(field).as_str());
    if let Some(pattern) = field["pattern"].as_str().filter(|_| !explained) {
        all.push(format!("`{pattern}`"));
    }
    if !explained {
        all.extend(range(field, "Length", "characters"));
    }
    all.extend(range(field, "Items", "items"));
    all.extend(range(field, "Properties", "entries"));
    all.extend(between(&field["minimum"], &field["maximum"], ""));
    match (field["x-kubernetes-list-type"].as_str(), field["x-kubernetes-list-map-keys"][0].as_str()) {
        (Some("map"), Some(key)) => all.push(format!("`{key}` unique")),
        (Some("set"), _) => all.push("unique".to_owned()),
        _ => {}
    }
    if field["items"]["type"] == "string" {
        all.extend(
            Some(bounds(&field["items"]))
                .filter(|bounds| !bounds.is_empty())
                .map(|bounds| format!("each: {bounds}")),
        );
    }
    all.join("; ")
}

fn range(field: &Value, what: &str, unit: &str) -> Option<String> {
    between(&field[format!("min{what}")], &field[format!("max{what}")], unit)
}

fn between(least: &Value, most: &Value, unit: &str) -> Option<String> {
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    match (least.as_f64(), most.as_f64()) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    }
}

/// Writes the messages of the rules, each with the path of its field.
fn rules(page: &mut String, schema: &Value) -> std::fmt::Result {
    writeln!(page, "\nRules:\n")?;
    rules_below(page, schema, "")
}

fn rules_below(page: &mut String, schema: &Value, path: &str) -> std::fmt::Result {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let at = format!("{path}{}", rule["fieldPath"].as_str().unwrap_or_default());
        let at = at.trim_start_matches('.');
        writeln!(page, "- `{}`: {}.", if at.is_empty() { "metadata" } else { at }, text(&rule["message"]))?;
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        rules_below(page, field, &format!("{path}.{name}"))?;
    }
    if schema["items"].is_object() {
        rules_below(page, &schema["items"], &format!("{path}[]"))?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Escapes `|`, which separates the columns of a table even in code.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
