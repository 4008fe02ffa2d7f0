//! Tests of the streams.

mod real_nats;
