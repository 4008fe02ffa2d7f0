//! Runs many SSE clients in one process. They reconnect as an `EventSource` does, drop repeated events by id,
//! and report missed events and the time without data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Uri;
use tokio::task::JoinSet;
use tokio::time::sleep;

mod body_decoder;
mod client;
mod merge;
mod record;
mod report;

pub use record::{Record, Records};
pub use report::{FleetReport, Newest, Spread};

use crate::wait_until;
use client::{Client, Seen, locked};

#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The URL of the event stream, `http://host:port/v1/…/events?…`.
    pub url: String,
    /// Additional headers, such as `Authorization`.
    pub headers: Vec<(String, String)>,
    pub clients: usize,
    /// Number of them that start per second.
    pub per_second: u32,
    /// The name of the value that increases by one with each message of an `Every` channel.
    pub number_field: String,
    pub on_bad_answer: OnBadAnswer,
}

/// The reaction of a client to a response that is not an event stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBadAnswer {
    /// Never reconnect, as an `EventSource` does.
    #[default]
    GiveUp,
    /// Reconnect later, as `flutecast.js` does.
    ComeBack,
}

impl FleetOptions {
    /// Returns the options for `clients` clients of an event stream whose messages are numbered in the value
    /// `n`.
    #[must_use]
    pub fn new(url: impl Into<String>, clients: usize) -> Self {
        Self {
            url: url.into(),
            headers: Vec::new(),
            clients,
            per_second: 500,
            number_field: "n".to_owned(),
            on_bad_answer: OnBadAnswer::GiveUp,
        }
    }
}

/// The server's address, prepared for requests.
#[derive(Debug)]
struct Target {
    address: String,
    authority: String,
    path: String,
    /// Complete header lines.
    headers: String,
    number_field: String,
    on_bad_answer: OnBadAnswer,
}

impl Target {
    fn new(options: &FleetOptions) -> anyhow::Result<Self> {
        let FleetOptions { url, headers, number_field, on_bad_answer, .. } = options;
        let uri: Uri = url.parse().with_context(|| url.clone())?;
        ensure!(uri.scheme_str() == Some("http"), "{url}: a fleet speaks http only");
        let authority = uri.authority().with_context(|| format!("{url} has no host"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self {
            address: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            authority: authority.to_string(),
            path,
            headers: headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect(),
            number_field: number_field.clone(),
            on_bad_answer: *on_bad_answer,
        })
    }
}

/// Running clients. Dropping the fleet ends them.
#[derive(Debug)]
pub struct Fleet {
    seen: Vec<Arc<Mutex<Seen>>>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Starts the clients at the configured rate and returns at once.
    ///
    /// # Errors
    /// Returns an error if the URL is invalid or not `http`.
    pub fn start(options: &FleetOptions) -> anyhow::Result<Self> {
        Self::start_with(options, None)
    }

    /// Starts clients that also record every new event; see [`Self::records`].
    ///
    /// # Errors
    /// Returns an error if the URL is invalid or not `http`.
    pub fn start_recording(options: &FleetOptions) -> anyhow::Result<Self> {
        Self::start_with(options, Some(&Records::new()))
    }

    fn start_with(options: &FleetOptions, records: Option<&Records>) -> anyhow::Result<Self> {
        let target = Arc::new(Target::new(options)?);
        let pause = Duration::from_secs(1) / options.per_second.max(1);
        let mut fleet = Self { seen: Vec::with_capacity(options.clients), tasks: JoinSet::new() };
        for number in 0..options.clients {
            let seen = Arc::new(Mutex::new(Seen { records: records.cloned(), ..Seen::default() }));
            fleet.seen.push(Arc::clone(&seen));
            let client = Client::new(Arc::clone(&target), seen);
            let wait = pause * u32::try_from(number).unwrap_or(u32::MAX);
            fleet.tasks.spawn(async move {
                sleep(wait).await;
                client.run().await;
            });
        }
        Ok(fleet)
    }

    /// Returns the new events of each client; empty unless the clients record.
    #[must_use]
    pub fn records(&self) -> Vec<Records> {
        self.seen.iter().map(|seen| locked(seen).records.clone().unwrap_or_default()).collect()
    }

    /// Waits until the report satisfies `wanted`, and returns it.
    ///
    /// # Errors
    /// Returns an error with the last report if `deadline` passes first.
    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        mut wanted: impl FnMut(&FleetReport) -> bool,
    ) -> anyhow::Result<FleetReport> {
        wait_until(what, deadline, async || match self.report() {
            report if wanted(&report) => Ok(report),
            report => Err(format!("{report:#?}")),
        })
        .await
    }

    #[must_use]
    pub fn report(&self) -> FleetReport {
        let mut report =
            FleetReport { clients: self.seen.len(), memory_kib: memory_kib(), ..FleetReport::default() };
        let (mut without_data, mut without_stream) = (Vec::new(), Vec::new());
        let mut newest: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for seen in &self.seen {
            let seen = locked(seen);
            if let Some(server) = &seen.server {
                report.connected += 1;
                *report.servers.entry(server.clone()).or_default() += 1;
            }
            report.failed += usize::from(seen.failed);
            report.welcomes += seen.welcomes;
            report.breaks += seen.breaks;
            report.unreachable += seen.unreachable;
            report.silent += seen.silent;
            report.events += seen.events;
            report.merged += seen.merged;
            report.lost += seen.lost;
            report.wrong += seen.wrong;
            report.strange += seen.strange;
            add(&mut report.byes, &seen.byes);
            add(&mut report.gaps, &seen.gaps);
            add(&mut report.bad_answers, &seen.bad_answers);
            report.most_reconnects = report.most_reconnects.max(seen.welcomes.saturating_sub(1));
            without_data.push(millis(seen.longest_without_data()));
            without_stream.push(millis(seen.longest_without_stream()));
            for (channel, number) in seen.merge.numbers() {
                match newest.get_mut(channel) {
                    Some(numbers) => numbers.push(number),
                    None => drop(newest.insert(channel.to_owned(), vec![number])),
                }
            }
        }
        report.newest = newest.into_iter().map(|(channel, numbers)| (channel, newest_of(&numbers))).collect();
        report.without_data = Spread::of(without_data);
        report.without_stream = Spread::of(without_stream);
        report
    }

    /// Ends the clients and returns the last report.
    pub async fn stop(mut self) -> FleetReport {
        let report = self.report();
        self.tasks.shutdown().await;
        report
    }
}

fn newest_of(numbers: &[u64]) -> Newest {
    let number = numbers.iter().copied().max().unwrap_or(0);
    Newest { number, behind: numbers.iter().filter(|known| **known < number).count() }
}

fn add<K: Clone + Ord>(all: &mut BTreeMap<K, u64>, one: &BTreeMap<K, u64>) {
    for (reason, count) in one {
        *all.entry(reason.clone()).or_default() += count;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}
