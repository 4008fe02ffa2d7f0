//! With a real nats-server.

mod reconciler;
mod tenant;
