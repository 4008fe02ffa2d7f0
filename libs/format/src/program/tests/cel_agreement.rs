//! Compares the results of expressions with those of the interpreter of the crate `cel`.

use std::borrow::Cow;
use std::collections::HashMap;

use cel::{Context, Value};
use proptest::prelude::*;

use super::super::expression::{Expression, Operand, Values};

const FIELDS: [&str; 6] = ["a", "b", "s", "t", "p", "missing"];

/// Two numbers, two strings, a boolean, and a field that the message doesn't have.
struct FieldValues {
    numbers: [f64; 2],
    texts: [String; 2],
    bool: bool,
}

impl Values for FieldValues {
    fn has(&self, field: usize) -> bool {
        self.value(field).is_some()
    }

    fn value(&self, field: usize) -> Option<Operand<'_>> {
        Some(match field {
            0 | 1 => Operand::Number(self.numbers[field]),
            2 | 3 => Operand::Text(Cow::Borrowed(&self.texts[field - 2])),
            4 => Operand::Bool(self.bool),
            _ => return None,
        })
    }
}

/// Expressions in which numbers are written as doubles, so that strict CEL accepts them.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(&FIELDS[..]).prop_map(|field| format!("values.{field}")),
        prop::sample::select(
            &["0.0", "1.0", "2.5", "-3.0", "1e300", "'x'", "''", "'é'", "true", "false", "null"][..]
        )
        .prop_map(str::to_owned),
        prop::sample::select(&FIELDS[..]).prop_map(|field| format!("has(values.{field})")),
    ];
    let binary =
        prop::sample::select(&["+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">=", "&&", "||"][..]);
    // Without `string`: Flutecast writes 1e300 and 0 where CEL writes 301 digits and -0.
    let function = prop::sample::select(&["double", "bool"][..]);
    let method = prop::sample::select(&["contains", "startsWith", "endsWith"][..]);
    leaf.prop_recursive(4, 24, 3, move |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            4 => (binary.clone(), two.clone())
                .prop_map(|(operator, (left, right))| format!("({left} {operator} {right})")),
            1 => inner.clone().prop_map(|operand| format!("!({operand})")),
            1 => inner.clone().prop_map(|operand| format!("-({operand})")),
            1 => (inner.clone(), two.clone())
                .prop_map(|(condition, (then, otherwise))| format!("({condition} ? {then} : {otherwise})")),
            1 => (inner.clone(), two.clone())
                .prop_map(|(item, (one, other))| format!("({item} in [{one}, {other}])")),
            1 => (function.clone(), inner.clone())
                .prop_map(|(function, operand)| format!("{function}({operand})")),
            1 => (method.clone(), two)
                .prop_map(|(method, (text, part))| format!("({text}).{method}({part})")),
            1 => inner.prop_map(|operand| format!("double(size({operand}))")),
        ]
    })
}

fn theirs(source: &str, message: &FieldValues) -> Option<Operand<'static>> {
    let mut context = Context::default();
    let values = HashMap::from([
        ("a", Value::Float(message.numbers[0])),
        ("b", Value::Float(message.numbers[1])),
        ("s", Value::from(message.texts[0].as_str())),
        ("t", Value::from(message.texts[1].as_str())),
        ("p", Value::Bool(message.bool)),
    ]);
    context.add_variable_from_value("values", values);
    match cel::Program::compile(source).unwrap().execute(&context).ok()? {
        Value::Null => Some(Operand::Null),
        Value::Bool(bool) => Some(Operand::Bool(bool)),
        Value::Float(number) => Some(Operand::Number(number)).filter(|_| number.is_finite()),
        Value::String(text) => Some(Operand::Text(Cow::Owned(text.to_string()))),
        other => panic!("{source} gives {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, ..ProptestConfig::default() })]

    #[test]
    fn expressions_have_the_results_of_cel(
        source in expression(),
        numbers in [
            prop::sample::select(&[0.0, 1.0, -1.0, 2.5, 1e300][..]),
            prop::sample::select(&[0.0, 3.0][..]),
        ],
        texts in ["[xyé1]{0,2}", "(true|false|1|0|2.5|x)"],
        bool in any::<bool>(),
    ) {
        let message = FieldValues { numbers, texts, bool };
        let compiled = Expression::compile(&source, &FIELDS);
        prop_assert!(compiled.is_ok(), "{}: {:?}", source, compiled.err());
        let compiled = compiled.unwrap();
        let ours = compiled.evaluate(&message).map(Operand::into_owned);
        prop_assert_eq!(ours, theirs(&source, &message), "{}", source);
    }
}
