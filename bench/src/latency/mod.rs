//! The latency of a message from a device to a screen, and of the broker alone.
//!
//! One process sends and receives, so that one clock measures: each message carries the time at which it was
//! sent. Two kinds of receivers watch the same messages: SSE clients of the data plane, and plain NATS
//! subscribers to the republished subjects. The second kind shows what the broker costs; the difference is
//! Flutecast's.

mod clock;
mod measure;
mod receive;
mod recorder;
mod report;
mod send;
mod sse;

pub use clock::Clock;
pub use measure::{LatencyOptions, run};
pub use receive::{SseTarget, Watcher};
pub(crate) use report::millis;
pub use report::{LatencyReport, PathReport, ProcessReport};
