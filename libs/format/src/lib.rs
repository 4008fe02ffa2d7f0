//! Turns the messages of devices into the values that clients get.
//!
//! - [`json`] reads a payload by pointer, without building a document.
//! - [`program`] compiles a push format once and applies it to each message.
//!
//! This crate does no I/O, reads no clock and knows nothing of Kubernetes or an async runtime;
//! `xtask/tests/tidy` proves it. Its input is untrusted: no payload or format makes it panic or recurse
//! without a bound, and the work is bounded by the input's length.

pub mod json;
pub mod program;
