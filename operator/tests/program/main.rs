//! The operator as a process on a folder of manifests, with a real nats-server.
// Also in helpers, which clippy does not take for tests.
#![allow(clippy::unwrap_used, clippy::panic)]

mod enrollment;
mod manifests;
mod messages;
mod process;
