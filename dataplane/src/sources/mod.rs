//! What comes from NATS: the connection, live messages in stream order, stored messages, the splitter of
//! payload sources.

pub mod broker;
pub(crate) mod history;
pub(crate) mod message;
pub(crate) mod ordered;
pub mod splitter;
pub(crate) mod stored;
