//! The contract between the operator and the data plane.
//!
//! ```text
//!   operator                         this crate                            data plane
//!   ────────                         ──────────                            ──────────
//!   Tenant, Device, PushFormat
//!     │ iot_id::assign, generate     name, subject: what things are called
//!     │ Program::compile             (a wrong format is told to its author)
//!     ▼
//!   shard::split  ──── YAML ───────▶ document ───────────────────────────▶ ShardDocument::from_yaml
//!                                                                            │ Program::compile
//!                                                          message  ───────▶ Program::apply ──▶ values as JSON
//! ```
//!
//! - [`name`], [`subject`]: a type for each kind of name; the subjects, topics and streams of NATS and MQTT.
//! - [`iot_id`]: the generated id of a device, and which device has which.
//! - [`enrolment`]: what a device sends when it asks for its topics.
//! - [`document`]: the mapping documents that the operator writes and the data plane reads; [`shard`] splits them.
//! - [`program`]: push-format programs, which turn a device's message into what clients see; [`json`] reads the message.
//!
//! This crate knows nothing of Kubernetes, of an async runtime, of files or of the clock: everything is data in, data out.
//! CI proves the first two with `cargo tree`. Payloads and documents come from outside: whatever they hold, nothing here
//! panics, recurses without a bound, or works longer than their length justifies.

pub mod document;
pub mod enrolment;
pub mod iot_id;
pub mod json;
pub mod name;
pub mod program;
pub mod shard;
pub mod subject;
