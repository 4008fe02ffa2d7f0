//! JetStream: the streams, sources and consumers that the tenants need.
//!
//! [`task`] keeps them as wanted for as long as the operator runs, [`tenant`] does so once for one tenant,
//! [`config`] says which settings are the operator's, [`api`] asks the broker. Nothing here knows of
//! manifests or of Kubernetes.

pub mod api;
mod capture;
pub mod config;
pub mod connection;
pub mod leftover;
pub mod task;
pub mod tenant;
pub mod streams;
pub mod subject_pattern;
