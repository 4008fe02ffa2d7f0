//! Validates a PushFormat: it has to compile.

use std::sync::Arc;

use flutecast_contract::document::{
    Codec, DeliveryDocument, DeliveryPolicy, FieldDocument, FieldType, FormatDocument, RecordDocument,
    TimestampDocument, TimestampUnit,
};
use flutecast_contract::name::FormatName;
use flutecast_crds as crds;
use flutecast_crds::{DeliverySpec, FieldSpec, PushFormatSpec, RecordSpec, TimestampSpec};
use flutecast_format::program::Program;

use super::{Checked, Validated, name};
use crate::finding::{Finding, Reason};
use crate::object::{Meta, Object};

/// A PushFormat that exists, whether or not it can be used.
#[derive(Debug, Default)]
pub(crate) struct CheckedFormat {
    /// `None` if it can't be read.
    pub(crate) meta: Option<Arc<Meta>>,
    /// The document that the data plane compiles; `None` if it doesn't compile.
    pub(crate) document: Option<FormatDocument>,
}

pub(crate) fn validate(format: &Object<PushFormatSpec>) -> Validated<FormatDocument> {
    name("metadata.name", FormatName::new(&format.meta.name)).map_err(|finding| vec![finding])?;
    let document = document(&format.spec);
    match Program::compile(&document) {
        Ok(_) => Ok(Checked { value: document, findings: Vec::new() }),
        Err(errors) => Err(errors
            .into_iter()
            .map(|error| {
                let message = format!("{}; {}", error.problem, error.expected);
                Finding::new(Reason::FormatInvalid, format!("spec.{}", error.field), message)
            })
            .collect()),
    }
}

fn document(spec: &PushFormatSpec) -> FormatDocument {
    let PushFormatSpec { codec, timestamp, delivery, record, when, fields } = spec;
    let DeliverySpec { policy, min_interval } = delivery;
    FormatDocument {
        codec: match codec {
            crds::Codec::Json => Codec::Json,
        },
        timestamp: timestamp.as_ref().map(timestamp_document),
        delivery: DeliveryDocument {
            policy: match policy {
                crds::DeliveryPolicy::Latest => DeliveryPolicy::Latest,
                crds::DeliveryPolicy::Every => DeliveryPolicy::Every,
            },
            min_interval_ms: min_interval.map(crds::Duration::as_millis),
        },
        record: record.as_ref().and_then(record_document),
        when: when.clone(),
        fields: fields.iter().map(field_document).collect(),
    }
}

fn timestamp_document(timestamp: &TimestampSpec) -> TimestampDocument {
    let TimestampSpec { pointer, unit, max_age, max_ahead } = timestamp;
    TimestampDocument {
        pointer: pointer.clone(),
        unit: match unit {
            crds::TimestampUnit::Seconds => TimestampUnit::Seconds,
            crds::TimestampUnit::Milliseconds => TimestampUnit::Milliseconds,
            crds::TimestampUnit::Microseconds => TimestampUnit::Microseconds,
            crds::TimestampUnit::Nanoseconds => TimestampUnit::Nanoseconds,
            crds::TimestampUnit::Rfc3339 => TimestampUnit::Rfc3339,
        },
        max_age_ms: max_age.map(crds::Duration::as_millis),
        max_ahead_ms: max_ahead.map(crds::Duration::as_millis),
    }
}

fn record_document(record: &RecordSpec) -> Option<RecordDocument> {
    let RecordSpec { merge, expire_fields } = record;
    merge.then(|| RecordDocument { expire_fields_ms: expire_fields.map(crds::Duration::as_millis) })
}

fn field_document(field: &FieldSpec) -> FieldDocument {
    let FieldSpec {
        name,
        pointer,
        expression,
        kind,
        scale,
        offset,
        decimals,
        unit,
        deadband,
        values,
        otherwise,
        on_change,
    } = field;
    FieldDocument {
        name: name.clone(),
        pointer: pointer.clone(),
        expression: expression.clone(),
        kind: kind.map(|kind| match kind {
            crds::FieldType::Number => FieldType::Number,
            crds::FieldType::String => FieldType::String,
            crds::FieldType::Bool => FieldType::Bool,
            crds::FieldType::Enum => FieldType::Enum,
        }),
        scale: *scale,
        offset: *offset,
        decimals: *decimals,
        unit: unit.clone(),
        deadband: *deadband,
        values: values.clone(),
        otherwise: otherwise.clone(),
        on_change: *on_change,
    }
}
