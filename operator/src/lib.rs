//! The operator: Tenants, Devices and PushFormats in; JetStream streams, mapping documents and verdicts out.
//!
//! The five steps of a reconcile are folders of [`controller`]: dereference, validate, build, apply, status.
//! Validate and build are pure functions; a folder of manifests ([`backend::folder`]) and an API server
//! ([`backend::cluster`]) feed the same ones. Nothing here reads a device's message.

pub mod admin;
pub mod backend;
pub mod controller;
pub mod enrollment;
pub mod jetstream;
pub mod metrics;
pub mod object;
pub mod presence;
pub mod protection;
pub mod rollout;
pub mod finding;
pub mod index;
