//! With a real nats-server.

mod task;
mod tenant;
