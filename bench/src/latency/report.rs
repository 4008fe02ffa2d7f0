//! The report, for people and for programs.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The result of one run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyReport {
    /// Messages a second that were asked for.
    pub rate: u32,
    /// Messages a second that were sent.
    pub sent_rate: f64,
    /// The longest delay of the sender itself, in microseconds.
    pub sender_behind_us: u64,
    pub devices: usize,
    /// Flutecast's way, from the publish to the SSE client.
    pub sse: PathReport,
    /// The broker alone: from the publish to a plain subscriber of the republished subjects.
    pub broker: PathReport,
    /// `gap`, `refused` and `bye` events that SSE clients got.
    pub strange_events: u64,
    /// The processes that were named.
    pub processes: Vec<ProcessReport>,
}

impl LatencyReport {
    /// Flutecast's median over the broker's.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a minute")]
    pub fn median_ratio(&self) -> f64 {
        self.sse.median_us as f64 / self.broker.median_us.max(1) as f64
    }

    /// Returns whether every receiver got every message.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.sse.received == self.sse.expected && self.broker.received == self.broker.expected
    }
}

/// The result of the receivers of one kind.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathReport {
    /// Number of receivers.
    pub clients: usize,
    /// Number of messages they should have got, all together.
    pub expected: u64,
    pub received: u64,
    /// The median, in microseconds.
    pub median_us: u64,
    /// The 90th percentile.
    pub p90_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl PathReport {
    pub(crate) fn new(clients: usize, expected: u64, received: u64, histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            clients,
            expected,
            received,
            median_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            max_us: histogram.max(),
        }
    }
}

/// Memory and processor time of a process.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessReport {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its resident memory after the run, in KiB.
    pub rss_kib: u64,
    /// The processor time of the run, in seconds.
    pub cpu_s: f64,
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent_rate, sender_behind_us, devices, sse, broker, strange_events, processes, .. } = self;
        writeln!(
            f,
            "{sent_rate:.0} messages/s of {devices} devices; the sender was late by {} at most",
            millis(*sender_behind_us)
        )?;
        writeln!(f, "| path | clients | expected | received | median | p90 | p99 | max |")?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for (name, path) in [("device → SSE client", sse), ("device → NATS subscriber", broker)] {
            let PathReport { clients, expected, received, median_us, p90_us, p99_us, max_us } = path;
            let times = [median_us, p90_us, p99_us, max_us].map(|us| millis(*us)).join(" | ");
            writeln!(f, "| {name} | {clients} | {expected} | {received} | {times} |")?;
        }
        writeln!(f, "The median is {:.1} times that of the broker alone.", self.median_ratio())?;
        if *strange_events > 0 {
            writeln!(f, "{strange_events} gap, refused or bye events came.")?;
        }
        for ProcessReport { pid, name, rss_kib, cpu_s } in processes {
            let mib = rss_kib / 1024;
            writeln!(f, "{name} ({pid}): {mib} MiB resident, {cpu_s:.2} s of processor time")?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of a minute")]
pub(crate) fn millis(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}
