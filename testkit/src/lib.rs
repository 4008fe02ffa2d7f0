//! Runs real processes for tests, the demo and the benchmarks: nats-server, an API server, the Flutecast
//! programs, gateways and SSE clients.
//!
//! The crate does not depend on the programs; it starts them by path. Dropping a value that represents a
//! process kills the process.

#![allow(missing_docs, reason = "only programs and tests of this workspace link it")]

mod api_server;
mod fake_clock;
pub mod fleet;
mod folder_copy;
mod gateway;
mod go_tool;
pub mod http_client;
mod local_stack;
pub mod metrics_page;
mod nats_identity;
mod nats_program;
mod nats_server;
mod ports;
mod process;
mod programs;
mod repository;
mod sse;
mod wait;

pub use api_server::ApiServer;
pub use fake_clock::FakeClock;
pub use folder_copy::copy_folder;
pub use gateway::{Gateway, GatewayPod, ServiceProxy};
pub use go_tool::{GoTool, Stamp, module_file, tools_folder};
pub use local_stack::{LocalStack, Publisher};
pub use nats_identity::NatsIdentity;
pub use nats_program::nats_server_program;
pub use nats_server::{NatsOptions, NatsPorts, NatsServer};
pub use ports::{free_port, free_ports, is_free};
pub use process::{Line, Pipe, Process, ProcessOptions};
pub use programs::{Dataplane, DataplaneOptions, Operator, OperatorOptions, program};
pub use repository::in_repository;
pub use sse::{SseClient, SseEvent, SseParser};
pub use wait::wait_until;
