//! Data-plane processes on a real nats-server: what clients, NATS and the Kubernetes API see of a pod.
//!
//! - [`http`]: event streams, refusals, slow clients, draining.
//! - [`api_server`]: the mapping and the peers from a real Kubernetes API, each test with one of its own.
//! - [`inspect`]: a look at the last messages.
//! - [`problems`]: what is said of messages that can't be shown.
//! - [`announcements`], [`broker_login`]: the pod's side of NATS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test reports what is wrong by failing"
)]

mod announcements;
mod api_server;
mod broker_login;
mod fixture;
mod http;
mod inspect;
mod problems;
