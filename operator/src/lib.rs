//! The operator: Tenants, Devices and PushFormats in; JetStream streams, mapping documents and conditions
//! out.
//!
//! The five steps of a reconcile are folders of `controller`: dereference, validate, build, apply, status.
//! Validate and build are pure functions; a folder of manifests (`backend::folder`) and an API server
//! (`backend::cluster`) feed the same ones. Of devices' messages only the last ones are read, by
//! `last_messages`.

#![allow(missing_docs)]

mod admin;
mod api_server;
mod backend;
mod clean_up;
mod config;
mod controller;
mod enrollment;
mod finding;
mod index;
mod jetstream;
mod kubernetes_names;
mod last_messages;
pub mod lease;
mod metrics;
mod nats;
mod nats_passwords;
mod object;
mod presence;
mod protection;
mod rate_limit;
pub mod rights;
mod rollout;
mod run;
#[cfg(test)]
mod tests;
mod watch;

pub use self::config::Config;
pub use self::finding::Reason;
pub use self::run::run;
