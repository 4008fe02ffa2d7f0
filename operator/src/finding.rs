//! Findings: what is wrong with an object, and whether it is in force all the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::metrics::{ClosedSet, closed_set};
use crate::object::ObjectRef;

closed_set! {
    /// The conditions of an object as a label.
    pub(crate) enum ConditionLabel {
        Ready,
        /// It waits for another object.
        Reconciling,
        /// Somebody has to change something.
        Stalled,
        /// It has no conditions yet.
        Unsettled,
    }
}

closed_set! {
    /// Why an object is refused or degraded. A closed set: docs/verdicts.md lists it, and tests cover each.
    #[derive(PartialOrd, Ord, Serialize)]
    pub enum Reason {
        /// The text is not YAML, or can't be read.
        InvalidYaml,
        /// The object breaks its kind's schema.
        InvalidObject,
        /// The folder has two objects of the same kind, namespace and name.
        DuplicateObject,
        /// A name can't be used on the message side.
        InvalidName,
        /// Another Tenant of the same name, in another namespace, is older.
        TenantNameTaken,
        /// The tenant that a device names doesn't exist in its namespace.
        TenantMissing,
        /// The tenant that a device names is refused itself.
        TenantRefused,
        /// A format that a device, or a Tenant's template of devices, names doesn't exist in its namespace.
        FormatMissing,
        /// A format doesn't compile.
        FormatInvalid,
        /// A record needs more messages than its tenant's stream keeps.
        RecordOutlivesRetention,
        /// An older device of the tenant has this code.
        DuplicateDeviceCode,
        /// An older device of the tenant has this iotId.
        IotIdTaken,
        /// The tenant has no room for more devices.
        QuotaExceeded,
        /// One device is too large for a mapping shard.
        DeviceTooLarge,
        /// A Secret that a tenant names doesn't exist in its namespace.
        SecretMissing,
        /// A Secret that a tenant names may not be read by the operator.
        SecretForbidden,
        /// A Secret can't be used as it is.
        SecretInvalid,
        /// A token is too short to keep anybody out.
        TokenTooShort,
        /// A source can't be captured as it is written.
        SourceInvalid,
        /// A source's subject overlaps one that is claimed already.
        SourceConflict,
        /// A stream of this name belongs to another owner.
        StreamOwnedByOther,
        /// NATS refuses to make or to change a stream.
        StreamRefused,
        /// NATS can't be reached.
        BrokerAway,
        /// The API server refuses to store the mapping.
        MappingRefused,
        /// A ready data-plane pod doesn't serve what the mapping holds.
        NotServed,
        /// A Tenant wants Devices to be created, and the operator can't.
        EnrollmentUnavailable,
        /// A Tenant or a PushFormat is being deleted while it is used: by Devices, or by a Tenant's template
        /// of Devices.
        InUse,
        /// An object that a Device uses or a Tenant's template names is being deleted.
        Terminating,
    }
}

impl Reason {
    pub const ALL: &[Self] = <Self as ClosedSet>::ALL;

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.to_string() == name)
    }

    /// Returns whether the object may come into force without a change of what exists: it waits for another
    /// object, or for a part of the system that is away. Everything else stays until somebody changes
    /// something.
    #[must_use]
    pub fn waits(self) -> bool {
        match self {
            Self::TenantMissing
            | Self::FormatMissing
            | Self::SecretMissing
            | Self::BrokerAway
            | Self::MappingRefused
            | Self::NotServed
            | Self::InUse
            | Self::Terminating => true,
            Self::InvalidYaml
            | Self::InvalidObject
            | Self::DuplicateObject
            | Self::InvalidName
            | Self::TenantNameTaken
            | Self::TenantRefused
            | Self::FormatInvalid
            | Self::RecordOutlivesRetention
            | Self::DuplicateDeviceCode
            | Self::IotIdTaken
            | Self::QuotaExceeded
            | Self::DeviceTooLarge
            | Self::SecretForbidden
            | Self::SecretInvalid
            | Self::TokenTooShort
            | Self::SourceInvalid
            | Self::SourceConflict
            | Self::StreamOwnedByOther
            | Self::StreamRefused
            | Self::EnrollmentUnavailable => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One problem of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) reason: Reason,
    /// A path such as `spec.channels[1].format`; empty for the object as a whole.
    pub(crate) field: String,
    /// The problem, with the value and the remedy. It never has a token.
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            write!(f, "{}: {}", self.reason, self.message)
        } else {
            write!(f, "{}: {}: {}", self.reason, self.field, self.message)
        }
    }
}

/// The extent to which an object is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it is in force.
    #[default]
    Accepted,
    /// Some of it is in force; the findings are on the rest.
    Degraded(Vec<Finding>),
    /// None of it is in force.
    Refused(Vec<Finding>),
}

impl Outcome {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Degraded(_) => "Degraded",
            Self::Refused(_) => "Refused",
        }
    }

    /// Returns the label that the object would have by its conditions.
    pub(crate) fn condition_label(&self) -> ConditionLabel {
        match self {
            Self::Accepted => ConditionLabel::Ready,
            Self::Degraded(findings) | Self::Refused(findings) => {
                let waits = findings.iter().all(|finding| finding.reason.waits());
                if waits { ConditionLabel::Reconciling } else { ConditionLabel::Stalled }
            }
        }
    }

    pub(crate) fn findings(&self) -> &[Finding] {
        match self {
            Self::Accepted => &[],
            Self::Degraded(findings) | Self::Refused(findings) => findings,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcomes(BTreeMap<ObjectRef, Outcome>);

impl Outcomes {
    /// Adds an object without findings.
    pub(crate) fn accept(&mut self, object: &ObjectRef) {
        self.0.entry(object.clone()).or_default();
    }

    /// Adds a finding on a part of an object. An object that is refused stays refused.
    pub(crate) fn degrade(&mut self, object: &ObjectRef, finding: Finding) {
        let outcome = self.0.entry(object.clone()).or_default();
        match outcome {
            Outcome::Accepted => *outcome = Outcome::Degraded(vec![finding]),
            Outcome::Degraded(findings) | Outcome::Refused(findings) => push_new(findings, finding),
        }
    }

    /// Adds a finding for which an object is not in force at all.
    pub(crate) fn refuse(&mut self, object: &ObjectRef, finding: Finding) {
        let outcome = self.0.entry(object.clone()).or_default();
        let mut findings = match std::mem::take(outcome) {
            Outcome::Accepted => Vec::new(),
            Outcome::Degraded(findings) | Outcome::Refused(findings) => findings,
        };
        push_new(&mut findings, finding);
        *outcome = Outcome::Refused(findings);
    }

    pub(crate) fn get(&self, object: &ObjectRef) -> Option<&Outcome> {
        self.0.get(object)
    }

    pub(crate) fn set(&mut self, object: ObjectRef, outcome: Outcome) {
        self.0.insert(object, outcome);
    }

    pub(crate) fn remove(&mut self, object: &ObjectRef) {
        self.0.remove(object);
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&ObjectRef) -> bool) {
        self.0.retain(|object, _| keep(object));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &Outcome)> {
        self.0.iter()
    }
}

fn push_new(findings: &mut Vec<Finding>, finding: Finding) {
    if !findings.contains(&finding) {
        findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    #[test]
    fn an_object_that_is_refused_stays_refused() {
        let mut outcomes = Outcomes::default();
        let object = ObjectRef::new(Kind::Device, "default", "d1");
        outcomes.accept(&object);
        assert_eq!(outcomes.get(&object), Some(&Outcome::Accepted));
        outcomes.degrade(&object, Finding::new(Reason::FormatMissing, "spec", "a"));
        outcomes.refuse(&object, Finding::new(Reason::QuotaExceeded, "", "b"));
        outcomes.degrade(&object, Finding::new(Reason::FormatMissing, "spec", "a"));
        outcomes.accept(&object);
        let outcome = outcomes.get(&object).unwrap();
        assert_eq!((outcome.word(), outcome.findings().len()), ("Refused", 2));
    }

    #[test]
    fn each_reason_is_documented() {
        let page = include_str!("../../docs/verdicts.md");
        for reason in Reason::ALL {
            assert!(page.contains(&format!("\n| `{reason}` |")), "{reason} is not in docs/verdicts.md");
        }
        assert_eq!(page.matches("\n| `").count(), Reason::ALL.len());
    }
}
