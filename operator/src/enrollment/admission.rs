//! Decides about each request of one tenant. Pure: the time and the directory are passed in.

use std::collections::BTreeMap;

use flutecast_contract::enrollment::{EnrollmentRequest, InvalidRequest};
use flutecast_contract::name::{DeviceCode, TenantName};
use tokio::time::Instant;

use super::directory::{DeviceEntry, TenantDirectory};
use super::policy::{CreationPolicy, Template};
use super::reply::{Reason, Refusal, Reply, Topics};
use crate::rate_limit::{Rate, TokenBucket};

/// Requests of a tenant that are handled each second. With the burst, a hall of some hundred machines that is
/// switched on at once is through in seconds.
const REQUESTS_PER_SECOND: u32 = 20;
const REQUESTS: Rate = Rate::per_second(REQUESTS_PER_SECOND, 50);
/// Requests beyond that which get a refusal. The remaining ones are dropped, so that a flood doesn't cause a
/// flood of replies.
const REFUSALS: Rate = Rate::per_second(20, 50);
/// Devices that are created. Each is a write to the API server and to the mapping.
const CREATIONS: Rate = Rate::per_second(5, 20);
/// The most Devices of a tenant that are created at once.
pub(super) const MAX_CONCURRENT_CREATIONS: usize = 8;
/// The most requests that wait for one Device that is being created. A device repeats its request when it
/// gets no reply; more than a few are not from a device.
pub(super) const MAX_WAITERS: usize = 4;

#[derive(Debug)]
pub(super) struct Admission {
    tenant: TenantName,
    requests: TokenBucket,
    refusals: TokenBucket,
    creations: TokenBucket,
    /// The codes for which a Device is being created, with the reply subjects.
    in_progress: BTreeMap<DeviceCode, Vec<String>>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    Reply {
        reply_subject: String,
        /// `None` if the request has no valid code.
        code: Option<DeviceCode>,
        reply: Reply,
    },
    /// Create a Device, and call [`Admission::creation_ended`] afterwards.
    Create {
        code: DeviceCode,
        template: Template,
    },
    /// The Device is being created already; its reply goes to this request too.
    Wait,
    Drop,
}

impl Admission {
    pub(super) fn new(tenant: TenantName, now: Instant) -> Self {
        Self {
            tenant,
            requests: TokenBucket::new(REQUESTS, now),
            refusals: TokenBucket::new(REFUSALS, now),
            creations: TokenBucket::new(CREATIONS, now),
            in_progress: BTreeMap::new(),
        }
    }

    /// Decides about a request. `may_create` is `false` where the API server doesn't permit the operator to
    /// create Devices.
    pub(super) fn decide(
        &mut self,
        directory: &TenantDirectory,
        request: EnrollmentRequest,
        reply_subject: Option<String>,
        may_create: bool,
        now: Instant,
    ) -> Decision {
        let Some(reply_subject) = reply_subject else { return Decision::Drop };
        if !self.requests.take(now) {
            if !self.refusals.take(now) {
                return Decision::Drop;
            }
            let message = format!(
                "the devices of tenant {} ask too often: {REQUESTS_PER_SECOND} requests a second are \
                 answered",
                self.tenant
            );
            let reply = Err(Refusal::new(Reason::RateLimited, message));
            return Decision::Reply { reply_subject, code: request.code.ok(), reply };
        }
        let code = match request.code {
            Ok(code) => code,
            Err(error) => {
                return Decision::Reply { reply_subject, code: None, reply: Err(malformed(&error)) };
            }
        };
        if let Some(reply) = self.lookup(directory, &code) {
            // A Device that was created a moment ago is about to be in the mapping.
            let is_pending = matches!(&reply, Err(Refusal { reason: Reason::Pending, .. }));
            if !is_pending || !self.in_progress.contains_key(&code) {
                return Decision::Reply { reply_subject, code: Some(code), reply };
            }
        }
        match self.admit(directory, &code, &reply_subject, may_create, now) {
            Ok(decision) => decision,
            Err(refusal) => Decision::Reply { reply_subject, code: Some(code), reply: Err(refusal) },
        }
    }

    /// Returns the reply about a Device that exists; `None` if there is none with this code.
    pub(super) fn lookup(&self, directory: &TenantDirectory, code: &DeviceCode) -> Option<Reply> {
        let pending = |message: String| Err(Refusal::new(Reason::Pending, message));
        Some(match directory.devices.get(code)? {
            DeviceEntry::Mapped { .. } if !directory.has_stream => pending(format!(
                "the stream of tenant {} isn't there yet; see the Tenant's conditions if it stays so",
                self.tenant
            )),
            DeviceEntry::Mapped { iot_id, channels } => Ok(Topics::new(&self.tenant, code, iot_id, channels)),
            DeviceEntry::Pending { object, problem: None } => {
                pending(format!("{object} is about to be in force"))
            }
            DeviceEntry::Pending { object, problem: Some(problem) } => {
                Err(Refusal::new(Reason::NotReady, format!("{object} is not in force: {problem}")))
            }
        })
    }

    /// Decides whether a Device is created for a code that no Device has.
    fn admit(
        &mut self,
        directory: &TenantDirectory,
        code: &DeviceCode,
        reply_subject: &str,
        may_create: bool,
        now: Instant,
    ) -> Result<Decision, Refusal> {
        let tenant = &self.tenant;
        let busy = || {
            let message = format!("too many new devices of tenant {tenant} at once; ask again in a moment");
            Refusal::new(Reason::RateLimited, message)
        };
        if let Some(reply_subjects) = self.in_progress.get_mut(code) {
            if reply_subjects.len() >= MAX_WAITERS {
                return Err(busy());
            }
            reply_subjects.push(reply_subject.to_owned());
            return Ok(Decision::Wait);
        }
        let template = match &directory.enrollment.creation {
            CreationPolicy::Create(template) => template,
            CreationPolicy::Refuse => {
                let message = format!(
                    "tenant {tenant} has no device {:?}; apply a Device with this spec.deviceCode, or \
                     correct the code",
                    code.as_str()
                );
                return Err(Refusal::new(Reason::UnknownDevice, message));
            }
            CreationPolicy::Blocked => return Err(unavailable(tenant)),
        };
        if !template.code_pattern.as_ref().is_none_or(|pattern| pattern.matches(code.as_str())) {
            let message = format!(
                "{:?} is not among the codes for which tenant {tenant} creates devices \
                 (spec.enrollment.codePattern); correct the code, or apply a Device",
                code.as_str()
            );
            return Err(Refusal::new(Reason::CodeNotAllowed, message));
        }
        if !may_create {
            return Err(unavailable(tenant));
        }
        let new = self.in_progress.keys().filter(|code| !directory.devices.contains_key(*code)).count();
        if let Some(most) = directory.enrollment.max_devices
            && directory.devices.len() + new >= most as usize
        {
            let message = format!(
                "tenant {tenant} may have {most} devices and has {}; raise spec.quota.maxDevices, or remove \
                 devices",
                directory.devices.len()
            );
            return Err(Refusal::new(Reason::QuotaExceeded, message));
        }
        if self.in_progress.len() >= MAX_CONCURRENT_CREATIONS || !self.creations.take(now) {
            return Err(busy());
        }
        self.in_progress.insert(code.clone(), vec![reply_subject.to_owned()]);
        Ok(Decision::Create { code: code.clone(), template: template.clone() })
    }

    /// Notes that the creation of a Device ended. Returns the reply subjects.
    pub(super) fn creation_ended(&mut self, code: &DeviceCode) -> Vec<String> {
        self.in_progress.remove(code).unwrap_or_default()
    }
}

fn malformed(error: &InvalidRequest) -> Refusal {
    let reason = match error {
        InvalidRequest::Code(_) => Reason::InvalidCode,
        InvalidRequest::TooLong
        | InvalidRequest::NotText
        | InvalidRequest::NotJson(_)
        | InvalidRequest::NoCode
        | InvalidRequest::ReplyToken => Reason::InvalidRequest,
    };
    Refusal::new(reason, error.to_string())
}

/// Returns the refusal for a Device that can't be created at the moment.
pub(super) fn unavailable(tenant: &TenantName) -> Refusal {
    let message =
        format!("tenant {tenant} can't create devices at the moment; the conditions of the Tenant say why");
    Refusal::new(Reason::Unavailable, message)
}

#[cfg(test)]
mod tests;
