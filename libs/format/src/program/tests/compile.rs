use super::*;

/// Compiles a format and returns the errors as `field: problem; expected`.
fn errors(format: &str) -> Vec<String> {
    match compile(format) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

/// Asserts that there is exactly one error, which starts with `field: ` and contains each of `parts`.
fn one_error(format: &str, field: &str, parts: &[&str]) {
    let errors = errors(format);
    let [error] = errors.as_slice() else { panic!("{format}\nexpected one error, got {errors:#?}") };
    assert!(error.starts_with(&format!("{field}: ")), "{format}\n{error}");
    for part in parts {
        assert!(error.contains(part), "{format}\n{error}\nlacks {part:?}");
    }
}

fn one_field_error(field: &str, path: &str, parts: &[&str]) {
    one_error(
        &format!("{{codec: JSON, fields: [{{name: first, pointer: /first, type: Number}}, {field}]}}"),
        path,
        parts,
    );
}

/// A field, the path of its error, and parts of the message.
const FIELD_ERRORS: &[(&str, &str, &[&str])] = &[
    ("{name: x, pointer: d/v, type: Number}", "fields[1].pointer", &["\"d/v\"", "RFC 6901", "/d/speed"]),
    ("{name: x, pointer: /a~2, type: Number}", "fields[1].pointer", &["'~'"]),
    ("{name: x, pointer: /x}", "fields[1].type", &["is missing", "Number, String, Bool or Enum"]),
    ("{name: x, type: Number}", "fields[1].pointer", &["is missing", "or an expression"]),
    ("{name: x, pointer: /x, expression: '1', type: Number}", "fields[1].expression", &["beside a pointer"]),
    ("{name: x, expression: values.first, type: Number}", "fields[1].type", &["Number", "leave it out"]),
    (
        "{name: x, pointer: /x, type: String, scale: 2}",
        "fields[1].scale",
        &["type String", "only type Number"],
    ),
    ("{name: x, pointer: /x, type: Bool, offset: 2}", "fields[1].offset", &["type Bool"]),
    ("{name: x, pointer: /x, type: Enum, values: {a: b}, decimals: 2}", "fields[1].decimals", &["type Enum"]),
    ("{name: x, pointer: /x, type: String, unit: m}", "fields[1].unit", &["type String"]),
    ("{name: x, pointer: /x, type: Bool, deadband: 1}", "fields[1].deadband", &["type Bool", "onChange"]),
    (
        "{name: x, pointer: /x, type: Number, values: {a: b}}",
        "fields[1].values",
        &["type Number", "type Enum"],
    ),
    ("{name: x, expression: values.first, scale: 2}", "fields[1].scale", &["computed"]),
    ("{name: x, pointer: /x, type: Enum}", "fields[1].values", &["is empty", "running"]),
    ("{name: x, pointer: /x, type: Number, decimals: 10}", "fields[1].decimals", &["10", "0 to 9"]),
    ("{name: x, pointer: /x, type: Number, scale: .nan}", "fields[1].scale", &["NaN", "finite"]),
    ("{name: x, pointer: /x, type: Number, scale: 0}", "fields[1].scale", &["0", "0.1"]),
    ("{name: x, pointer: /x, type: Number, offset: -.inf}", "fields[1].offset", &["-inf", "finite"]),
    ("{name: x, pointer: /x, type: Number, deadband: 0}", "fields[1].deadband", &["0", "positive"]),
    ("{name: x, pointer: /x, type: Number, deadband: .inf}", "fields[1].deadband", &["inf"]),
    ("{name: x, pointer: /x, type: Number, deadband: -0.5}", "fields[1].deadband", &["-0.5"]),
    ("{name: first, pointer: /x, type: Number}", "fields[1].name", &["\"first\"", "fields[0]"]),
    ("{name: '', pointer: /x, type: Number}", "fields[1].name", &["letters"]),
    ("{name: ink-temp, pointer: /x, type: Number}", "fields[1].name", &["\"ink-temp\"", "inkTemp"]),
    ("{name: 1x, pointer: /x, type: Number}", "fields[1].name", &["\"1x\""]),
    ("{name: in, pointer: /x, type: Number}", "fields[1].name", &["\"in\"", "CEL"]),
    ("{name: x, expression: ''}", "fields[1].expression", &["is empty", "values.good / values.total"]),
    ("{name: x, expression: 'values.first +'}", "fields[1].expression", &["can't be read as CEL", "column"]),
    ("{name: x, expression: values.second}", "fields[1].expression", &["values.second", "values.first"]),
    ("{name: x, expression: 'has(values.second)'}", "fields[1].expression", &["values.second"]),
    ("{name: x, expression: 'values[\"second\"]'}", "fields[1].expression", &["values.second"]),
    ("{name: x, expression: 'values[values.first]'}", "fields[1].expression", &["write the name"]),
    ("{name: x, expression: values.x}", "fields[1].expression", &["values.x", "can't see"]),
    ("{name: x, expression: first}", "fields[1].expression", &["\"first\"", "values.first"]),
    ("{name: x, expression: values}", "fields[1].expression", &["as a whole"]),
    ("{name: x, expression: size(values)}", "fields[1].expression", &["as a whole"]),
    ("{name: x, expression: values.first.second}", "fields[1].expression", &["\"second\""]),
    (
        "{name: x, expression: foo(values.first)}",
        "fields[1].expression",
        &["\"foo\"", "startsWith", "math.abs"],
    ),
    ("{name: x, expression: math.bitAnd(values.first)}", "fields[1].expression", &["\"math.bitAnd\""]),
    ("{name: x, expression: 'values.first.matches(\"a\")'}", "fields[1].expression", &["\"matches\""]),
    ("{name: x, expression: 'type(values.first)'}", "fields[1].expression", &["\"type\""]),
    ("{name: x, expression: '[1, 2].map(i, i * 2)'}", "fields[1].expression", &["lists"]),
    ("{name: x, expression: '[1, 2].all(i, i > 0)'}", "fields[1].expression", &["lists"]),
    ("{name: x, expression: '[1, 2]'}", "fields[1].expression", &["list", "after `in`"]),
    ("{name: x, expression: '{\"a\": 1}'}", "fields[1].expression", &["map"]),
    ("{name: x, expression: 'values.first in values.first'}", "fields[1].expression", &["`in`"]),
    ("{name: x, expression: 'b\"abc\"'}", "fields[1].expression", &["bytes"]),
    ("{name: x, expression: 'Point{x: 1}'}", "fields[1].expression", &["message"]),
];

#[test]
fn each_error_names_the_field_and_the_correction() {
    for (field, path, parts) in FIELD_ERRORS {
        one_field_error(field, path, parts);
    }
}

#[test]
fn errors_outside_of_fields_name_their_path() {
    let field = "{name: x, pointer: /x, type: Number}";
    for (format, path, parts) in [
        ("{codec: JSON, fields: []}".to_owned(), "fields", &["is empty", "pointer"][..]),
        (
            format!("{{codec: JSON, timestamp: {{pointer: ts, unit: Seconds}}, fields: [{field}]}}"),
            "timestamp.pointer",
            &["\"ts\"", "RFC 6901"],
        ),
        (
            format!(
                "{{codec: JSON, timestamp: {{pointer: /ts, unit: Seconds, maxAgeMs: 0}}, fields: [{field}]}}"
            ),
            "timestamp.maxAge",
            &["30s"],
        ),
        (
            format!("{{codec: JSON, delivery: {{policy: Every, minIntervalMs: 5}}, fields: [{field}]}}"),
            "delivery.minInterval",
            &["Every", "Latest"],
        ),
        (
            format!("{{codec: JSON, when: values.y > 0, fields: [{field}]}}"),
            "when",
            &["values.y", "values.x"],
        ),
        (format!("{{codec: JSON, when: '(', fields: [{field}]}}"), "when", &["can't be read as CEL"]),
    ] {
        one_error(&format, path, parts);
    }
    let many: Vec<String> =
        (0..257).map(|at| format!("{{name: f{at}, pointer: /x, type: Number}}")).collect();
    one_error(&format!("{{codec: JSON, fields: [{}]}}", many.join(",")), "fields", &["257", "256"]);
    let most = format!("{{codec: JSON, fields: [{}]}}", many[..256].join(","));
    assert_eq!(errors(&most), [""; 0]);
}

#[test]
fn all_errors_are_returned() {
    let format = "
codec: JSON
timestamp: {pointer: ts, unit: Seconds}
delivery: {policy: Every, minIntervalMs: 1}
when: values.nothing
fields:
  - {name: 'a b', pointer: x, type: String, scale: .nan}
  - {name: b, pointer: /b, type: Number, decimals: 12, deadband: 0}
  - {name: b}";
    let fields: Vec<String> = compile(format).unwrap_err().into_iter().map(|error| error.field).collect();
    assert_eq!(
        fields,
        [
            "timestamp.pointer",
            "delivery.minInterval",
            "fields[0].name",
            "fields[0].scale",
            "fields[0].scale",
            "fields[0].pointer",
            "fields[1].decimals",
            "fields[1].deadband",
            "fields[2].name",
            "fields[2].pointer",
            "when",
        ]
    );
}

#[test]
fn expressions_are_bounded() {
    let long = format!("values.first + {}", "1 + ".repeat(300));
    one_field_error(
        &format!("{{name: x, expression: '{long}1'}}"),
        "fields[1].expression",
        &["1216 bytes", "1024"],
    );
    for (terms, fits) in [(63, true), (64, false), (250, false)] {
        let chain = format!("{}1", "1 + ".repeat(terms));
        let errors = errors(&format!("{{codec: JSON, fields: [{{name: x, expression: '{chain}'}}]}}"));
        assert_eq!(errors.is_empty(), fits, "{terms}: {errors:?}");
        assert!(fits || errors[0].contains("more than 64 operations"), "{errors:?}");
    }
    for nested in [
        format!("{}1{}", "(".repeat(300), ")".repeat(300)),
        format!("{}1{}", "[".repeat(300), "]".repeat(300)),
        format!("{}1{}", "size(".repeat(100), ")".repeat(100)),
        "(".repeat(900),
        "true ? 1 : ".repeat(50) + "2",
    ] {
        one_field_error(
            &format!("{{name: x, expression: '{nested}'}}"),
            "fields[1].expression",
            &["nested deeper than 24"],
        );
    }
    for signs in ["!".repeat(1000) + "true", "-".repeat(1000) + "1"] {
        // It may compile or not, but must not overflow the stack.
        let _ = compile(&format!("{{codec: JSON, fields: [{{name: x, expression: '{signs}'}}]}}"));
    }
}
