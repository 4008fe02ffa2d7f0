//! Validates how a Tenant's devices enroll.

use flutecast_crds::{DeviceTemplate, EnrollmentPolicy, EnrollmentSpec};

use super::device::{ValidChannel, validate_channels};
use crate::enrollment::policy::{CodePattern, Template};
use crate::finding::{Finding, Reason};
use crate::kubernetes_names::is_label_key;

/// The policy for device codes that no Device has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum ValidEnrollment {
    #[default]
    Declared,
    /// A Device is created for it.
    Automatic(Template, Vec<ValidChannel>),
    /// A Device should be created for it, but the template can't be used.
    Broken,
}

/// Validates it. The rest of the Tenant is in force whatever the findings.
pub(crate) fn validate(enrollment: Option<&EnrollmentSpec>) -> (ValidEnrollment, Vec<Finding>) {
    let Some(EnrollmentSpec { policy: EnrollmentPolicy::Automatic, template, code_pattern }) = enrollment
    else {
        return (ValidEnrollment::Declared, Vec::new());
    };
    let mut findings = Vec::new();
    let mut wrong = |field: &str, message: String| {
        findings.push(Finding::new(Reason::InvalidObject, format!("spec.enrollment.{field}"), message));
    };
    let code_pattern = code_pattern.as_ref().and_then(|pattern| {
        let compiled = CodePattern::new(pattern);
        compiled
            .map_err(|error| {
                wrong(
                    "codePattern",
                    format!(
                        "{pattern:?} is not a regular expression: {error}; no Device is created until it is"
                    ),
                );
            })
            .ok()
    });
    let Some(DeviceTemplate { labels, channels }) = template else {
        wrong("template", "is needed with policy Automatic".to_owned());
        return (ValidEnrollment::Broken, findings);
    };
    for key in labels.keys().filter(|key| !is_label_key(key)) {
        let message = format!(
            "{key:?} can't be a label; it needs 1 to 63 letters, digits, '-', '_' and '.', and may have a \
             DNS name and '/' before it; no Device is created until it is right"
        );
        wrong("template.labels", message);
    }
    let (valid, more) = validate_channels("spec.enrollment.template.channels", channels);
    findings.extend(more);
    if !findings.is_empty() {
        return (ValidEnrollment::Broken, findings);
    }
    let template = Template { labels: labels.clone(), channels: channels.clone(), code_pattern };
    (ValidEnrollment::Automatic(template, valid), findings)
}
