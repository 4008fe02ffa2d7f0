//! Tests the line with a real nats-server and with the formats of manifests/demo.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod formats;
mod line;
