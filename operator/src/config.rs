//! The command line, which can also be given in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Turns Tenants, Devices and PushFormats into JetStream streams and mapping documents.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Config {
    /// The folder of manifests (*.yaml, *.yml, also in folders below it); it is watched.
    #[arg(long, env = "FLUTECAST_MANIFESTS", value_name = "DIR")]
    pub(crate) manifests: PathBuf,

    /// The folder that the mapping documents are written to; the data plane reads it.
    #[arg(long, env = "FLUTECAST_MAPPING_OUT", value_name = "DIR")]
    pub(crate) mapping_out: PathBuf,

    /// The NATS server, or several with commas in between.
    #[arg(long, env = "FLUTECAST_NATS", value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    pub(crate) nats: String,

    /// Where /livez, /readyz and /metrics are served; left out: nowhere.
    #[arg(long, env = "FLUTECAST_ADMIN", value_name = "HOST:PORT")]
    pub(crate) admin: Option<SocketAddr>,

    /// How the log (standard error) and the verdicts (standard output) are written.
    #[arg(long, env = "FLUTECAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object on each line.
    Json,
}
