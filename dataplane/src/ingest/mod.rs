//! Messages from NATS: the connection, live messages in the order of their stream, missed messages, and the
//! splitter of payload sources.

pub mod broker;
pub(crate) mod broker_clock;
pub(crate) mod history;
pub(crate) mod ordered_merge;
pub mod splitter;
