//! What comes from NATS: the connection, live messages in stream order, stored messages, the splitter of payload sources.

pub mod broker;
pub mod ordered;
