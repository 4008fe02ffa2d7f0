//! Enrollment: a device asks on NATS or MQTT for its iotId and its topics. docs/enrollment.md is the
//! contract.
//!
//! ```text
//! controller ──Directory──► permission (may Devices be created?) ──► condition of the Tenant
//!                  └──────► service ── a TenantServer for each tenant: request → Admission ──► reply
//!                                         └──► DeviceCreator ──► Device ──► controller ──► mapped ──► reply
//! ```
//! `admission`, `directory`, `policy`, `reply`, `reply_subject` and `template` are pure; `service`, `server`,
//! `creator` and `permission` do the I/O. Anybody who may publish to the tenant's subject can send requests,
//! so everything is bounded for each tenant separately: one tenant's requests cost another nothing.

mod admission;
mod creator;
pub(crate) mod directory;
mod metrics;
mod permission;
pub(crate) mod policy;
mod reply;
mod reply_subject;
mod server;
mod service;
mod template;

pub(crate) use self::creator::{DeviceCreator, RIGHTS};
pub(crate) use self::metrics::{EnrollmentMetrics, RequestResult};
pub(crate) use self::permission::{ForbiddenNamespaces, PermissionCheck};
pub(crate) use self::server::ServerContext;
pub(crate) use self::service::{PENDING_REQUESTS, spawn};
