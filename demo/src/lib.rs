//! The simulated corrugated-packaging line of the demo.
//!
//! [`line`] is a pure model that turns a seed and virtual time into messages. [`publish`] sends them over
//! NATS and MQTT. [`play`] does both in real time. The program `flutecast-demo` starts Flutecast together
//! with the line.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

pub mod duration;
pub mod line;
pub mod play;
pub mod publish;
