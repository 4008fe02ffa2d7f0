//! What clients talk to.

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
