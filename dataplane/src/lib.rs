//! The data plane: consumes device messages from NATS and pushes them to the clients that subscribed to them.
//!
//! The folders are the way of a message: [`sources`] hears it, [`pipeline`] filters and formats it,
//! [`fanout`] gives it to the connections, [`http`] writes it to the sockets. Beside that way stand the
//! [`catalog`] (which devices there are) and [`access`] (who may read them); [`serving`] tells the operator
//! what is served, [`peers`] are the other pods, `rebalance` moves clients to them, and `drain` sends them
//! away at the end. [`app`] puts them together. This crate knows nothing of the operator and of its kinds: in
//! a cluster it reads ConfigMaps, one Secret and EndpointSlices.

pub mod access;
pub mod app;
pub mod catalog;
pub mod config;
mod drain;
pub mod fanout;
pub mod http;
pub mod kubernetes;
pub mod metrics;
pub mod peers;
mod percent;
pub mod pipeline;
mod rebalance;
pub mod serving;
pub mod sources;
