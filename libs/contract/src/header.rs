//! The headers of NATS messages.

/// When the stream of a payload source captured the message that an item was split from, in RFC 3339. The
/// data plane sets it where it splits.
pub const CAPTURED: &str = "Flutecast-Captured";

/// Of a kept last value: the sequence of the message in the tenant's stream.
pub const ORIGIN_SEQUENCE: &str = "Flutecast-Sequence";
/// Of a kept last value: when the tenant's stream stored the message, in RFC 3339.
pub const ORIGIN_TIME: &str = "Flutecast-Time-Stamp";
/// Of a kept last value: the epoch of the tenant's stream, as event ids have it.
pub const ORIGIN_EPOCH: &str = "Flutecast-Epoch";
