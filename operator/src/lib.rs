//! The operator: Tenants, Devices and PushFormats in; JetStream streams, mapping documents and verdicts out.
//!
//! Each reconcile reads as five steps ([`reconcile`]): dereference, validate ([`validate`]), build
//! ([`build`]), apply ([`apply`], [`jetstream`]), update status ([`status`]). Validate and build are pure
//! functions; a folder of manifests ([`folder`]) and an API server feed the same ones. Nothing here reads a
//! device's message.

pub mod admin;
pub mod apply;
pub mod build;
pub mod enrollment;
pub mod folder;
pub mod jetstream;
pub mod kubernetes;
pub mod metrics;
pub mod object;
pub mod presence;
pub mod reconcile;
pub mod status;
pub mod validate;
pub mod verdict;
