//! The Helm charts: what they render, what they refuse, and that a real API server takes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
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
