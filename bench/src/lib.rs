//! Measurements.
//!
//! [`latency`] measures what Flutecast needs from a device to its clients, and [`demo_path`] runs all the
//! programs for it. [`fleet`] is many screens that come back when they are sent away. [`envelope`] measures
//! how large an installation on Kubernetes may be.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

pub mod demo_path;
pub mod envelope;
pub mod fleet;
pub mod latency;
mod machine;
pub mod manifests;
pub mod process_stats;
