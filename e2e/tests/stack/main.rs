//! End-to-end tests. Each starts its own nats-server, operator and data planes, and tests them only from
//! outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failing test reports the fault"
)]

mod access;
mod broker_restart;
mod browser;
mod browser_truth;
mod chromium;
mod demo_line;
mod demo_program;
mod drain;
mod factory;
mod freshness;
mod gateway_browser;
mod gateway_paths;
mod gateways;
mod guarded_broker;
mod interest;
mod measurements;
mod one_truth;
mod payload_source;
mod protocol_examples;
mod resume;
mod shared_nats;
mod snapshot;
mod subject_source;
mod two_dataplanes;
mod verdicts;
