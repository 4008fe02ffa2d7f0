//! The harness of real parts: nats-server, the Flutecast programs, an SSE client.
//!
//! Tests of every crate use it, so it depends on none of the programs. What it starts it ends: a [`Process`]
//! and a [`NatsServer`] that go out of scope are killed, by their id.

mod chart_copy;
pub mod cluster;
mod control_plane;
pub mod fleet;
mod folder_copy;
mod gateway;
pub mod generated;
mod go_tool;
mod helm;
mod house;
pub mod http_client;
pub mod image;
pub mod metrics_page;
mod nats_identity;
mod nats_server;
pub mod next;
mod ports;
mod process;
mod programs;
pub mod release;
pub mod snapshots;
mod sse;
mod tools;
mod wait;

pub use chart_copy::{chart_as, put_definitions};
pub use control_plane::ControlPlane;
pub use folder_copy::copy_folder;
pub use gateway::{Gateway, GatewayPod, ServiceProxy};
pub use go_tool::{GoTool, Stamp};
pub use helm::{Helm, HelmOutput};
pub use house::{House, Publisher};
pub use nats_identity::NatsIdentity;
pub use nats_server::{NatsOptions, NatsPorts, NatsServer};
pub use ports::{free_port, free_ports, is_free};
pub use process::{Line, Pipe, Process, ProcessOptions};
pub use programs::{Dataplane, DataplaneOptions, Operator, OperatorOptions, program};
pub use sse::{SseClient, SseEvent, SseParser};
pub use tools::{nats_server_program, tools_folder};
pub use wait::wait_until;
