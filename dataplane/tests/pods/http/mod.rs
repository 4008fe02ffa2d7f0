//! The clients' port and the admin port.

mod devices;
mod drain;
mod path_prefix;
mod refusals;
mod slow_clients;
mod startup;
mod stream;
