//! The wire contract between the operator and the data plane.
//!
//! - [`name`]: a type for each kind of name.
//! - [`subject`]: the subjects, topics and streams of NATS and MQTT.
//! - [`iot_id`]: generates the ids of devices and assigns them.
//! - [`enrollment`]: the request of a device for its topics.
//! - [`document`]: the mapping documents that the operator writes and the data plane reads.
//! - [`shard`]: splits the devices of a tenant over documents.
//! - [`object`]: the Kubernetes objects that hold these documents.
//! - [`serving`]: which revisions a pod of the data plane serves; [`load`]: how many clients it has.
//! - [`duration`]: durations as people write them.
//! - [`stream_position`]: positions in a tenant's stream, which clients get as event ids.
//! - [`tail`]: how far back the messages of a channel decide what it shows.
//! - [`header`]: the headers of NATS messages.
//!
//! This crate does no I/O, reads no clock and knows nothing of Kubernetes or an async runtime;
//! `xtask/tests/tidy` proves it. Its input is untrusted: no document or request makes it panic or recurse
//! without a bound, and the work is bounded by the input's length.

pub mod document;
pub mod duration;
pub mod enrollment;
pub mod header;
pub mod iot_id;
pub mod load;
pub mod name;
pub mod object;
pub mod serving;
pub mod shard;
pub mod stream_position;
pub mod subject;
pub mod tail;
