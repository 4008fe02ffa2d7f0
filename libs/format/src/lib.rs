//! The engine: turns a device's message into the values that clients see.
//!
//! - [`json`] reads a payload by pointer, without building a document.
//! - [`program`] compiles a push format once and applies it to each message.
//!
//! This crate knows nothing of Kubernetes, of an async runtime, of files or of the clock. `e2e/tests/tidy.rs`
//! proves it. Payloads and formats come from outside: whatever they hold, nothing here panics, recurses
//! without a bound, or works longer than their length justifies.

pub mod json;
pub mod program;
