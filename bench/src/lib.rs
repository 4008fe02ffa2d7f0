//! The simulated corrugated-packaging line, the load generator and the benchmarks.
//!
//! [`line`] is a pure model: a seed and virtual time in, messages out. [`publish`] sends them over NATS and
//! MQTT, and [`play`] does both at the pace of a clock. [`latency`] measures what Flutecast needs from a
//! device to its clients, and [`demo_path`] runs all the programs for it. [`fleet`] is many screens that come
//! back when they are sent away. [`envelope`] measures how large an installation on Kubernetes may be.

pub mod demo_path;
pub mod duration;
pub mod envelope;
pub mod fleet;
pub mod latency;
pub mod line;
mod machine;
pub mod manifests;
pub mod play;
pub mod process_stats;
pub mod publish;
pub mod signal;
