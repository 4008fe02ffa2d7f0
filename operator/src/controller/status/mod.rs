//! The fifth step: the one place that decides the status of an object.
//!
//! On an API server each object gets a [`Readiness`], from which [`conditions`] makes conditions. `None`
//! means that it is not settled: the status stays as it is. Rows are tried from above, the first that applies
//! decides.
//!
//! | Tenant: findings | report on its streams | mapping | pods | → |
//! | --- | --- | --- | --- | --- |
//! | not built yet, or tokens not read yet | | | | `None` |
//! | it is refused | | | | `NotReady`, the findings |
//! | any | none, or on other streams than are wanted, while NATS replies | | | `None` |
//! | any | any | not stored, perhaps for a moment | | `None` |
//! | these | and these | and the API server's error | | `NotReady`, all of them |
//! | none | none | stored | lag for long | `NotReady`: `NotServed` |
//! | none | none | stored | serve it | `Ready` |
//!
//! | Device: findings | was Ready | report on its tenant's streams | mapping | pods | → |
//! | --- | --- | --- | --- | --- | --- |
//! | not built yet | | | | | `None` |
//! | some | | | | | `NotReady`, the findings |
//! | none | | none | | | `None` |
//! | none | yes | NATS is away | | | `Ready` as before: its stream is there and keeps what is in it |
//! | none | yes | the stream exists | | | `Ready` as before; its Tenant says what is wrong |
//! | none | no | any | not stored, perhaps for a moment | | `None` |
//! | none | | there is no stream, with findings | | | `NotReady`, those of the report |
//! | none | no | NATS is away | | | `NotReady`: `BrokerAway` |
//! | none | no | the stream exists | not stored | | `NotReady`: `MappingRefused` |
//! | none | no | the stream exists | stored | not known | `None` |
//! | none | no | the stream exists | stored | don't serve it for long | `NotReady`: `NotServed` |
//! | none | no | the stream exists | stored | serve it | `Ready` |
//!
//! | Tenant or PushFormat that is being deleted | → |
//! | --- | --- |
//! | it is used | `NotReady`: `InUse`, and what else is wrong |
//! | it is not used | as above |
//!
//! | Device or Tenant that is `Ready`, and uses what is being deleted | → |
//! | --- | --- |
//! | it is being deleted itself | as above |
//! | it is not | `ReadyUntil`: `Terminating` |
//!
//! A PushFormat is `NotReady` with findings, and says which version is in force, else `Ready`. From a folder
//! there are [`outcomes`]: findings of validate, build, files and reports say that an object is refused or
//! degraded; a report that a stream is another's refuses its Tenant, and a PushFormat with a version in force
//! is degraded.

pub(crate) mod conditions;
pub(crate) mod write_failures;

use std::collections::BTreeMap;

use flutecast_crds::FormatVersion;
use k8s_openapi::jiff::Timestamp;

use self::conditions::Readiness;
use self::write_failures::WriteState;
use crate::controller::build::Built;
use crate::finding::{Finding, Outcome, Outcomes, Reason};
use crate::jetstream::reconciler::{StreamReports, TenantReport};
use crate::jetstream::streams::TenantStreams;
use crate::object::{Key, Kind, ObjectRef};
use crate::rollout::Confirmation;

pub(crate) struct TenantFacts<'a> {
    /// Those of validate and build, on the Tenant and its Secret of tokens.
    pub(crate) findings: Vec<Finding>,
    /// The streams that it wants; `None` if it is refused.
    pub(crate) streams: Option<&'a TenantStreams>,
    pub(crate) report: Option<&'a TenantReport>,
    pub(crate) mapping: WriteState<'a>,
    /// Devices should be created for it, and may not.
    pub(crate) creation_forbidden: Option<Finding>,
    /// The message about pods that lag for long.
    pub(crate) lagging_pods: Option<String>,
}

pub(crate) struct DeviceFacts<'a> {
    /// Those of validate and build.
    pub(crate) findings: Vec<Finding>,
    /// The message with which it is Ready for its generation, if it is.
    pub(crate) ready_before: Option<&'static str>,
    pub(crate) report: Option<&'a TenantReport>,
    pub(crate) mapping: WriteState<'a>,
    pub(crate) pods: Confirmation,
}

/// Decides about a Tenant whose tokens are known; `None` if it is not settled.
pub(crate) fn tenant(facts: TenantFacts<'_>) -> Option<Readiness> {
    let TenantFacts { mut findings, streams, report, mapping, creation_forbidden, lagging_pods } = facts;
    let Some(streams) = streams else { return Readiness::not_ready(&findings) };
    let report = report?;
    if !report.findings.iter().any(is_away) && report.applied.as_ref() != Some(streams) {
        return None;
    }
    findings.extend(report.findings.iter().cloned());
    findings.extend(mapping_finding(mapping).ok()?);
    findings.extend(creation_forbidden);
    // Pods may lag because of the rest.
    if findings.is_empty() {
        findings.extend(lagging_pods.map(|message| Finding::new(Reason::NotServed, "", message)));
    }
    Some(Readiness::of(&findings, "its streams and its mapping are in place"))
}

/// Decides about a Device; `None` if it is not settled.
pub(crate) fn device(facts: DeviceFacts<'_>) -> Option<Readiness> {
    let DeviceFacts { mut findings, ready_before, report, mapping, pods } = facts;
    if !findings.is_empty() {
        return Readiness::not_ready(&findings);
    }
    let TenantReport { findings: reported, has_stream, foreign: _, has_kept: _, applied: _ } = report?;
    match ready_before {
        // The Tenant says that its streams are not looked after.
        Some(message) if *has_stream || reported.iter().any(is_away) => {
            return Some(Readiness::Ready(message));
        }
        _ => findings.extend(reported.iter().filter(|finding| !has_stream || is_away(finding)).cloned()),
    }
    if ready_before.is_none() {
        findings.extend(mapping_finding(mapping).ok()?);
    }
    match (Readiness::not_ready(&findings), ready_before, pods) {
        (Some(not_ready), _, _) => Some(not_ready),
        (None, Some(message), _) | (None, None, Confirmation::Confirmed(message)) => {
            Some(Readiness::Ready(message))
        }
        (None, None, Confirmation::Pending) => None,
        (None, None, Confirmation::Late(message)) => {
            Readiness::not_ready(&[Finding::new(Reason::NotServed, "", &*message)])
        }
    }
}

/// Decides about a PushFormat; `in_force` is the version of it that is in force.
pub(crate) fn format(findings: &[Finding], in_force: Option<&FormatVersion>) -> Readiness {
    let mut readiness = Readiness::of(findings, "it compiles");
    if let (Readiness::NotReady { message, .. }, Some(version)) = (&mut readiness, in_force) {
        let since = version.since.as_ref().map(|since| since.0);
        *message = format!("{message}; {}", version_in_force(since));
    }
    readiness
}

/// Says which version of a PushFormat is in force, though it is not what the object says now.
fn version_in_force(since: Option<Timestamp>) -> String {
    match since {
        Some(since) => format!("the version of {since} is in force"),
        None => "the version before is in force".to_owned(),
    }
}

/// Decides about an object that is being deleted while it is used; `message` says by whom.
pub(crate) fn in_use(before: Readiness, mut message: String) -> Readiness {
    if let Readiness::NotReady { message: other, .. } = before {
        message = format!("{message}; {other}");
    }
    Readiness::NotReady { reason: Reason::InUse, message }
}

/// Decides about an object that uses others which are being deleted; `going` names them.
pub(crate) fn until_gone(before: Readiness, how: &str, going: &[String]) -> Readiness {
    if !matches!(before, Readiness::Ready(_)) || going.is_empty() {
        return before;
    }
    Readiness::ReadyUntil { reason: Reason::Terminating, message: format!("{how}: {}", going.join("; ")) }
}

/// Returns the outcomes of objects from a folder; `files` are those of reading it, `since` says from when the
/// versions of PushFormats are that are in force.
pub(crate) fn outcomes(
    built: &Built,
    files: &Outcomes,
    report: &StreamReports,
    since: &BTreeMap<Key, Timestamp>,
) -> Outcomes {
    let mut outcomes = built.outcomes.clone();
    for (object, outcome) in files.iter() {
        outcomes.accept(object);
        let note = if matches!(outcome, Outcome::Refused(_)) { Outcomes::refuse } else { Outcomes::degrade };
        outcome.findings().iter().for_each(|finding| note(&mut outcomes, object, finding.clone()));
    }
    for key in built.formats.0.keys() {
        let object = ObjectRef::new(Kind::PushFormat, &key.0, &key.1);
        let outcome = outcomes.get(&object).map(Outcome::findings).unwrap_or_default();
        let mut findings = outcome.to_vec();
        if let Some(last) = findings.last_mut() {
            last.message = format!("{}; {}", last.message, version_in_force(since.get(key).copied()));
            outcomes.set(object, Outcome::Degraded(findings));
        }
    }
    for (tenant, built) in &built.tenants {
        let Some(report) = report.get(tenant) else { continue };
        let owner = &built.streams.owner;
        let object = ObjectRef::new(Kind::Tenant, &owner.namespace, &owner.name);
        let note = if report.foreign { Outcomes::refuse } else { Outcomes::degrade };
        report.findings.iter().for_each(|finding| note(&mut outcomes, &object, finding.clone()));
    }
    outcomes
}

/// The readiness can't be decided at the moment.
struct Unsettled;

fn mapping_finding(mapping: WriteState<'_>) -> Result<Option<Finding>, Unsettled> {
    match mapping {
        WriteState::Stored => Ok(None),
        WriteState::Failing => Err(Unsettled),
        WriteState::Failed(error) => {
            let message = format!("the mapping can't be stored: {error}; tried again until it works");
            Ok(Some(Finding::new(Reason::MappingRefused, "", message)))
        }
    }
}

fn is_away(finding: &Finding) -> bool {
    finding.reason == Reason::BrokerAway
}

#[cfg(test)]
mod tests {
    use flutecast_contract::name::TenantName;

    use super::*;
    use crate::controller::build::build;
    use crate::controller::validate::validate;
    use crate::object::{Meta, Object, Objects};

    const READY: &str = "its streams and its mapping are in place";

    fn streams() -> TenantStreams {
        let meta = Meta {
            namespace: "default".to_owned(),
            name: "t".to_owned(),
            uid: None,
            created: 0,
            labels: Default::default(),
        };
        let tenant = Object { meta: meta.into(), spec: serde_json::from_str("{}").unwrap() };
        let objects = Objects { tenants: vec![tenant.into()], ..Objects::default() };
        build(validate(&objects), &objects).tenants[&TenantName::new("t").unwrap()].streams.clone()
    }

    fn finding(reason: Reason) -> Finding {
        Finding::new(reason, "", "")
    }

    /// The reason of a readiness, `Accepted` if it is Ready, `-` if it is not settled.
    fn reason(readiness: Option<Readiness>) -> String {
        match readiness {
            None => "-".to_owned(),
            Some(Readiness::Ready(_)) => "Accepted".to_owned(),
            Some(Readiness::ReadyUntil { reason, .. } | Readiness::NotReady { reason, .. }) => {
                reason.to_string()
            }
        }
    }

    fn report(has_stream: bool, findings: &[Reason], applied: Option<&TenantStreams>) -> TenantReport {
        let findings = findings.iter().map(|reason| finding(*reason)).collect();
        TenantReport { findings, has_stream, has_kept: true, foreign: false, applied: applied.cloned() }
    }

    #[test]
    fn each_row_of_the_table_for_tenants() {
        let wanted = streams();
        let other = TenantStreams { sources: Vec::new(), ..wanted.clone() };
        let other = TenantStreams {
            owner: crate::jetstream::streams::Owner { uid: Some("u".into()), ..other.owner.clone() },
            ..other
        };
        let applied = report(true, &[], Some(&wanted));
        let decide = |findings: &[Reason], streams, report, mapping, lagging_pods| {
            let findings = findings.iter().map(|reason| finding(*reason)).collect();
            let facts =
                TenantFacts { findings, streams, report, mapping, creation_forbidden: None, lagging_pods };
            reason(tenant(facts))
        };
        let (fine, stored) = (Some(&applied), WriteState::Stored);
        assert_eq!(decide(&[], Some(&wanted), fine, stored, None), "Accepted");
        assert_eq!(
            decide(&[Reason::TenantNameTaken], None, None, WriteState::Failing, None),
            "TenantNameTaken"
        );
        assert_eq!(decide(&[Reason::SecretMissing], Some(&wanted), None, stored, None), "-");
        assert_eq!(decide(&[], Some(&other), fine, stored, None), "-", "the report is about other streams");
        let away = report(true, &[Reason::BrokerAway], None);
        assert_eq!(decide(&[], Some(&wanted), Some(&away), stored, None), "BrokerAway");
        assert_eq!(decide(&[], Some(&wanted), fine, WriteState::Failing, None), "-");
        assert_eq!(
            decide(&[], Some(&wanted), fine, WriteState::Failed("no"), Some("late".to_owned())),
            "MappingRefused"
        );
        assert_eq!(decide(&[], Some(&wanted), fine, stored, Some("late".to_owned())), "NotServed");
    }

    #[test]
    fn each_row_of_the_table_for_devices() {
        let decide = |findings: &[Reason], ready_before, report, mapping, pods| {
            let findings = findings.iter().map(|reason| finding(*reason)).collect();
            reason(device(DeviceFacts { findings, ready_before, report, mapping, pods }))
        };
        let (before, stored) = (Some(READY), WriteState::Stored);
        let (served, pending) = (Confirmation::Confirmed(READY), Confirmation::Pending);
        let late = Confirmation::Late("late".into());
        let fine = report(true, &[], None);
        let fine = Some(&fine);
        assert_eq!(decide(&[Reason::FormatMissing], before, None, stored, served.clone()), "FormatMissing");
        assert_eq!(decide(&[], before, None, stored, served.clone()), "-");
        let away = report(false, &[Reason::BrokerAway], None);
        assert_eq!(decide(&[], before, Some(&away), stored, pending.clone()), "Accepted");
        assert_eq!(decide(&[], None, Some(&away), stored, served.clone()), "BrokerAway");
        let refused = report(false, &[Reason::StreamRefused], None);
        assert_eq!(decide(&[], before, Some(&refused), stored, served.clone()), "StreamRefused");
        let changed = report(true, &[Reason::StreamRefused], None);
        assert_eq!(decide(&[], None, Some(&changed), stored, served.clone()), "Accepted");
        assert_eq!(decide(&[], before, fine, WriteState::Failed("no"), late.clone()), "Accepted");
        assert_eq!(decide(&[], None, fine, WriteState::Failing, served.clone()), "-");
        assert_eq!(decide(&[], None, fine, WriteState::Failed("no"), served.clone()), "MappingRefused");
        assert_eq!(decide(&[], None, fine, stored, pending), "-");
        assert_eq!(decide(&[], None, fine, stored, late), "NotServed");
        assert_eq!(decide(&[], None, fine, stored, served), "Accepted");
    }

    #[test]
    fn deletions_change_readiness() {
        let wrong = Readiness::not_ready(&[Finding::new(Reason::FormatInvalid, "", "it is wrong")]).unwrap();
        let Readiness::NotReady { reason, message } = in_use(wrong.clone(), "Device d uses it".to_owned())
        else {
            panic!()
        };
        assert_eq!((reason, message.as_str()), (Reason::InUse, "Device d uses it; it is wrong"));
        let going = ["Tenant t is being deleted".to_owned()];
        assert_eq!(until_gone(wrong.clone(), "it is served", &going), wrong);
        assert_eq!(until_gone(Readiness::Ready(READY), "it is served", &[]), Readiness::Ready(READY));
        let until = until_gone(Readiness::Ready(READY), "it is served", &going);
        let message = "it is served: Tenant t is being deleted".to_owned();
        assert_eq!(until, Readiness::ReadyUntil { reason: Reason::Terminating, message });
    }
}
