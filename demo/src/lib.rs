//! The simulated corrugated-packaging line of the demo.
//!
//! [`line`] is a pure model: a seed and virtual time in, messages out. [`publish`] sends them over NATS and
//! MQTT. [`play`] does both at the pace of a clock. The program `flutecast-demo` runs all of Flutecast around
//! it.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

pub mod duration;
pub mod line;
pub mod play;
pub mod publish;
