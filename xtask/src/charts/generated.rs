//! Generates parts of the charts from other files of the repository: RBAC rules, protection policies and
//! CustomResourceDefinitions.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

/// The start of the comment in the first line of each generated file.
const NOTICE: &str = "Written by `make charts` from";

/// The page with the tables of chart values.
const VALUES_PAGE: &str = "docs/generated/chart-values.md";

/// The files of the CustomResourceDefinitions, in `crds/yaml` and in the templates of the CRD chart.
pub const KINDS: [&str; 3] = ["tenants.yaml", "devices.yaml", "pushformats.yaml"];

/// Returns the path in the repository and the expected content of each generated file of the charts.
///
/// # Errors
/// Returns an error if a source file is missing or has an unexpected form.
pub fn chart_files(root: &Path) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let mut files = vec![
        (PathBuf::from("charts/flutecast/templates/_rules.tpl"), rules(&read)?),
        (
            PathBuf::from("charts/flutecast/templates/protection.yaml"),
            protection(&read("manifests/operator/protection.yaml")?)?,
        ),
    ];
    let mut tables = Vec::new();
    for chart in ["flutecast", "flutecast-crds"] {
        let file = |name: &str| read(&format!("charts/{chart}/{name}"));
        let table = values_table(&file("values.yaml")?, &file("values.schema.json")?)?;
        tables.push(format!("\n## {chart}\n\n{table}"));
    }
    files.push((PathBuf::from(VALUES_PAGE), with_tables(&read(VALUES_PAGE)?, &tables.concat())?));
    for name in KINDS {
        let definition = read(&format!("crds/yaml/{name}"))?;
        files.push((Path::new("charts/flutecast-crds/templates").join(name), kind(name, &definition)?));
    }
    Ok(files)
}

/// Returns the RBAC rules as templates. The manifests have separate rules for the Tenants' namespaces and for
/// the operator's own namespace; a release has one namespace, which is both.
fn rules(read: &impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<String> {
    let mut text = format!("{{{{- /* {NOTICE} manifests/. */ -}}}}\n");
    let parts = [
        ("operator", "manifests/operator/rbac.yaml", "rules:\n"),
        ("finalizers", "manifests/operator/finalizers.yaml", ""),
        ("natsPasswords", "manifests/operator/nats-passwords.yaml", ""),
        ("cleanUp", "manifests/operator/clean-up.yaml", "rules:\n"),
        ("dataplane", "manifests/dataplane/rbac.yaml", "rules:\n"),
    ];
    for (name, path, head) in parts {
        let rules: String = read(path)?.split("\n---\n").filter_map(rules_of).collect();
        ensure!(!rules.is_empty(), "{path} has no rules");
        // The release's own Secret.
        let passwords = "{{ include \"flutecast.madeNatsPasswords\" . }}";
        let rules = rules.trim_end().replace("flutecast-nats-passwords", passwords);
        text.push_str(&format!(
            "{{{{- define \"flutecast.rules.{name}\" -}}}}\n{head}{{{{- /* {path} */}}}}\n{rules}\n{{{{- \
             end }}}}\n"
        ));
    }
    Ok(text)
}

/// Returns the lines below `rules:` of a Role or ClusterRole.
fn rules_of(document: &str) -> Option<String> {
    let (_, rules) = document.split_once("\nrules:\n")?;
    Some(rules.lines().take_while(|line| line.starts_with(' ')).map(|line| format!("{line}\n")).collect())
}

/// Returns the admission policies with names of the release, bound to its namespace.
fn protection(manifest: &str) -> anyhow::Result<String> {
    let name = "{{ include \"flutecast.clusterName\" . }}-in-use-";
    let labels = "  labels: {{- include \"flutecast.labels\" (dict \"root\" . \"component\" \"protection\") \
     | nindent 4 }}\n";
    let mut text = format!(
        "{{{{- /* {NOTICE} manifests/operator/protection.yaml. */ -}}}}\n{{{{- if eq .Values.protection \
         \"policy\" }}}}\n"
    );
    let (mut named, mut bound) = (0, 0);
    for line in manifest.lines() {
        text.push_str(&line.replace("flutecast-in-use-", name));
        text.push('\n');
        if line.starts_with("  name: flutecast-in-use-") {
            text.push_str(labels);
            named += 1;
        }
        if line.trim_start().starts_with("validationActions:") {
            text.push_str(
                "  matchResources:\n    namespaceSelector:\n      matchLabels: \
             {kubernetes.io/metadata.name: {{ .Release.Namespace }}}\n",
            );
            bound += 1;
        }
    }
    ensure!(named > 0 && named == 2 * bound, "{named} names and {bound} bindings in protection.yaml");
    text.push_str("{{- end }}\n");
    Ok(text)
}

/// Returns a CustomResourceDefinition as a template. It is not in a chart's folder `crds`, because Helm never
/// upgrades the content of that folder.
///
/// # Errors
/// Returns an error if the definition has an unexpected form.
pub(super) fn kind(file: &str, definition: &str) -> anyhow::Result<String> {
    // Descriptions may contain braces that Helm would interpret.
    let escaped = definition.replace("{{", "{{ \"{{\" }}");
    let (head, body) =
        escaped.split_once("\nmetadata:\n  name: ").with_context(|| format!("{file} has no metadata"))?;
    let (name, rest) = body.split_once('\n').context("a name")?;
    let head = head.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    Ok(format!(
        "{{{{- /* {NOTICE} crds/yaml/{file}. */ -}}}}\n{head}\nmetadata:\n  name: {name}\n  labels:\n    \
         app.kubernetes.io/part-of: flutecast\n    \
         app.kubernetes.io/version: {{{{ .Chart.AppVersion | quote }}}}\n    \
         app.kubernetes.io/managed-by: {{{{ .Release.Service }}}}\n  {{{{- if .Values.keep }}}}\n  \
         annotations:\n    \
         helm.sh/resource-policy: keep\n  {{{{- end }}}}\n{rest}"
    ))
}

/// Returns one line for each value: its path, its default, and its description in the schema.
fn values_table(values: &str, schema: &str) -> anyhow::Result<String> {
    let mut rows = Vec::new();
    let values: Value = serde_yaml::from_str(values)?;
    rows_below("", &values, &serde_json::from_str(schema)?, &mut rows);
    Ok(format!("| value | default | meaning |\n| --- | --- | --- |\n{}", rows.concat()))
}

fn rows_below(path: &str, value: &Value, schema: &Value, rows: &mut Vec<String>) {
    if let Some(meaning) = schema["description"].as_str() {
        // A bar would end the column.
        let choices = schema["enum"].as_array().map(|choices| {
            let words: Vec<_> =
                choices.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
            format!(" ({})", words.join(", "))
        });
        let meaning = format!("{meaning}{}", choices.unwrap_or_default()).replace('|', "\\|");
        rows.push(format!("| `{path}` | `{value}` | {meaning} |\n"));
        return;
    }
    let (Some(properties), Some(values)) = (schema["properties"].as_object(), value.as_object()) else {
        return;
    };
    for (name, schema) in properties {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some(value) = values.get(name) {
            rows_below(&below, value, schema, rows);
        }
    }
}

/// Returns the page with the tables inserted between its markers.
fn with_tables(page: &str, tables: &str) -> anyhow::Result<String> {
    let (begin, end) = ("<!-- values: written by `make charts` -->\n", "<!-- end of values -->");
    let (head, rest) =
        page.split_once(begin).with_context(|| format!("{VALUES_PAGE} has no place for the values"))?;
    let (_, tail) = rest.split_once(end).context("the place for the values has no end")?;
    Ok(format!("{head}{begin}{tables}\n{end}{tail}"))
}
