//! `flutecast-bench`: the simulated line and the benchmarks.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use flutecast_bench::line::{Disturbance, LineOptions};
use flutecast_bench::play::{PlayOptions, play};
use flutecast_bench::publish::{MqttAddress, PublishOptions};
use flutecast_bench::{duration, signal};
use flutecast_mapping::name::TenantName;

/// Flutecast's simulated corrugated-packaging line, load generator and benchmarks.
#[derive(Debug, Parser)]
#[command(name = "flutecast-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish as a corrugator, a slitter-scorer, a flexo printer, a die cutter and a stacker do.
    Line(LineArgs),
}

#[derive(Debug, Args)]
struct LineArgs {
    /// The NATS port.
    #[arg(long, env = "FLUTECAST_NATS", value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// The MQTT port; without it the two MQTT devices publish over NATS.
    #[arg(long, env = "FLUTECAST_MQTT", value_name = "HOST:PORT")]
    mqtt: Option<MqttAddress>,
    /// The same seed gives the same messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The tenant whose devices these are.
    #[arg(long, default_value = "demo")]
    tenant: TenantName,
    /// How much faster than real time the line lives, 0.1 to 20: twice as fast sends twice as many messages.
    #[arg(long, default_value = "1", value_parser = rate_factor)]
    rate_factor: f64,
    /// For how long (30s, 5m); left out: until SIGTERM or Ctrl-C.
    #[arg(long, value_parser = duration::parse)]
    duration: Option<Duration>,
    /// How many percent of the cyclic messages come after a newer one.
    #[arg(long, default_value = "1", value_parser = percent)]
    late_percent: f64,
    /// How many percent of all messages come twice.
    #[arg(long, default_value = "1", value_parser = percent)]
    duplicate_percent: f64,
    /// How many percent of the MES messages hold a malformed item.
    #[arg(long, default_value = "4", value_parser = percent)]
    malformed_percent: f64,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
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
        let shutdown = signal::shutdown_token().context("listening to signals")?;
        match cli.command {
            Command::Line(args) => play(&args.into(), &shutdown).await.map(|_| ()),
        }
    })
}

impl From<LineArgs> for PlayOptions {
    fn from(args: LineArgs) -> Self {
        let LineArgs {
            nats,
            mqtt,
            seed,
            tenant,
            rate_factor,
            duration,
            late_percent,
            duplicate_percent,
            malformed_percent,
        } = args;
        let name = format!("flutecast-line-{tenant}");
        let disturbance = Disturbance { late_percent, duplicate_percent, malformed_percent };
        Self {
            line: LineOptions { tenant, seed, disturbance },
            publish: PublishOptions { nats, mqtt, name },
            rate_factor,
            duration,
        }
    }
}

fn rate_factor(text: &str) -> Result<f64, String> {
    number_between(text, 0.1, 20.0)
}

fn percent(text: &str) -> Result<f64, String> {
    number_between(text, 0.0, 100.0)
}

fn number_between(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a number from {least} to {most}")),
    }
}
