//! The hubs of a pod on a real nats-server, with clients that read the frames directly.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what is wrong by failing"
)]

mod clients;
mod live;
mod resume;
mod splitter;
mod support;
mod tail;
