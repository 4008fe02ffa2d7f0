//! What becomes of each request of one tenant. Synchronous and without I/O: the time and what is known are
//! handed in.

use std::collections::BTreeMap;

use flutecast_contract::enrollment::{Malformed, Request};
use flutecast_contract::name::{DeviceCode, TenantName};
use tokio::time::Instant;

use super::answer::{Answer, Reason, Refusal, Topics};
use super::limiter::{Bucket, Rate};
use super::roster::{Roll, Standing};
use crate::enrollment::policy::Newcomers;
use crate::enrollment::policy::Template;

/// How many requests of a tenant are looked at. A hall of some hundred machines that is switched on at once
/// is through in seconds.
pub const REQUESTS: Rate = Rate { per_second: 20, burst: 50 };
/// How many of the requests beyond that are told so; the rest is dropped, so that a flood isn't answered by
/// another.
pub const REFUSALS: Rate = Rate { per_second: 20, burst: 50 };
/// How many Devices are created. Each is a write to the API server and to the mapping.
pub const CREATIONS: Rate = Rate { per_second: 5, burst: 20 };
/// How many Devices of a tenant are being created at once.
pub const CREATIONS_AT_ONCE: usize = 8;
/// How many wait for one Device that is being created. A device asks again when nobody answered; more than a
/// few are no device.
pub const WAITING_FOR_ONE: usize = 4;

/// One tenant's desk.
#[derive(Debug)]
pub struct Desk {
    tenant: TenantName,
    requests: Bucket,
    refusals: Bucket,
    creations: Bucket,
    /// The codes for which a Device is being created, and where the answers go.
    under_way: BTreeMap<DeviceCode, Vec<String>>,
}

/// What is to be done about a request.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Answer.
    Answer {
        /// Where.
        place: String,
        /// Whose topics were asked for, if that is known.
        code: Option<DeviceCode>,
        /// What.
        answer: Answer,
    },
    /// Create a Device; [`Desk::done`] is called when that has ended.
    Create {
        /// Whose.
        code: DeviceCode,
        /// What it looks like.
        template: Template,
    },
    /// A Device is being created already; its answer goes to this one too.
    Wait,
    /// Nothing.
    Drop,
}

impl Desk {
    /// A desk at which nobody has asked yet.
    #[must_use]
    pub fn new(tenant: TenantName, now: Instant) -> Self {
        Self {
            tenant,
            requests: Bucket::new(REQUESTS, now),
            refusals: Bucket::new(REFUSALS, now),
            creations: Bucket::new(CREATIONS, now),
            under_way: BTreeMap::new(),
        }
    }

    /// What is to be done about a request whose answer goes to `place`. `may_create` is false where the API
    /// server lets the operator create no Device.
    pub fn decide(
        &mut self,
        roll: &Roll,
        request: Request,
        place: Option<String>,
        may_create: bool,
        now: Instant,
    ) -> Step {
        let Some(place) = place else { return Step::Drop };
        if !self.requests.take(now) {
            if !self.refusals.take(now) {
                return Step::Drop;
            }
            let message = format!(
                "the devices of tenant {} ask too often: {} requests a second are answered",
                self.tenant, REQUESTS.per_second
            );
            let code = request.code.ok();
            return Step::Answer { place, code, answer: Err(Refusal::new(Reason::RateLimited, message)) };
        }
        let code = match request.code {
            Ok(code) => code,
            Err(error) => {
                let reason = match &error {
                    Malformed::Code(_) => Reason::InvalidCode,
                    Malformed::TooLong
                    | Malformed::NotText
                    | Malformed::NotJson(_)
                    | Malformed::NoCode
                    | Malformed::Token => Reason::InvalidRequest,
                };
                return Step::Answer {
                    place,
                    code: None,
                    answer: Err(Refusal::new(reason, error.to_string())),
                };
            }
        };
        if let Some(answer) = self.known(roll, &code) {
            // One that was created a moment ago is about to be in the mapping.
            let waits = matches!(&answer, Err(Refusal { reason: Reason::Pending, .. }));
            if !waits || !self.under_way.contains_key(&code) {
                return Step::Answer { place, code: Some(code), answer };
            }
        }
        match self.admit(roll, &code, &place, may_create, now) {
            Ok(step) => step,
            Err(refusal) => Step::Answer { place, code: Some(code), answer: Err(refusal) },
        }
    }

    /// The answer about a device that exists; none: there is no such Device.
    #[must_use]
    pub fn known(&self, roll: &Roll, code: &DeviceCode) -> Option<Answer> {
        let pending = |message: String| Err(Refusal::new(Reason::Pending, message));
        Some(match roll.devices.get(code)? {
            Standing::Mapped { .. } if !roll.has_stream => pending(format!(
                "the stream of tenant {} isn't there yet; see the Tenant's conditions if it stays so",
                self.tenant
            )),
            Standing::Mapped { iot_id, channels } => Ok(Topics::new(&self.tenant, code, iot_id, channels)),
            Standing::Waiting { object, why: None } => pending(format!("{object} is about to be in force")),
            Standing::Waiting { object, why: Some(why) } => {
                Err(Refusal::new(Reason::NotReady, format!("{object} is not in force: {why}")))
            }
        })
    }

    /// Whether a Device is created for a code that nobody has.
    fn admit(
        &mut self,
        roll: &Roll,
        code: &DeviceCode,
        place: &str,
        may_create: bool,
        now: Instant,
    ) -> Result<Step, Refusal> {
        let tenant = &self.tenant;
        let busy = || {
            let message = format!("too many new devices of tenant {tenant} at once; ask again in a moment");
            Refusal::new(Reason::RateLimited, message)
        };
        if let Some(places) = self.under_way.get_mut(code) {
            if places.len() >= WAITING_FOR_ONE {
                return Err(busy());
            }
            places.push(place.to_owned());
            return Ok(Step::Wait);
        }
        let template = match &roll.enrollment.newcomers {
            Newcomers::Created(template) => template,
            Newcomers::Refused => {
                let message = format!(
                    "tenant {tenant} has no device {:?}; apply a Device with this spec.deviceCode, or correct the code",
                    code.as_str()
                );
                return Err(Refusal::new(Reason::UnknownDevice, message));
            }
            Newcomers::Blocked => return Err(unavailable(tenant)),
        };
        if !template.code_pattern.as_ref().is_none_or(|pattern| pattern.matches(code.as_str())) {
            let message = format!(
                "{:?} is not among the codes for which tenant {tenant} creates devices (spec.enrollment.codePattern); correct the code, or apply a Device",
                code.as_str()
            );
            return Err(Refusal::new(Reason::CodeNotAllowed, message));
        }
        if !may_create {
            return Err(unavailable(tenant));
        }
        let new = self.under_way.keys().filter(|code| !roll.devices.contains_key(*code)).count();
        if let Some(most) = roll.enrollment.max_devices
            && roll.devices.len() + new >= most as usize
        {
            let message = format!(
                "tenant {tenant} may have {most} devices and has {}; raise spec.quota.maxDevices, or remove devices",
                roll.devices.len()
            );
            return Err(Refusal::new(Reason::QuotaExceeded, message));
        }
        if self.under_way.len() >= CREATIONS_AT_ONCE || !self.creations.take(now) {
            return Err(busy());
        }
        self.under_way.insert(code.clone(), vec![place.to_owned()]);
        Ok(Step::Create { code: code.clone(), template: template.clone() })
    }

    /// Creating a Device has ended, well or not. Answers where the answers go.
    pub fn done(&mut self, code: &DeviceCode) -> Vec<String> {
        self.under_way.remove(code).unwrap_or_default()
    }
}

/// A Device should be created, and can't be.
#[must_use]
pub fn unavailable(tenant: &TenantName) -> Refusal {
    let message =
        format!("tenant {tenant} can't create devices at the moment; the conditions of the Tenant say why");
    Refusal::new(Reason::Unavailable, message)
}

#[cfg(test)]
mod tests;
