//! The Helm charts: rendering, validation of values, and installation on a real API server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test reports the fault"
)]

mod api_server;
mod bundled_nats;
mod committed;
mod health_checks;
mod kubernetes_api;
mod schemas;
mod snapshots;
mod support;
mod values;
