//! What clients talk to: routes, parameters, the event stream on a socket, the dashboard, and the second
//! port.
//!
//! A request goes routes → `api` (who asks, from which page, for what) → `events` or `devices` → `body`. What
//! is pure stands apart: `params`, `duration`, `error`.

mod admin;
mod api;
mod body;
mod dashboard;
mod devices;
mod duration;
mod error;
mod events;
mod open;
mod params;
mod routes;
mod server;
mod stall;

pub(crate) use admin::{Admin, service as admin_service};
pub(crate) use api::Api;
pub(crate) use duration::parse as parse_duration;
pub(crate) use open::{End, OpenStreams, Rest};
pub(crate) use routes::service;
pub(crate) use server::{ServerSettings, Shutdown, serve};
