//! The wire contract between the operator and the data plane.
//!
//! - [`name`], [`subject`]: a type for each kind of name; the subjects, topics and streams of NATS and MQTT.
//! - [`iot_id`]: the generated id of a device, and which device has which.
//! - [`enrollment`]: what a device sends when it asks for its topics.
//! - [`document`]: the mapping documents that the operator writes and the data plane reads.
//! - [`shard`]: splits the devices of a tenant over documents.
//! - [`object`]: the Kubernetes objects that hold these documents.
//! - [`serving`]: which revisions a pod of the data plane serves; [`load`]: how many clients it has.
//! - [`duration`]: durations as people write them.
//! - [`stream_position`]: a place in a tenant's stream, which clients get as the id of an event.
//!
//! This crate knows nothing of Kubernetes, of an async runtime, of files or of the clock. `e2e/tests/tidy.rs`
//! proves it. Documents come from outside: whatever they hold, nothing here panics, recurses without a bound,
//! or works longer than their length justifies.

pub mod document;
pub mod duration;
pub mod enrollment;
pub mod iot_id;
pub mod load;
pub mod name;
pub mod object;
pub mod serving;
pub mod shard;
pub mod stream_position;
pub mod subject;
