//! The Helm charts: what they render, what they refuse, and that a real API server takes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod bundled_nats;
mod committed;
mod gitops;
mod health_checks;
mod install;
mod kubernetes_api;
mod no_way_back;
mod schemas;
mod snapshots;
mod support;
mod values;
