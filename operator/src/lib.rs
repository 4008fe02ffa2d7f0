//! The operator: Tenants, Devices and PushFormats in; JetStream streams, mapping documents and verdicts out.
//!
//! The five steps of a reconcile are folders of [`controller`]: dereference, validate, build, apply, status.
//! Validate and build are pure functions; a folder of manifests ([`backend::folder`]) and an API server
//! ([`backend::cluster`]) feed the same ones. Nothing here reads a device's message.

#![allow(missing_docs)]

mod admin;
mod api_server;
pub mod backend;
mod clean_up;
mod config;
pub mod controller;
pub mod enrollment;
pub mod finding;
pub mod index;
pub mod jetstream;
pub mod lease;
mod metrics;
pub mod object;
mod presence;
pub mod protection;
mod rate_limit;
pub mod rights;
pub mod rollout;
mod run;
#[cfg(test)]
mod tests;
mod watch;

pub use self::config::Config;
pub use self::finding::Reason;
pub use self::run::run;
