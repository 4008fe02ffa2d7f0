//! Runs many SSE clients and says, line by line, what they have seen.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use flutecast_testkit::fleet::{Fleet, FleetOptions, FleetReport, OnBadAnswer};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use flutecast_demo::duration;

/// Options of `flutecast-bench fleet`.
#[derive(Debug, Args)]
pub struct FleetArgs {
    /// The event stream that each client opens, `http://host:port/v1/…/events?…`.
    #[arg(long)]
    url: String,
    /// Number of clients.
    #[arg(long, default_value_t = 100)]
    clients: usize,
    /// Number of them that start per second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    per_second: u32,
    /// The value that counts up by one with each message of an `Every` channel.
    #[arg(long, value_name = "NAME", default_value = "n")]
    number_field: String,
    /// The token, sent in a header.
    #[arg(long, env = "FLUTECAST_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Come back after an answer that is no event stream, as flutecast.js does; without it such a client is
    /// over, as an EventSource is.
    #[arg(long)]
    come_back: bool,
    /// Interval between printed lines.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    every: Duration,
    /// Duration, such as 30s or 5m (default: until SIGTERM or Ctrl-C).
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,
}

/// Runs until the time is over or `shutdown`. Each line on standard output is a whole report in JSON; the
/// last one is the last.
///
/// # Errors
/// Returns an error if the address makes no sense, or the reports can't be written.
pub async fn run(args: &FleetArgs, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let FleetArgs { url, clients, per_second, number_field, token, come_back, every, duration } = args;
    let authorization = token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
    let fleet = Fleet::start(&FleetOptions {
        url: url.clone(),
        headers: authorization.collect(),
        clients: *clients,
        per_second: *per_second,
        number_field: number_field.clone(),
        on_bad_answer: if *come_back { OnBadAnswer::ComeBack } else { OnBadAnswer::GiveUp },
    })?;
    let begin = Instant::now();
    let end = duration.map(|duration| begin + duration);
    let mut next = begin;
    loop {
        next += *every;
        let until = end.map_or(next, |end| end.min(next));
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = sleep_until(until) => {}
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        print(&fleet.report())?;
    }
    print(&fleet.stop().await)
}

fn print(report: &FleetReport) -> anyhow::Result<()> {
    let line = serde_json::to_string(report)? + "\n";
    let mut stdout = std::io::stdout();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).context("writing a report")
}
