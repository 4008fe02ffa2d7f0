//! `flutecast-demo line`: runs only the simulated line.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use flutecast_contract::name::TenantName;
use flutecast_demo::duration;
use flutecast_demo::line::{Disturbance, LineOptions};
use flutecast_demo::play::{PlayOptions, play};
use flutecast_demo::publish::{MqttAddress, PublishOptions};
use flutecast_process::shutdown::Shutdown;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
pub(crate) struct LineArgs {
    /// The NATS URL, which may contain a login (nats://user:password@host:4222).
    #[arg(
        long,
        env = "FLUTECAST_NATS",
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    nats: String,
    /// The MQTT address; without it the two MQTT devices publish over NATS.
    #[arg(long, env = "FLUTECAST_MQTT", value_name = "[USER:PASSWORD@]HOST:PORT", hide_env_values = true)]
    mqtt: Option<MqttAddress>,
    /// The same seed gives the same messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The tenant of the devices.
    #[arg(long, default_value = "demo")]
    tenant: TenantName,
    /// Speed of the line as a multiple of real time, 0.1 to 20; at 2 it sends twice as many messages.
    #[arg(long, default_value = "1", value_parser = rate_factor)]
    rate_factor: f64,
    /// Duration, such as 30s or 5m (default: until SIGTERM or Ctrl-C).
    #[arg(long, value_parser = duration::parse)]
    duration: Option<Duration>,
    /// Share of the cyclic messages that come after a newer one, in percent.
    #[arg(long, default_value = "1", value_parser = percent)]
    late_percent: f64,
    /// Share of all messages that come twice, in percent.
    #[arg(long, default_value = "1", value_parser = percent)]
    duplicate_percent: f64,
    /// Share of the MES messages with a malformed item, in percent.
    #[arg(long, default_value = "4", value_parser = percent)]
    malformed_percent: f64,
}

/// Plays the line until its duration ends or the process receives a signal to end.
pub(crate) async fn run(args: LineArgs) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,flutecast_demo=info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    let shutdown = Shutdown::on_signals()?.asked;
    play(&args.into(), &shutdown).await.map(drop)
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
