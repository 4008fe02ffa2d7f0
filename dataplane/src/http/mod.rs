//! The clients' port (event streams, devices, the dashboard), the admin port and the loopback listener.
//!
//! A request passes `path_prefix`, `routes`, `api` (credential and origin), `events` or `devices`, and
//! `body`. `params` and `error` are pure; `streams` knows every open event stream and ends those that have to
//! end.

mod admin;
mod api;
mod body;
mod dashboard;
mod devices;
mod error;
mod events;
mod inspect;
mod metrics;
mod params;
mod path_prefix;
mod routes;
mod server;
mod streams;
mod timeout_io;

pub(crate) use admin::{Admin, PodMetrics, service as admin_service};
pub(crate) use api::Api;
pub(crate) use inspect::{Inspect, service as inspect_service};
pub(crate) use metrics::HttpMetrics;
pub(crate) use path_prefix::PathPrefix;
pub(crate) use routes::service;
pub(crate) use server::{ServerSettings, ServerShutdown, serve};
pub(crate) use streams::{CloseReason, MinimumStay, StreamRegistry};
