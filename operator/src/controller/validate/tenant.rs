//! Validates a Tenant.

use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, DeviceCode, SourceName, TenantName};
use flutecast_crds::{
    AccessSpec, IdKind, Quota, RestrictedToken, Retention, SourceId, SourceSpec, TenantSpec, TokensSpec,
};

use super::enrollment::{self, ValidEnrollment};
use super::{Checked, Validated, name};
use crate::finding::{Finding, Reason};
use crate::jetstream::subject_pattern::SubjectPattern;
use crate::object::{Meta, Object};

/// The shortest retention. NATS accepts no shorter duplicate window, which may not be longer than the
/// retention.
const SHORTEST_AGE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidTenant {
    pub(crate) meta: Arc<Meta>,
    pub(crate) name: TenantName,
    pub(crate) display_name: String,
    pub(crate) retention: Retention,
    /// Its sources that can be used, in the order of the spec.
    pub(crate) sources: Vec<ValidSource>,
    /// `None` if no client may read.
    pub(crate) access: Option<ValidAccess>,
    pub(crate) enrollment: ValidEnrollment,
    pub(crate) max_devices: Option<u32>,
    /// The most clients of each pod.
    pub(crate) max_clients: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidSource {
    /// Its path in the Tenant.
    pub(crate) field: String,
    pub(crate) name: SourceName,
    pub(crate) subject: SubjectPattern,
    pub(crate) channel: ChannelName,
    pub(crate) id: SourceIdPlace,
}

/// The place in a source's messages that names their device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SourceIdPlace {
    /// The `*` of the subject with this number, from 1.
    Subject { wildcard: usize },
    Payload {
        /// A JSON pointer within the item.
        pointer: String,
        kind: IdKind,
        /// A JSON pointer to the items; `None` if the message is one item.
        items: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ValidAccess {
    pub(crate) anonymous: bool,
    pub(crate) secret: Option<String>,
    /// The tokens that give access to some devices only, by name.
    pub(crate) restricted: Vec<(String, Vec<DeviceCode>)>,
    /// The web origins whose pages may read.
    pub(crate) allowed_origins: Vec<String>,
}

/// Validates a Tenant. A source that can't be used is left out; everything else has to be valid.
pub(crate) fn validate(tenant: &Object<TenantSpec>) -> Validated<ValidTenant> {
    let TenantSpec { display_name, retention, sources, access, enrollment, quota } = &tenant.spec;
    let Quota { max_devices, max_clients } = quota.clone().unwrap_or_default();
    let mut fatal = Vec::new();
    let name =
        name("metadata.name", TenantName::new(&tenant.meta.name)).map_err(|finding| fatal.push(finding)).ok();
    fatal.extend(check_retention(retention));
    let access = match access.as_ref().map(validate_access).transpose() {
        Ok(access) => access,
        Err(findings) => {
            fatal.extend(findings);
            None
        }
    };
    let Some(name) = name.filter(|_| fatal.is_empty()) else { return Err(fatal) };
    let (sources, mut findings) = validate_sources(sources);
    let (enrollment, more) = enrollment::validate(enrollment.as_ref());
    findings.extend(more);
    let value = ValidTenant {
        meta: tenant.meta.clone(),
        name,
        display_name: display_name.clone().unwrap_or_default(),
        retention: retention.clone(),
        sources,
        access,
        enrollment,
        max_devices,
        max_clients,
    };
    Ok(Checked { value, findings })
}

fn check_retention(retention: &Retention) -> Option<Finding> {
    let Retention {
        max_age,
        max_messages_per_subject: _,
        max_bytes: _,
        storage: _,
        replicas: _,
        on_delete: _,
    } = retention;
    (Duration::from(*max_age) < SHORTEST_AGE).then(|| {
        let message = format!("{max_age} is too short; write 1s at least, or a client can never resume");
        Finding::new(Reason::InvalidObject, "spec.retention.maxAge", message)
    })
}

fn validate_sources(sources: &[SourceSpec]) -> (Vec<ValidSource>, Vec<Finding>) {
    let mut valid: Vec<ValidSource> = Vec::new();
    let mut findings = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let field = format!("spec.sources[{index}]");
        match validate_source(&field, source) {
            Ok(source) if valid.iter().any(|other| other.name == source.name) => {
                let message = format!(
                    "the name {:?} is taken by a source before it; give it another",
                    source.name.as_str()
                );
                findings.push(Finding::new(Reason::SourceInvalid, format!("{field}.name"), message));
            }
            Ok(source) => valid.push(source),
            Err(finding) => findings.push(finding),
        }
    }
    (valid, findings)
}

fn validate_source(field: &str, source: &SourceSpec) -> Result<ValidSource, Finding> {
    let source_name = name(&format!("{field}.name"), SourceName::new(&source.name))?;
    let channel = name(&format!("{field}.channel"), ChannelName::new(&source.channel))?;
    let subject =
        SubjectPattern::new(&source.subject).map_err(|error| invalid_source(field, "subject", error))?;
    let id = validate_source_id(field, source, &subject)?;
    Ok(ValidSource { field: field.to_owned(), name: source_name, subject, channel, id })
}

fn invalid_source(field: &str, part: &str, message: impl Into<String>) -> Finding {
    Finding::new(Reason::SourceInvalid, format!("{field}.{part}"), message)
}

fn validate_source_id(
    field: &str,
    source: &SourceSpec,
    subject: &SubjectPattern,
) -> Result<SourceIdPlace, Finding> {
    let SourceSpec { items, iot_id: SourceId { subject_token, pointer, kind }, .. } = source;
    let invalid = |part: &str, message: &str| Err(invalid_source(field, part, message));
    match (subject_token, pointer) {
        (Some(_), None) if items.is_some() => {
            invalid("items", "goes with iotId.pointer only: with subjectToken the payload is not read")
        }
        (Some(_), None) if *kind == Some(IdKind::DeviceCode) => invalid(
            "iotId.kind",
            "DeviceCode goes with iotId.pointer only: a code in the subject can't be translated",
        ),
        (Some(_), None) if subject.is_open() => invalid(
            "subject",
            &format!("\"{subject}\" ends in '>'; with subjectToken write one '*' for each token"),
        ),
        (Some(token), None) => {
            let wildcard = subject.wildcard_at(*token as usize).ok_or_else(|| {
                let found =
                    subject.token(*token as usize).map_or("nothing".to_owned(), |found| format!("{found:?}"));
                let message = format!(
                    "token {token} of \"{subject}\" is {found}; it needs to be '*', where the id stands"
                );
                invalid_source(field, "iotId.subjectToken", message)
            })?;
            Ok(SourceIdPlace::Subject { wildcard })
        }
        (None, Some(pointer)) => {
            check_pointer(pointer).map_err(|error| invalid_source(field, "iotId.pointer", error))?;
            if let Some(items) = items {
                check_pointer(items).map_err(|error| invalid_source(field, "items", error))?;
            }
            let kind = kind.unwrap_or_default();
            Ok(SourceIdPlace::Payload { pointer: pointer.clone(), kind, items: items.clone() })
        }
        (Some(_), Some(_)) | (None, None) => invalid(
            "iotId",
            "needs either subjectToken (the id stands in the subject) or pointer (in the payload)",
        ),
    }
}

/// RFC 6901: empty, or parts that each begin with `/`, in which `~` is followed by 0 or 1.
fn check_pointer(pointer: &str) -> Result<(), String> {
    let escapes_are_right = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if (pointer.is_empty() || pointer.starts_with('/')) && escapes_are_right {
        Ok(())
    } else {
        Err(format!(
            "{pointer:?} is not a JSON pointer; it begins with '/', as in /deviceId, and '~' is written ~0"
        ))
    }
}

fn validate_access(access: &AccessSpec) -> Result<ValidAccess, Vec<Finding>> {
    let AccessSpec { anonymous, tokens, allowed_origins } = access;
    let mut findings = Vec::new();
    let mut restricted = Vec::new();
    let TokensSpec { secret_name, restricted: wanted } = tokens.clone().unwrap_or_default();
    for (index, RestrictedToken { name: token, devices }) in wanted.into_iter().enumerate() {
        let mut codes = Vec::new();
        for (place, code) in devices.iter().enumerate() {
            let field = format!("spec.access.tokens.restricted[{index}].devices[{place}]");
            match name(&field, DeviceCode::new(code)) {
                Ok(code) => codes.push(code),
                Err(finding) => findings.push(finding),
            }
        }
        restricted.push((token, codes));
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let secret = tokens.is_some().then_some(secret_name);
    Ok(ValidAccess { anonymous: *anonymous, secret, restricted, allowed_origins: allowed_origins.clone() })
}
