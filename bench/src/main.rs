//! `flutecast-bench`: the measurements.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use flutecast_bench::demo_path::{self, DemoPathOptions};
use flutecast_bench::envelope::{self, EnvelopeOptions, Size};
use flutecast_bench::fleet::{self, FleetArgs};
use flutecast_bench::latency::{self, LatencyOptions};
use flutecast_bench::manifests;
use flutecast_contract::name::TenantName;
use flutecast_demo::duration;
use flutecast_process::shutdown::Shutdown;

/// Flutecast's measurements.
#[derive(Debug, Parser)]
#[command(name = "flutecast-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the manifests of the benchmarks' tenant.
    Manifests(ManifestsArgs),
    /// Measure how long messages take from a device to SSE clients, beside what the broker alone takes.
    Latency(LatencyArgs),
    /// Run many SSE clients that come back as an EventSource does, and report what they missed.
    Fleet(FleetArgs),
    /// Start nats-server, operator and data plane, measure latency, memory, fan-out and rates, and write the
    /// page about it.
    DemoPath(DemoPathArgs),
    /// Create many Devices on a real API server, with all programs, measure how the operator bears it, and
    /// write a section about it.
    Envelope(EnvelopeArgs),
}

#[derive(Debug, Args)]
struct EnvelopeArgs {
    /// Number of devices, and of tenants (default 1); several sizes are separated by commas.
    #[arg(
        long,
        value_name = "DEVICES[/TENANTS]",
        value_delimiter = ',',
        default_value = "1000,5000,10000,10000/20"
    )]
    sizes: Vec<Size>,
    /// Number of changes that are timed at each size.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    changes: u32,
    /// Number of Devices that are created at the same time.
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// The command that the page names.
    #[arg(long, default_value = "bench/envelope.sh", hide = true)]
    command: String,
    /// The page whose section is replaced, between its markers; default: standard output.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DemoPathArgs {
    /// Number of devices that send.
    #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1024))]
    devices: u32,
    /// Duration of a measurement.
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// The command that the page names.
    #[arg(long, default_value = "bench/run.sh", hide = true)]
    command: String,
    /// File for the page (default: standard output).
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ManifestsArgs {
    /// Number of devices.
    #[arg(long, default_value = "100",
     value_parser = clap::value_parser!(u32).range(1..=i64::from(manifests::MOST_DEVICES)))]
    devices: u32,
    /// The tenant's name.
    #[arg(long, default_value = "bench")]
    tenant: TenantName,
    /// The folder for the files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct LatencyArgs {
    /// The NATS port.
    #[arg(long, env = "FLUTECAST_NATS", value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// The data plane.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    http: String,
    /// The tenant's name.
    #[arg(long, default_value = "bench")]
    tenant: TenantName,
    /// Number of devices that send.
    #[arg(long, default_value_t = 100)]
    devices: u32,
    /// Messages per second, all devices together.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// Time in which messages are sent before they count.
    #[arg(long, default_value = "2s", value_parser = duration::parse)]
    warm_up: Duration,
    /// Time in which messages count.
    #[arg(long, default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// Number of SSE clients.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Number of devices that each client watches (default: all).
    #[arg(long)]
    per_client: Option<u32>,
    /// A process whose memory and processor time are reported; may be given more than once.
    #[arg(long = "pid")]
    pids: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,flutecast_bench=info")),
        )
        .init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?.asked;
        match cli.command {
            Command::Manifests(ManifestsArgs { devices, tenant, out }) => {
                manifests::write(&tenant, devices, &out)
            }
            Command::Latency(args) => {
                let json = args.json;
                let report = latency::run(&args.into(), &shutdown).await?;
                if json {
                    print(&format!("{}\n", serde_json::to_string_pretty(&report)?))
                } else {
                    print(&report.to_string())
                }
            }
            Command::Fleet(args) => fleet::run(&args, &shutdown).await,
            Command::DemoPath(DemoPathArgs { devices, duration, command, out }) => {
                let options = DemoPathOptions { devices, duration, command };
                let page = demo_path::run(&options, &shutdown).await?.to_string();
                match out {
                    Some(file) => std::fs::write(&file, page).with_context(|| file.display().to_string()),
                    None => print(&page),
                }
            }
            Command::Envelope(EnvelopeArgs { sizes, changes, at_once, command, into }) => {
                let options = EnvelopeOptions { sizes, changes, at_once, command };
                let section = envelope::run(&options, &shutdown).await?.to_string();
                match into {
                    Some(file) => envelope::write_section(&file, &section),
                    None => print(&section),
                }
            }
        }
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing the report")
}

impl From<LatencyArgs> for LatencyOptions {
    fn from(args: LatencyArgs) -> Self {
        let LatencyArgs {
            nats,
            http,
            tenant,
            devices,
            rate,
            warm_up,
            duration,
            clients,
            per_client,
            pids,
            json: _,
        } = args;
        Self { nats, http, tenant, devices, rate, warm_up, duration, clients, per_client, pids }
    }
}
