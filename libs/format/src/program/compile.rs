//! Compiles a format document to a program, or to all its errors.

use std::sync::atomic::{AtomicU64, Ordering};

use super::expression::Expression;
use super::number::NumberRule;
use super::{
    Conversion, Field, FieldInfo, FieldSource, MAX_STRING, Program, PushTrigger, RawField, RecordRule,
    TimestampRule,
};
use crate::json::{Pointer, Pointers, escape};
use flutecast_contract::document::{
    Codec, DeliveryDocument, DeliveryPolicy, FieldDocument, FieldType, FormatDocument, RecordDocument,
    TimestampDocument,
};

/// The most fields of a format.
pub const MAX_FIELDS: usize = 256;

/// The most values of an Enum.
const MAX_ENUM_VALUES: usize = 1024;

/// Names that CEL doesn't accept in `values.<name>`.
const WORDS_OF_CEL: [&str; 4] = ["true", "false", "null", "in"];

/// An error in a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}; {expected}")]
pub struct CompileError {
    /// The path of the field in the format: `fields[1].pointer`.
    pub field: String,
    /// The problem with its value.
    pub problem: String,
    /// The correction, or the values that would be valid.
    pub expected: String,
}

impl Program {
    /// Compiles a format.
    ///
    /// # Errors
    /// All errors in the format, not only the first one.
    pub fn compile(format: &FormatDocument) -> Result<Self, Vec<CompileError>> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let FormatDocument { codec: Codec::Json, timestamp, delivery, record, when, fields } = format;
        let mut compiler = Compiler::default();
        let timestamp = timestamp.as_ref().and_then(|timestamp| compiler.timestamp(timestamp));
        let min_interval_ms = compiler.delivery(delivery);
        let record = record.as_ref().map(|record| compiler.record(record, delivery.policy));
        compiler.fields(fields);
        let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
        let when = when.as_ref().and_then(|when| compiler.expression("when".into(), when, &names));
        let Compiler { errors, pointers, fields, infos } = compiler;
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            pointers: Pointers::new(&pointers),
            timestamp,
            policy: delivery.policy,
            min_interval_ms,
            record,
            when,
            conditional: fields.iter().any(|field| field.trigger != PushTrigger::Always),
            fields,
            infos,
        })
    }
}

/// Collects the parts of a program, and the errors.
#[derive(Default)]
struct Compiler {
    errors: Vec<CompileError>,
    pointers: Vec<Pointer>,
    fields: Vec<Field>,
    infos: Vec<FieldInfo>,
}

impl Compiler {
    fn wrong(&mut self, field: String, problem: impl Into<String>, expected: impl Into<String>) {
        self.errors.push(CompileError { field, problem: problem.into(), expected: expected.into() });
    }

    fn timestamp(&mut self, timestamp: &TimestampDocument) -> Option<TimestampRule> {
        let TimestampDocument { pointer, unit, max_age_ms, max_ahead_ms } = timestamp;
        if *max_age_ms == Some(0) {
            let expected = "give a time such as 30s, or leave it out to take messages of any age";
            self.wrong("timestamp.maxAge".into(), "0 would drop every message", expected);
        }
        let place = pointer.as_str().into();
        let pointer = self.pointer("timestamp.pointer".into(), pointer)?;
        Some(TimestampRule {
            place,
            pointer,
            unit: *unit,
            max_age: max_age_ms.map(micros),
            max_ahead: max_ahead_ms.map(micros),
        })
    }

    fn delivery(&mut self, delivery: &DeliveryDocument) -> Option<u64> {
        let DeliveryDocument { policy, min_interval_ms } = delivery;
        if min_interval_ms.is_some() && *policy == DeliveryPolicy::Every {
            let expected =
                "with policy Every nothing is skipped; leave minInterval out, or use policy Latest";
            self.wrong("delivery.minInterval".into(), "stands with policy Every", expected);
        }
        *min_interval_ms
    }

    fn record(&mut self, record: &RecordDocument, policy: DeliveryPolicy) -> RecordRule {
        let RecordDocument { expire_fields_ms } = record;
        if policy == DeliveryPolicy::Every {
            let expected =
                "with policy Every each message stands for itself; leave record out, or use policy Latest";
            self.wrong("record".into(), "stands with policy Every", expected);
        }
        if *expire_fields_ms == Some(0) {
            let expected = "give a time such as 10m, or leave it out";
            self.wrong("record.expireFields".into(), "0 would leave no field in the record", expected);
        }
        RecordRule { expire: expire_fields_ms.map(micros) }
    }

    fn pointer(&mut self, field: String, text: &str) -> Option<usize> {
        match text.parse::<Pointer>() {
            Ok(pointer) => {
                self.pointers.push(pointer);
                Some(self.pointers.len() - 1)
            }
            Err(error) => {
                let expected = "write a JSON pointer (RFC 6901) such as /d/speed or /readings/0/value";
                self.wrong(field, error.to_string(), expected);
                None
            }
        }
    }

    fn expression(&mut self, field: String, source: &str, names: &[&str]) -> Option<Expression> {
        match Expression::compile(source, names) {
            Ok(expression) => Some(expression),
            Err(error) => {
                self.wrong(field, error.problem, error.expected);
                None
            }
        }
    }

    fn fields(&mut self, fields: &[FieldDocument]) {
        if fields.is_empty() {
            let expected = "list at least one field, such as {name: speed, pointer: /d/v, type: Number}";
            self.wrong("fields".into(), "is empty", expected);
        }
        if fields.len() > MAX_FIELDS {
            let problem = format!("has {} fields", fields.len());
            self.wrong(
                "fields".into(),
                problem,
                format!("a format has at most {MAX_FIELDS}; split it over channels"),
            );
            return;
        }
        for (at, field) in fields.iter().enumerate() {
            let before: Vec<&str> = fields[..at].iter().map(|field| field.name.as_str()).collect();
            self.name(at, &field.name, &before);
            self.field(at, field, &before);
        }
    }

    fn name(&mut self, at: usize, name: &str, before: &[&str]) {
        let path = format!("fields[{at}].name");
        let first = name.bytes().next().unwrap_or(b' ');
        let identifier = (first.is_ascii_alphabetic() || first == b'_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.len() <= 64;
        if !identifier {
            let problem = format!(
                "{:?} is not a name that expressions can use",
                name.chars().take(80).collect::<String>()
            );
            let expected = "use 1 to 64 letters, digits and '_', with no digit first, such as inkTemp";
            self.wrong(path, problem, expected);
        } else if WORDS_OF_CEL.contains(&name) {
            self.wrong(path, format!("{name:?} is a word of CEL"), "choose another name, such as is_in");
        } else if let Some(earlier) = before.iter().position(|earlier| *earlier == name) {
            let problem = format!("{name:?} is the name of fields[{earlier}] already");
            self.wrong(path, problem, "give each field a name of its own");
        }
    }

    fn field(&mut self, at: usize, field: &FieldDocument, before: &[&str]) {
        self.options(at, field);
        let Some(source) = self.source(at, field, before) else { return };
        let kind = field.kind.map_or("Computed", |kind| match kind {
            FieldType::Number => "Number",
            FieldType::String => "String",
            FieldType::Bool => "Bool",
            FieldType::Enum => "Enum",
        });
        let trigger = match field.deadband {
            Some(deadband) => PushTrigger::Deadband(deadband),
            None if field.on_change => PushTrigger::OnChange,
            None => PushTrigger::Always,
        };
        let FieldDocument { name, unit, decimals, .. } = field;
        let mut key = Vec::new();
        escape(name, &mut key);
        key.push(b':');
        self.fields.push(Field { key: key.into(), source, trigger });
        self.infos.push(FieldInfo { name: name.clone(), kind, unit: unit.clone(), decimals: *decimals });
    }

    fn source(&mut self, at: usize, field: &FieldDocument, before: &[&str]) -> Option<FieldSource> {
        let path = |part: &str| format!("fields[{at}].{part}");
        match (&field.pointer, &field.expression) {
            (Some(pointer), None) => {
                let place = pointer.as_str().into();
                let pointer = self.pointer(path("pointer"), pointer);
                if field.kind.is_none() {
                    let expected = "a field with a pointer has type Number, String, Bool or Enum";
                    self.wrong(path("type"), "is missing", expected);
                }
                let raw = pointer.zip(conversion(field));
                raw.map(|(pointer, conversion)| FieldSource::Raw(RawField { place, pointer, conversion }))
            }
            (None, Some(expression)) => {
                if let Some(kind) = field.kind {
                    let expected = "leave it out; the type of a computed field is that of its result";
                    self.wrong(path("type"), format!("{kind:?} stands with an expression"), expected);
                }
                let expression = self.expression(path("expression"), expression, before);
                expression.map(|expression| FieldSource::Computed(expression, field.decimals))
            }
            (Some(_), Some(_)) => {
                let expected =
                    "a field has either a pointer (to the raw value) or an expression (over other fields)";
                self.wrong(path("expression"), "stands beside a pointer", expected);
                None
            }
            (None, None) => {
                let expected = "give the raw value's place, such as pointer: /d/speed, or an expression";
                self.wrong(path("pointer"), "is missing, and there is no expression either", expected);
                None
            }
        }
    }

    /// Checks the values of the options, and that they belong to the field's type.
    fn options(&mut self, at: usize, field: &FieldDocument) {
        let path = |part: &str| format!("fields[{at}].{part}");
        let kind = match field.kind {
            _ if field.expression.is_some() => "a computed field".to_owned(),
            Some(kind) => format!("type {kind:?}"),
            // The missing type is reported already.
            None => return,
        };
        self.misplaced_options(at, field, &kind);
        for (option, value) in [("scale", field.scale), ("offset", field.offset)] {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                self.wrong(
                    path(option),
                    format!("{value} is not a finite number"),
                    "write a number such as 0.1",
                );
            }
        }
        if field.scale == Some(0.0) {
            self.wrong(
                path("scale"),
                "0 makes every value 0",
                "write the factor, such as 0.1, or leave it out",
            );
        }
        if let Some(decimals) = field.decimals.filter(|decimals| *decimals > 9) {
            self.wrong(path("decimals"), format!("{decimals} is out of range"), "write 0 to 9");
        }
        if let Some(deadband) = field.deadband.filter(|deadband| !deadband.is_finite() || *deadband <= 0.0) {
            let expected = "write the smallest change that matters, such as 0.5, or leave it out";
            self.wrong(path("deadband"), format!("{deadband} is not a positive number"), expected);
        }
        if field.kind == Some(FieldType::Enum) {
            self.enum_values(path("values"), field);
            if field.otherwise.as_ref().is_some_and(|word| word.len() > MAX_STRING) {
                let problem = format!("the word is longer than {MAX_STRING} bytes");
                self.wrong(path("otherwise"), problem, "write a word that a screen can show");
            }
        }
    }

    /// Reports options that don't belong to the type of the field, which `kind` describes.
    fn misplaced_options(&mut self, at: usize, field: &FieldDocument, kind: &str) {
        // No `..`: a new option of a field can't be forgotten here.
        let FieldDocument {
            name: _,
            pointer: _,
            expression,
            kind: field_type,
            scale,
            offset,
            decimals,
            unit,
            deadband,
            values,
            otherwise,
            on_change: _,
        } = field;
        let number = *field_type == Some(FieldType::Number);
        let numeric = number || expression.is_some();
        let is_enum = *field_type == Some(FieldType::Enum);
        let misplaced = [
            ("scale", scale.is_some() && !number, "only type Number is scaled"),
            ("offset", offset.is_some() && !number, "only type Number has an offset"),
            ("decimals", decimals.is_some() && !numeric, "only numbers are rounded"),
            ("unit", unit.is_some() && !numeric, "only numbers have a unit"),
            ("deadband", deadband.is_some() && !numeric, "only numbers have one; use onChange: true"),
            ("values", !values.is_empty() && !is_enum, "only type Enum has values"),
            ("otherwise", otherwise.is_some() && !is_enum, "only type Enum has such a word"),
        ];
        for (option, _, expected) in misplaced.into_iter().filter(|(_, misplaced, _)| *misplaced) {
            self.wrong(
                format!("fields[{at}].{option}"),
                format!("does not belong to {kind}"),
                format!("leave it out; {expected}"),
            );
        }
    }

    fn enum_values(&mut self, path: String, field: &FieldDocument) {
        if field.values.is_empty() {
            let expected = "map raw values to words, such as {\"0\": stopped, \"1\": running}";
            self.wrong(path, "is empty", expected);
        } else if field.values.len() > MAX_ENUM_VALUES {
            let problem = format!("has {} values", field.values.len());
            self.wrong(
                path,
                problem,
                format!("an Enum has at most {MAX_ENUM_VALUES}; use type String or Number"),
            );
        } else if let Some((raw, _)) = field.values.iter().find(|(_, word)| word.len() > MAX_STRING) {
            let problem = format!("the word for {raw:?} is longer than {MAX_STRING} bytes");
            self.wrong(path, problem, "write a word that a screen can show");
        }
    }
}

fn micros(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1_000)
}

fn conversion(field: &FieldDocument) -> Option<Conversion> {
    Some(match field.kind? {
        FieldType::Number => Conversion::Number(NumberRule::new(field.scale, field.offset, field.decimals)),
        FieldType::String => Conversion::String,
        FieldType::Bool => Conversion::Bool,
        FieldType::Enum => {
            let words = field.values.iter().map(|(raw, word)| (raw.as_str().into(), word_json(word)));
            Conversion::Enum(words.collect(), field.otherwise.as_deref().map(word_json))
        }
    })
}

fn word_json(word: &str) -> Box<[u8]> {
    let mut json = Vec::new();
    escape(word, &mut json);
    json.into()
}
