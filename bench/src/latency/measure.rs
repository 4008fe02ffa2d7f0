//! One run: connect, warm up, send, wait for the last message, report.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use flutecast_contract::name::TenantName;
use flutecast_contract::subject;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::clock::{Clock, micros};
use super::receive::{SseTarget, Watcher};
use super::recorder::Recorder;
use super::report::{LatencyReport, PathReport, ProcessReport};
use super::send::{Load, Sent};
use crate::manifests::{self, BenchDevice};
use crate::process_stats::ProcessStats;

/// Longest time that the last messages may take to arrive.
const LAST_MESSAGES: Duration = Duration::from_secs(5);
/// Interval between looks whether they have.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time that connecting to the broker may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of a measurement.
#[derive(Debug, Clone)]
pub struct LatencyOptions {
    /// The broker.
    pub nats: String,
    /// The data plane, `http://host:port`.
    pub http: String,
    /// The tenant; its devices are those of [`manifests`].
    pub tenant: TenantName,
    /// Number of devices that send.
    pub devices: u32,
    /// Messages a second, all devices together.
    pub rate: u32,
    /// The time in which messages are sent before they count.
    pub warm_up: Duration,
    /// The time in which messages count.
    pub duration: Duration,
    /// Number of SSE clients.
    pub clients: usize,
    /// Number of devices that each of them watches, in turn; `None` for all.
    pub per_client: Option<u32>,
    /// Processes to report.
    pub pids: Vec<u32>,
}

/// Runs one measurement.
///
/// # Errors
/// Returns an error if something can't be reached, or a client is closed meanwhile. Messages that don't
/// arrive are no error: see the report.
pub async fn run(options: &LatencyOptions, shutdown: &CancellationToken) -> anyhow::Result<LatencyReport> {
    let LatencyOptions { nats, tenant, rate, warm_up, duration, clients, pids, .. } = options;
    ensure!(
        (1..=manifests::MOST_DEVICES).contains(&options.devices),
        "devices: 1 to {}",
        manifests::MOST_DEVICES
    );
    ensure!(*rate > 0, "rate: at least 1 message/s");
    let devices = manifests::devices(tenant, options.devices).context("device codes")?;
    let clock = Clock::start();
    let client = timeout(CONNECT_TIMEOUT, async_nats::connect(nats))
        .await
        .context("connecting to the broker")?
        .with_context(|| nats.clone())?;
    let (by_sse, by_broker) = (Recorder::new()?, Recorder::new()?);
    let mut broker = Watcher::nats(nats, subject::live_all(tenant), clock, by_broker.clone()).await?;
    let views = views(options, &devices);
    let targets = targets(options, &devices, &views)?;
    let mut sse = Watcher::sse(&targets, clock, Some(&by_sse)).await?;

    let from_us = clock.now_us() + micros(*warm_up);
    let window = from_us..from_us + micros(*duration);
    by_sse.open(window.clone());
    by_broker.open(window.clone());
    let load = Load { devices: &devices, rate: *rate, window };
    // The processor time of the warm-up doesn't count.
    let at_start = async {
        sleep(*warm_up).await;
        read_all(pids)
    };
    let (sent, before) = tokio::join!(load.send(&client, clock, shutdown), at_start);
    let (sent, before) = (sent?, before?);
    let expected = expected(&sent, &views);
    let end = Instant::now() + LAST_MESSAGES;
    while (by_sse.received() < expected || by_broker.received() < sent.total()) && Instant::now() < end {
        if let Some(reason) = sse.ended().or_else(|| broker.ended()) {
            anyhow::bail!("a receiver ended: {reason}");
        }
        sleep(LOOK).await;
    }
    let after = read_all(pids)?;

    #[allow(clippy::cast_precision_loss, reason = "a message count")]
    let sent_rate = sent.total() as f64 / duration.as_secs_f64();
    Ok(LatencyReport {
        rate: *rate,
        sent_rate,
        sender_behind_us: sent.behind_us,
        devices: devices.len(),
        sse: PathReport::new(*clients, expected, by_sse.received(), &by_sse.merged()?),
        broker: PathReport::new(1, sent.total(), by_broker.received(), &by_broker.merged()?),
        strange_events: sse.strange_events(),
        processes: processes(pids, &before, &after),
    })
}

/// Returns the devices that each client watches, by index.
fn views(options: &LatencyOptions, devices: &[BenchDevice]) -> Vec<Vec<usize>> {
    let count = devices.len();
    let of_client = |client: usize| match options.per_client {
        Some(size) => {
            let size = (size as usize).clamp(1, count);
            (0..size).map(|index| (client * size + index) % count).collect()
        }
        None => (0..count).collect(),
    };
    (0..options.clients).map(of_client).collect()
}

fn targets(
    options: &LatencyOptions,
    devices: &[BenchDevice],
    views: &[Vec<usize>],
) -> anyhow::Result<Vec<SseTarget>> {
    let target = |view: &Vec<usize>| {
        let (http, tenant) = (&options.http, options.tenant.as_str());
        if view.len() == devices.len() {
            return SseTarget::all(http, tenant, devices.len());
        }
        let codes: Vec<String> = view.iter().map(|index| devices[*index].code.to_string()).collect();
        SseTarget::some(http, tenant, &codes)
    };
    views.iter().map(target).collect()
}

/// Returns the number of messages that all clients together should get.
fn expected(sent: &Sent, views: &[Vec<usize>]) -> u64 {
    views.iter().flatten().map(|device| sent.by_device[*device]).sum()
}

fn read_all(pids: &[u32]) -> anyhow::Result<Vec<ProcessStats>> {
    pids.iter().map(|pid| ProcessStats::read(*pid)).collect()
}

fn processes(pids: &[u32], before: &[ProcessStats], after: &[ProcessStats]) -> Vec<ProcessReport> {
    let report = |(pid, (before, after)): (&u32, (&ProcessStats, &ProcessStats))| ProcessReport {
        pid: *pid,
        name: after.name.clone(),
        rss_kib: after.rss_kib,
        cpu_s: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
    };
    pids.iter().zip(before.iter().zip(after)).map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(clients: usize, per_client: Option<u32>) -> LatencyOptions {
        LatencyOptions {
            nats: String::new(),
            http: "http://127.0.0.1:8080".to_owned(),
            tenant: TenantName::new("bench").unwrap(),
            devices: 3,
            rate: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(1),
            clients,
            per_client,
            pids: Vec::new(),
        }
    }

    #[test]
    fn each_client_is_expected_to_get_what_its_devices_send() {
        let devices = manifests::devices(&TenantName::new("bench").unwrap(), 3).unwrap();
        let sent = Sent { by_device: vec![1, 10, 100], behind_us: 0 };
        let all = views(&options(2, None), &devices);
        assert_eq!(expected(&sent, &all), 222);
        let some = views(&options(2, Some(2)), &devices);
        assert_eq!(some, [vec![0, 1], vec![2, 0]]);
        assert_eq!(expected(&sent, &some), 112);
        let more_than_there_are = views(&options(1, Some(9)), &devices);
        assert_eq!(expected(&sent, &more_than_there_are), 111);
    }

    #[test]
    fn targets_name_the_devices() {
        let options = options(2, Some(1));
        let devices = manifests::devices(&options.tenant, 3).unwrap();
        let targets = targets(&options, &devices, &views(&options, &devices)).unwrap();
        assert!(format!("{:?}", targets[1]).contains("/v1/bench/events?device=bench-0002"), "{targets:?}");
    }
}
