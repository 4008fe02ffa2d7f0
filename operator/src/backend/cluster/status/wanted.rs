//! The statuses that objects should have: the facts about each, put together from the index and what was
//! built, and what [`crate::controller::status`] decides from them. Pure; the time is passed in.

use flutecast_contract::name::{ChannelName, TenantName};
use flutecast_contract::subject;
use flutecast_crds::condition::{Condition, MESSAGES_UNDERSTOOD, Time};
use flutecast_crds::{
    Device, DeviceStatus, FormatVersion, PushFormat, PushFormatStatus, Tenant, TenantStatus,
};
use k8s_openapi::jiff::Timestamp;

use crate::backend::cluster::secret_of;
use crate::controller::Reconciled;
use crate::controller::build::BuiltTenant;
use crate::controller::status::conditions::{
    Readiness, Said, condition, conditions, is_ready, ours, ready, seconds,
};
use crate::controller::status::write_failures::WriteState;
use crate::controller::status::{self, DeviceFacts, TenantFacts};
use crate::enrollment::policy::{CreationPolicy, Enrollment};
use crate::finding::{Finding, Reason};
use crate::index::kind::{ApiKind, ApiStatus};
use crate::index::{Entry, Index, TokenSecret};
use crate::object::{Key, Kind, ObjectRef};
use crate::presence::{Observation, PresenceTable, Understanding};
use crate::rollout::{Rollout, message_before};

/// Everything that statuses are made from.
#[derive(Clone, Copy)]
pub(crate) struct WantedStatuses<'a> {
    pub(crate) index: &'a Index,
    pub(crate) reconciled: Reconciled<'a>,
    pub(crate) presence: &'a PresenceTable,
    pub(crate) rollout: &'a Rollout,
    pub(crate) now: Timestamp,
}

/// Each method returns `None` if the object is not settled. `before` is the status that it has, or that is on
/// its way to the API server.
impl<'a> WantedStatuses<'a> {
    pub(crate) fn tenant(
        &self,
        key: &Key,
        entry: &Entry<Tenant>,
        before: &TenantStatus,
    ) -> Option<TenantStatus> {
        let built = self.built(key);
        let readiness = status::tenant(self.tenant_facts(key, entry, built)?)?;
        let readiness = self.unless_deleted(key, entry, readiness);
        let readiness = self.until_template_deleted(key, entry, readiness);
        let devices = built.map(|built| built.shards.iter().map(|shard| shard.devices.len()).sum::<usize>());
        Some(TenantStatus {
            observed_generation: Some(entry.generation),
            conditions: self.conditions(&readiness, entry, before),
            stream: built.map(|built| built.streams.stream.name.clone()),
            devices: devices.map(|devices| u32::try_from(devices).unwrap_or(u32::MAX)),
        })
    }

    pub(crate) fn device(
        &self,
        key: &Key,
        entry: &Entry<Device>,
        before: &DeviceStatus,
    ) -> Option<DeviceStatus> {
        let readiness = status::device(self.device_facts(key, entry)?)?;
        let readiness = self.until_deleted(key, entry, readiness);
        let observed = self.presence.get(key).unwrap_or_else(|| Observation::from(&entry.status));
        let Observation { presence, understanding } = observed;
        let mut conditions = self.conditions(&readiness, entry, before);
        if understanding.is_said() {
            conditions.push(self.messages_understood(&understanding, entry, before));
        }
        let mut status = DeviceStatus {
            observed_generation: Some(entry.generation),
            conditions,
            presence: Some(presence.presence),
            last_transition: presence.since.map(Time),
            ..DeviceStatus::default()
        };
        if let (Ok(device), Some(iot_id)) = (&entry.object, self.reconciled.built.iot_ids.get(key))
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

    pub(crate) fn format(
        &self,
        key: &Key,
        entry: &Entry<PushFormat>,
        before: &PushFormatStatus,
    ) -> Option<PushFormatStatus> {
        let findings = self.findings(key, entry)?;
        let in_force = self.version_in_force(key, entry, before, findings.is_empty());
        let readiness = status::format(&findings, in_force.as_ref());
        let readiness = self.unless_deleted(key, entry, readiness);
        Some(PushFormatStatus {
            observed_generation: Some(entry.generation),
            conditions: self.conditions(&readiness, entry, before),
            in_force,
            channels: Some(self.index.channels_of(key)),
        })
    }

    /// Returns the version of a PushFormat that is in force; `None` if none is.
    fn version_in_force(
        &self,
        key: &Key,
        entry: &Entry<PushFormat>,
        before: &PushFormatStatus,
        compiles: bool,
    ) -> Option<FormatVersion> {
        self.reconciled.built.formats.0.get(key)?;
        let known = before.in_force.clone();
        if !compiles {
            // One that an operator before this one has judged has no time.
            let unknown = || FormatVersion { generation: before.observed_generation, since: None };
            return Some(known.unwrap_or_else(unknown));
        }
        let generation = Some(entry.generation);
        let now = || FormatVersion { generation, since: Some(Time(seconds(self.now))) };
        Some(known.filter(|known| known.generation == generation).unwrap_or_else(now))
    }

    fn conditions<K: ApiKind>(
        &self,
        readiness: &Readiness,
        entry: &Entry<K>,
        before: &K::Status,
    ) -> Vec<Condition> {
        conditions(readiness, entry.generation, &ours(before.conditions()), self.now)
    }

    fn messages_understood(
        &self,
        Understanding { status, reason, message }: &Understanding,
        entry: &Entry<Device>,
        before: &DeviceStatus,
    ) -> Condition {
        let said = Said { type_: MESSAGES_UNDERSTOOD, status: status.as_str(), reason, message };
        condition(said, entry.generation, &before.conditions, self.now)
    }

    /// Returns what was built of a Tenant. Another namespace's Tenant of the same name is not this one.
    fn built(&self, key: &Key) -> Option<&'a BuiltTenant> {
        let built = self.reconciled.built.tenants.get(&TenantName::new(&key.1).ok()?)?;
        (built.streams.owner.namespace == key.0).then_some(built)
    }

    /// Returns the findings of validate and build; `None` if the object was not built yet.
    fn findings<K: ApiKind>(&self, key: &Key, entry: &Entry<K>) -> Option<Vec<Finding>> {
        if let Err(error) = &entry.object {
            let message = format!(
                "it can't be read: {error}. It was stored under other rules; bring the \
                 CustomResourceDefinitions and the operator to one version"
            );
            return Some(vec![Finding::new(Reason::InvalidObject, "", message)]);
        }
        let object = ObjectRef::new(K::KIND, &key.0, &key.1);
        Some(self.reconciled.built.outcomes.get(&object)?.findings().to_vec())
    }

    /// Returns `None` if the Tenant was not built yet, or its Secret of tokens was not read yet.
    fn tenant_facts(
        &self,
        key: &Key,
        entry: &Entry<Tenant>,
        built: Option<&'a BuiltTenant>,
    ) -> Option<TenantFacts<'a>> {
        let mut facts = TenantFacts {
            findings: self.findings(key, entry)?,
            streams: None,
            report: None,
            mapping: WriteState::Stored,
            creation_forbidden: None,
            lagging_pods: None,
        };
        let (Some(built), Ok(tenant)) = (built, &entry.object) else { return Some(facts) };
        if let Some(secret) = secret_of(&tenant.spec) {
            self.add_secret(&key.0, secret, &mut facts.findings)?;
        }
        let name = &built.streams.tenant;
        let not_served = Reason::NotServed.to_string();
        let before = ready(entry.status.conditions()).filter(|before| before.reason == not_served);
        facts.streams = Some(&built.streams);
        facts.report = self.reconciled.report.get(name);
        facts.mapping = self.reconciled.write_failures.state(name);
        facts.creation_forbidden = self.creation_forbidden(&key.0, &built.enrollment);
        facts.lagging_pods = self
            .rollout
            .tenant_message(name, before.map(|before| before.message.as_str()))
            .map(str::to_owned);
        Some(facts)
    }

    /// Adds what is wrong with the Secret of tokens. Returns `None` if it was not read yet.
    fn add_secret(&self, namespace: &str, secret: &str, findings: &mut Vec<Finding>) -> Option<()> {
        match self.index.token_secret(&(namespace.to_owned(), secret.to_owned()))? {
            TokenSecret::Held(_) => {
                let object = ObjectRef::new(Kind::Secret, namespace, secret);
                let outcome = self.reconciled.built.outcomes.get(&object);
                let told = outcome.map(|outcome| outcome.findings()).unwrap_or_default();
                findings.extend(told.iter().map(|finding| Finding {
                    message: format!("{object}: {}", finding.message),
                    ..finding.clone()
                }));
            }
            TokenSecret::Missing => {}
            TokenSecret::Forbidden => {
                let message = format!(
                    "the operator may not read Secret {secret:?}; grant it: kubectl -n {namespace} create \
                     role read-{secret} --verb=list,watch --resource=secrets --resource-name={secret}, and \
                     bind it to the operator's service account"
                );
                findings.retain(|finding| finding.reason != Reason::SecretMissing);
                let field = "spec.access.tokens.secretName";
                findings.push(Finding::new(Reason::SecretForbidden, field, message));
            }
        }
        Some(())
    }

    fn creation_forbidden(&self, namespace: &str, enrollment: &Enrollment) -> Option<Finding> {
        if enrollment.creation == CreationPolicy::Refuse || !self.index.is_creation_forbidden(namespace) {
            return None;
        }
        let message = format!(
            "the operator may not create Devices in namespace {namespace}; grant it: kubectl -n {namespace} \
             create role enroll-devices --verb=create --resource=devices.flutecast.io, and bind it to the \
             operator's service account; or write policy: Declared"
        );
        Some(Finding::new(Reason::EnrollmentUnavailable, "spec.enrollment.policy", message))
    }

    /// Returns `None` if the Device was not built yet.
    fn device_facts(&self, key: &Key, entry: &Entry<Device>) -> Option<DeviceFacts<'a>> {
        let conditions = &entry.status.conditions;
        let message = ready(conditions).map(|ready| ready.message.as_str()).unwrap_or_default();
        let ready_before = is_ready(conditions, entry.generation).then(|| message_before(message));
        let tenant = entry.object.as_ref().ok().and_then(|device| TenantName::new(&device.spec.tenant).ok());
        let Reconciled { report, write_failures, .. } = self.reconciled;
        Some(DeviceFacts {
            findings: self.findings(key, entry)?,
            ready_before,
            report: tenant.as_ref().and_then(|tenant| report.get(tenant)),
            mapping: tenant.as_ref().map_or(WriteState::Stored, |tenant| write_failures.state(tenant)),
            pods: self.rollout.confirmation(key),
        })
    }
}
