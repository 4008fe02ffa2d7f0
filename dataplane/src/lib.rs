//! The data plane: consumes device messages from NATS and pushes them to the clients that subscribed to them.
//!
//! A message passes [`sources`] (subscriptions), [`pipeline`] (filter, format, frame), [`fanout`]
//! (connections) and `http` (sockets). [`catalog`] holds the devices that exist, [`access`] who may read
//! them. `serving` announces to the operator what is served, `peers` are the other pods, `rebalance`
//! moves clients to them, and `drain` sends all clients away at shutdown. [`app`] starts and ends these
//! parts.
//!
//! This crate knows nothing of the operator and of the Kubernetes kinds of Flutecast: in a cluster it reads
//! ConfigMaps, one Secret and EndpointSlices.

#![allow(missing_docs, reason = "only the program and its tests link this crate")]

pub mod access;
pub mod app;
pub mod catalog;
pub mod config;
mod drain;
mod duration;
pub mod fanout;
mod http;
pub mod ingest;
mod kubernetes;
mod peers;
mod percent;
pub mod pipeline;
mod rebalance;
pub mod rights;
mod serving;
