//! What is to be said in the status of each object. Pure: no I/O, and the time is handed in.

use flutecast_contract::name::{ChannelName, TenantName};
use flutecast_contract::subject;
use flutecast_crds::condition::{Condition, Time};
use flutecast_crds::{Device, DeviceStatus, PushFormat, PushFormatStatus, Tenant, TenantStatus};
use k8s_openapi::jiff::Timestamp;

use super::conditions::{Standing, conditions, is_ready, ours, ready};
use crate::controller::build::Built;
use crate::enrollment::policy::{Enrollment, Newcomers};
use crate::jetstream::task::{Report, TenantReport};
use crate::object::Key;
use crate::index::{Entry, Index, Tokens};
use crate::index::kind::{OurKind, OurStatus};
use crate::rollout::{Answer, Served};
use crate::controller::status::write_failures::{self, Unstored};
use crate::presence::Told;
use crate::presence::board::Board;
use crate::object::{Kind, ObjectRef};
use crate::finding::{Finding, Reason};

/// Everything that a judgement rests on.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The objects.
    pub index: &'a Index,
    /// What they turn into.
    pub built: &'a Built,
    /// How it stands with the streams.
    pub report: &'a Report,
    /// The tenants whose mapping could not be stored.
    pub unstored: &'a Unstored,
    /// What is known of the Devices' presence.
    pub presence: &'a Board,
    /// What the data plane's pods serve.
    pub served: &'a Served,
    /// The time.
    pub now: Timestamp,
}

/// What somebody wants to know before a judgement: the conditions that are on their way to the API server
/// already.
pub type Before<'a> = Option<&'a [Condition]>;

impl Judge<'_> {
    /// The status of a Tenant; none while it isn't settled.
    #[must_use]
    pub fn tenant(&self, key: &Key, entry: &Entry<Tenant>, before: Before<'_>) -> Option<TenantStatus> {
        let standing = self.unless_deleted(key, entry, self.standing_of_tenant(key, entry)?);
        let standing = self.until_template_deleted(key, entry, standing);
        let name = TenantName::new(&key.1).ok();
        let built = name.as_ref().and_then(|name| self.built.tenants.get(name));
        // Another namespace's Tenant of the same name isn't this one.
        let built = built.filter(|built| built.streams.owner.namespace == key.0);
        let devices = built.map(|built| built.shards.iter().map(|shard| shard.devices.len()).sum::<usize>());
        Some(TenantStatus {
            observed_generation: Some(entry.generation),
            conditions: self.conditions(&standing, entry, before),
            stream: built.map(|built| built.streams.stream.name.clone()),
            devices: devices.map(|devices| u32::try_from(devices).unwrap_or(u32::MAX)),
        })
    }

    /// The status of a Device; none while it isn't settled.
    #[must_use]
    pub fn device(&self, key: &Key, entry: &Entry<Device>, before: Before<'_>) -> Option<DeviceStatus> {
        let standing = self.until_deleted(key, entry, self.standing_of_device(key, entry)?);
        let presence = self.presence.told(key).unwrap_or_else(|| Told::by(&entry.status));
        let mut status = DeviceStatus {
            observed_generation: Some(entry.generation),
            conditions: self.conditions(&standing, entry, before),
            presence: Some(presence.presence),
            last_transition: presence.since.map(Time),
            ..DeviceStatus::default()
        };
        if let (Ok(device), Some(iot_id)) = (&entry.object, self.built.iot_ids.get(key))
            && let Ok(tenant) = TenantName::new(&device.spec.tenant)
        {
            let channels = device.spec.channels.iter();
            let channels: Vec<_> =
                channels.filter_map(|channel| ChannelName::new(&channel.name).ok()).collect();
            let subjects = channels.iter().map(|channel| subject::stored(&tenant, iot_id, channel));
            status.subjects = subjects.collect();
            let topics = channels.iter().map(|channel| subject::mqtt_topic(&tenant, iot_id, channel));
            status.mqtt_topics = topics.collect();
            status.iot_id = Some(iot_id.to_string());
        }
        Some(status)
    }

    /// The status of a PushFormat; none while it isn't settled.
    #[must_use]
    pub fn format(
        &self,
        key: &Key,
        entry: &Entry<PushFormat>,
        before: Before<'_>,
    ) -> Option<PushFormatStatus> {
        let findings = self.findings(key, entry)?;
        let standing = Standing::of(&findings).unwrap_or(Standing::Ready("it compiles"));
        let standing = self.unless_deleted(key, entry, standing);
        Some(PushFormatStatus {
            observed_generation: Some(entry.generation),
            conditions: self.conditions(&standing, entry, before),
            channels: Some(self.index.channels_of(key)),
        })
    }

    fn conditions<K: OurKind>(
        &self,
        standing: &Standing,
        entry: &Entry<K>,
        before: Before<'_>,
    ) -> Vec<Condition> {
        let before = before.unwrap_or(entry.status.conditions());
        conditions(standing, entry.generation, &ours(before), self.now)
    }

    /// What the first four steps found; none while the object wasn't built yet.
    fn findings<K: OurKind>(&self, key: &Key, entry: &Entry<K>) -> Option<Vec<Finding>> {
        if let Err(error) = &entry.object {
            let message = format!(
                "it can't be read: {error}. It was stored under other rules; bring the CustomResourceDefinitions and the operator to one version"
            );
            return Some(vec![Finding::new(Reason::InvalidObject, "", message)]);
        }
        let object = ObjectRef::new(K::KIND, &key.0, &key.1);
        Some(self.built.verdicts.get(&object)?.findings().to_vec())
    }

    fn standing_of_tenant(&self, key: &Key, entry: &Entry<Tenant>) -> Option<Standing> {
        let mut findings = self.findings(key, entry)?;
        let Some(name) = TenantName::new(&key.1).ok().filter(|_| entry.object.is_ok()) else {
            return Standing::of(&findings);
        };
        let Some(built) =
            self.built.tenants.get(&name).filter(|built| built.streams.owner.namespace == key.0)
        else {
            // It is refused, and the findings say why.
            return Standing::of(&findings);
        };
        self.add_secret(key, entry, &mut findings)?;
        let TenantReport { findings: reported, foreign: _, has_stream: _, applied } =
            self.report.get(&name)?;
        let is_away = reported.iter().any(|finding| finding.reason == Reason::BrokerAway);
        if !is_away && applied.as_ref() != Some(&built.streams) {
            return None;
        }
        findings.extend(reported.iter().cloned());
        findings.extend(self.unstored(&name)?);
        findings.extend(self.may_not_create(&key.0, &built.enrollment));
        // What pods lack may come of what is wrong above.
        if findings.is_empty() {
            findings.extend(self.served.tenant(&name, entry.status.conditions()));
        }
        Some(Standing::of(&findings).unwrap_or(Standing::Ready("its streams and its mapping are in place")))
    }

    /// Adds what is wrong with the Secret of tokens. Answers none while it was not looked for yet.
    fn add_secret(&self, key: &Key, entry: &Entry<Tenant>, findings: &mut Vec<Finding>) -> Option<()> {
        let Some(secret) = entry.object.as_ref().ok().and_then(|tenant| secret_of(&tenant.spec)) else {
            return Some(());
        };
        match self.index.tokens_of(&(key.0.clone(), secret.to_owned()))? {
            Tokens::Held(_) => {
                let object = ObjectRef::new(Kind::Secret, &key.0, secret);
                let outcome = self.built.verdicts.get(&object);
                let told = outcome.map(|outcome| outcome.findings()).unwrap_or_default();
                findings.extend(told.iter().map(|finding| Finding {
                    message: format!("{object}: {}", finding.message),
                    ..finding.clone()
                }));
            }
            Tokens::Missing => {}
            Tokens::Forbidden => {
                let message = format!(
                    "the operator may not read Secret {secret:?}; grant it: kubectl -n {} create role read-{secret} --verb=list,watch --resource=secrets \
                     --resource-name={secret}, and bind it to the operator's service account",
                    key.0
                );
                findings.retain(|finding| finding.reason != Reason::SecretMissing);
                findings.push(Finding::new(
                    Reason::SecretForbidden,
                    "spec.access.tokens.secretName",
                    message,
                ));
            }
        }
        Some(())
    }

    fn standing_of_device(&self, key: &Key, entry: &Entry<Device>) -> Option<Standing> {
        let mut findings = self.findings(key, entry)?;
        if let Ok(device) = &entry.object
            && findings.is_empty()
            && let Ok(name) = TenantName::new(&device.spec.tenant)
        {
            let TenantReport { findings: reported, foreign: _, has_stream, applied: _ } =
                self.report.get(&name)?;
            // What is wrong with the Tenant is the Device's concern as far as its messages have nowhere to
            // go.
            findings.extend(reported.iter().filter(|finding| !has_stream || away(finding)).cloned());
            if reported.iter().any(away) && was_ready(entry) {
                // Its stream is there, and what is in it stays. The Tenant says that nobody looks after it.
                findings.clear();
            }
            // The Tenant tells of what was stored before and can't be changed now.
            if !was_ready(entry) {
                findings.extend(self.unstored(&name)?);
            }
        }
        match Standing::of(&findings) {
            None => self.standing_of_served(key, entry),
            not_ready => not_ready,
        }
    }

    /// How it stands with a Device that nothing is wrong with, but that a pod may not serve yet. One that was
    /// Ready stays so.
    fn standing_of_served(&self, key: &Key, entry: &Entry<Device>) -> Option<Standing> {
        if was_ready(entry) {
            let said = ready(&entry.status.conditions).map(|ready| ready.message.as_str());
            return Some(Standing::Ready(Served::words(said.unwrap_or_default())));
        }
        match self.served.device(key) {
            Answer::Ready(words) => Some(Standing::Ready(words)),
            Answer::Wait => None,
            Answer::Late(text) => Standing::of(&[Finding::new(Reason::NotServed, "", &*text)]),
        }
    }

    /// What is to be said of a Tenant for whose devices the operator should create Devices.
    fn may_not_create(&self, namespace: &str, enrollment: &Enrollment) -> Option<Finding> {
        if enrollment.newcomers == Newcomers::Refused || !self.index.is_creation_forbidden(namespace) {
            return None;
        }
        let message = format!(
            "the operator may not create Devices in namespace {namespace}; grant it: kubectl -n {namespace} create role enrol-devices --verb=create \
             --resource=devices.flutecast.io, and bind it to the operator's service account; or write policy: Declared"
        );
        Some(Finding::new(Reason::EnrollmentUnavailable, "spec.enrollment.policy", message))
    }

    /// What is to be said of a mapping that is not stored, if it isn't; none: nothing yet.
    fn unstored(&self, tenant: &TenantName) -> Option<Option<Finding>> {
        match self.unstored.of(tenant) {
            None => Some(None),
            Some(write_failures::Told::Wait) => None,
            Some(write_failures::Told::Words(error)) => {
                let message = format!("the mapping can't be stored: {error}; tried again until it works");
                Some(Some(Finding::new(Reason::MappingRefused, "", message)))
            }
        }
    }
}

/// The Secret that a Tenant names.
pub(crate) fn secret_of(tenant: &flutecast_crds::TenantSpec) -> Option<&str> {
    Some(&tenant.access.as_ref()?.tokens.as_ref()?.secret_name)
}

fn away(finding: &Finding) -> bool {
    finding.reason == Reason::BrokerAway
}

fn was_ready(entry: &Entry<Device>) -> bool {
    is_ready(&entry.status.conditions, entry.generation)
}
