//! The highest rate of messages without a rise in latency.

use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio_util::sync::CancellationToken;

use super::{DemoPathOptions, Plant};
use crate::latency::LatencyReport;

/// The rates that are tried, in messages/s, until one is too much.
const RATES: [u32; 7] = [2000, 5000, 10_000, 20_000, 30_000, 40_000, 60_000];
/// A 99th percentile above this means that messages queue, in microseconds.
const TOO_LONG_US: u64 = 50_000;
/// The duration of the trial of a rate.
const DURATION: Duration = Duration::from_secs(3);

/// One rate that was tried.
#[derive(Debug)]
pub(super) struct RateStep {
    pub(super) report: LatencyReport,
    pub(super) verdict: Verdict,
}

/// The outcome of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything arrives, soon.
    Sustained,
    /// The sender itself could not send so much: no statement about the other programs.
    SenderTooSlow,
    /// The broker dropped messages.
    BrokerLoses,
    /// Messages didn't arrive at the client, though the broker had them.
    ClientMisses,
    /// Everything arrives, but late.
    Queues,
}

impl Verdict {
    pub(super) fn of(report: &LatencyReport) -> Self {
        if report.sent_rate < 0.97 * f64::from(report.rate) {
            Self::SenderTooSlow
        } else if report.broker.received < report.broker.expected {
            Self::BrokerLoses
        } else if report.sse.received < report.sse.expected {
            Self::ClientMisses
        } else if report.sse.p99_us > TOO_LONG_US {
            Self::Queues
        } else {
            Self::Sustained
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Sustained => "sustained",
            Self::SenderTooSlow => "the sender is too slow",
            Self::BrokerLoses => "the broker drops messages",
            Self::ClientMisses => "messages are missing at the client",
            Self::Queues => "messages queue",
        }
    }
}

/// Tries higher and higher rates with one client on all devices; the last one is the first that is too much.
pub(super) async fn climb(
    plant: &Plant,
    tenant: &TenantName,
    options: &DemoPathOptions,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<RateStep>> {
    let mut steps = Vec::new();
    for rate in RATES {
        tracing::info!("{rate} messages/s");
        let report = plant.latency(tenant, options, rate, 1, DURATION, shutdown).await?;
        let verdict = Verdict::of(&report);
        steps.push(RateStep { report, verdict });
        if verdict != Verdict::Sustained {
            break;
        }
    }
    Ok(steps)
}
