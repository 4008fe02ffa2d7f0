//! The simulated corrugated-packaging line, the load generator and the benchmarks.
//!
//! [`line`] is a pure model: a seed and virtual time in, messages out. [`publish`] sends them over NATS and MQTT, and [`play`]
//! does both at the pace of a clock.

pub mod duration;
pub mod line;
pub mod play;
pub mod publish;
pub mod signal;
