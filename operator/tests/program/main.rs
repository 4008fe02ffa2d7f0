//! The operator as a process on a folder of manifests, with a real nats-server.
#![allow(clippy::unwrap_used, clippy::panic)] // Also in helpers, which clippy does not take for tests.

mod enrollment;
mod manifests;
mod process;
