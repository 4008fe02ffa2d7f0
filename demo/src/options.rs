//! Command-line options.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::line_command::LineArgs;

/// Starts the Flutecast demo factory: nats-server, operator, data plane and a simulated corrugated-packaging
/// line.
#[derive(Debug, Parser)]
#[command(name = "flutecast-demo", version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The folder with the manifests; editing a file there changes the running demo.
    #[arg(long, env = "FLUTECAST_DEMO_MANIFESTS", default_value = "manifests/demo")]
    pub(crate) manifests: PathBuf,
    /// The folder for logs, mapping and streams, emptied at each start. Default: `demo` beside the built
    /// programs.
    #[arg(long, env = "FLUTECAST_DEMO_STATE")]
    pub(crate) state: Option<PathBuf>,
    /// The port for NATS clients.
    #[arg(long, env = "FLUTECAST_DEMO_NATS_PORT", default_value_t = 4222)]
    pub(crate) nats_port: u16,
    /// The port for MQTT clients.
    #[arg(long, env = "FLUTECAST_DEMO_MQTT_PORT", default_value_t = 1883)]
    pub(crate) mqtt_port: u16,
    /// The port of nats-server's monitor.
    #[arg(long, env = "FLUTECAST_DEMO_MONITOR_PORT", default_value_t = 8222)]
    pub(crate) monitor_port: u16,
    /// The port of the dashboard and the event streams.
    #[arg(long, env = "FLUTECAST_DEMO_HTTP_PORT", default_value_t = 8080)]
    pub(crate) http_port: u16,
    /// The port of the data plane's health and metrics.
    #[arg(long, env = "FLUTECAST_DEMO_ADMIN_PORT", default_value_t = 8081)]
    pub(crate) admin_port: u16,
    /// The port of the operator's health and metrics.
    #[arg(long, env = "FLUTECAST_DEMO_OPERATOR_PORT", default_value_t = 9090)]
    pub(crate) operator_port: u16,
    /// Uses free ports instead of the configured ones.
    #[arg(long)]
    pub(crate) free_ports: bool,
    /// The seed of the simulated line; the same seed gives the same messages.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Runs for this many seconds and succeeds if every device sent live values.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) check_seconds: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs only the simulated line: a corrugator, a slitter-scorer, a flexo printer, a die cutter and a
    /// stacker.
    Line(LineArgs),
}
