//! The operator as a process on a real API server, with a real nats-server.
// Also in helpers, which clippy does not take for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blocked;
mod clean_up;
mod cut_off;
mod demo;
mod edit_war;
mod enrollment;
mod faults;
mod formats;
mod kills;
mod kubectl;
#[path = "../program/manifests.rs"]
mod manifests;
mod many;
mod messages;
mod nats_passwords;
mod outages;
mod presence;
mod protection;
mod reasons;
mod served;
mod shutdown;
mod stored;
mod support;
