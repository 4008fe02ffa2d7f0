//! Enrollment: a device asks on NATS or MQTT who it is, and hears its iotId and its topics.
//! docs/enrollment.md is the contract.
//!
//! ```text
//! reconcile ──Roster──► rights (may Devices be created?) ──► verdict of the Tenant
//!                 └───► service ── one task for each tenant: request → desk ──► answer
//!                                                                     └──► maker ──► Device ──► (reconcile, until it is mapped) ──► answer
//! ```
//! `desk`, `limiter`, `roster`, `reply`, `answer` and `template` are pure; `service`, `counter`, `maker` and
//! `rights` do the I/O. Who asks may be anybody who may publish to the tenant's subject, so everything is
//! bounded for each tenant by itself: what one asks costs another nothing.

pub mod answer;
pub mod counter;
pub mod desk;
pub mod limiter;
pub mod maker;
pub mod policy;
pub mod reply;
pub mod rights;
pub mod roster;
pub mod service;
pub mod template;
