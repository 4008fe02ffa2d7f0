//! The contract between the operator and the data plane.
//!
//! Names and subjects, the mapping documents that the operator writes and the data plane reads, and the push-format programs
//! that turn a device's message into what clients see. This crate knows nothing of Kubernetes, of an async runtime, of files
//! or of the clock: everything is data in, data out. CI proves the first two with `cargo tree`.

pub mod document;
pub mod iot_id;
pub mod json;
pub mod name;
pub mod program;
pub mod shard;
pub mod subject;
