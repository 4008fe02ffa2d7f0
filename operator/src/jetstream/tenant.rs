//! Reconciles one tenant's streams, sources and consumers, with as few calls as possible.
//!
//! Guarantees: a stream that is as wanted is not touched; a stream of another owner, or of none, is never
//! touched; no stream is deleted to create it again. A source is switched in an order that loses no stored
//! message:
//!
//! 1. The stream of a source that goes stops capturing: it is *parked* on a subject that is not used, which
//!    frees its subject.
//! 2. Sources that come or change start capturing. Their streams note the sequence from which the new reading
//!    holds.
//! 3. The tenant's stream reads the remaining messages of the old reading, for a few seconds at most, and
//!    then gets the new list.
//! 4. The streams of sources that went are deleted. For a payload source that is when the data plane has
//!    split the rest, or after a few seconds.
//! 5. The stream of the last values follows.
//!
//! Each step can be repeated: if the operator dies in between, the next pass finds the state in the streams
//! themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_contract::subject;
use flutecast_nats::api::StreamInfo;
use flutecast_nats::{JetStreamApi, RequestError};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::capture::{self, Capture, NextChange};
use super::orphans::{Released, without_owner};
use super::settings::{self, OWNER_NAMESPACE, Ownership, READ_FROM, READING, SourceEntry, ownership};
use crate::finding::{Finding, Reason};
use crate::jetstream::streams::{OnDelete, Reading, SPLIT_CONSUMER, SourceStream, TenantStreams};

/// The longest wait for the tenant's stream to catch up before a source is switched anyway. Normally it lags
/// by milliseconds. If the broker has trouble, the switch must not wait forever.
const CATCH_UP: Duration = Duration::from_secs(5);
/// The shortest wait if the server doesn't report its progress.
const CATCH_UP_BLINDLY: Duration = Duration::from_secs(1);
/// The interval at which the progress is checked.
const CATCH_UP_LOOK: Duration = Duration::from_millis(50);

/// All streams of the account, by name.
pub(crate) type Streams = BTreeMap<String, StreamInfo>;

/// The result for one tenant's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Number of calls that changed something.
    pub(crate) changes: u32,
    pub(crate) findings: Vec<Finding>,
    /// `true` if the stream with the tenant's name has another owner, so that it must not be read on behalf
    /// of this tenant.
    pub(crate) foreign: bool,
    /// `true` if the tenant has its stream, changed or not.
    pub(crate) has_stream: bool,
    /// `true` if it has its stream of last values, changed or not.
    pub(crate) has_kept: bool,
}

/// Reconciles one tenant's streams, given all streams that exist.
///
/// # Errors
/// Returns [`RequestError::Unavailable`] if the broker can't be reached; a refusal of the broker is a finding
/// instead.
pub(crate) async fn apply(
    api: &JetStreamApi,
    streams: &Streams,
    wanted: &TenantStreams,
) -> Result<Applied, RequestError> {
    let mut pass = TenantPass { api, streams, wanted, applied: Applied::default(), parked: BTreeMap::new() };
    // Set from the start: if a request is refused on the way, a stream of another owner must not become the
    // tenant's.
    if let Some(stream) = streams.get(&wanted.stream.name) {
        let is_ours = ownership(stream, &wanted.owner) == Ownership::Ours;
        pass.applied = Applied { has_stream: is_ours, foreign: !is_ours, ..Applied::default() };
    }
    if let Err(error) = pass.run().await {
        pass.note("a question about its streams", Err(error))?;
    }
    Ok(pass.applied)
}

/// Releases the streams of a tenant that went: deletes them, or keeps them for the next Tenant of this name.
pub(crate) async fn remove(
    api: &JetStreamApi,
    streams: &Streams,
    gone: &TenantStreams,
) -> Result<Released, RequestError> {
    let mut all = Released::default();
    let prefix = subject::source_stream_prefix(&gone.tenant);
    // The tenant's stream goes first, so that it doesn't report errors about missing sources.
    let own = [&gone.stream.name, &gone.kept.name];
    let names = own.into_iter().chain(streams.keys().filter(|name| name.starts_with(&prefix)));
    for name in names {
        let Some(stream) = streams.get(name) else { continue };
        if ownership(stream, &gone.owner) != Ownership::Ours {
            continue;
        }
        let ended = match (gone.on_delete, without_owner(name, stream)) {
            (OnDelete::Delete, _) => api.delete_stream(name).await,
            (OnDelete::Keep, Some(config)) => api.update_stream(name, config).await.map(drop),
            (OnDelete::Keep, None) => continue,
        };
        all.note(name, ended)?;
    }
    Ok(all)
}

/// The sources that the tenant's stream is to read.
#[derive(Default)]
struct Sources {
    wanted: Vec<SourceEntry>,
    /// The streams of sources that stay as they are, because the broker refuses the change.
    kept: Vec<String>,
    /// The streams that were just created.
    made: Vec<String>,
}

/// The result for one source's stream.
enum SourceState {
    /// It is as wanted, and is read from this sequence.
    Reading(u64),
    /// The same, and it was just created.
    Created(u64),
    /// It exists, but not as wanted.
    Refused,
    /// There is none that may be used.
    Absent,
}

struct TenantPass<'a> {
    api: &'a JetStreamApi,
    streams: &'a Streams,
    wanted: &'a TenantStreams,
    applied: Applied,
    /// The settings of the parked streams, by name.
    parked: BTreeMap<String, Map<String, Value>>,
}

impl TenantPass<'_> {
    async fn run(&mut self) -> Result<(), RequestError> {
        let leaving = self.park_leaving().await?;
        let sources = self.put_sources().await?;
        if self.put_stream(&sources).await? {
            self.delete_leaving(&leaving).await?;
        }
        if self.applied.has_stream {
            self.put_kept().await?;
        }
        Ok(())
    }

    /// Step 1: parks the tenant's streams whose source is no longer wanted. Returns their names.
    async fn park_leaving(&mut self) -> Result<Vec<String>, RequestError> {
        let prefix = subject::source_stream_prefix(&self.wanted.tenant);
        let mut leaving = Vec::new();
        for (name, stream) in
            self.streams.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix))
        {
            let wanted = self.wanted.sources.iter().any(|source| source.stream.name == *name);
            if wanted || ownership(stream, &self.wanted.owner) != Ownership::Ours {
                continue;
            }
            leaving.push(name.clone());
        }
        for name in &leaving {
            self.park(name).await?;
        }
        Ok(leaving)
    }

    /// Step 2: creates or changes the stream of each wanted source, and its consumer if it needs one. NATS
    /// doesn't let two streams capture one subject, so they change in an order in which each finds its
    /// subject free. If sources exchange subjects in a cycle, one of them stops capturing for a moment.
    async fn put_sources(&mut self) -> Result<Sources, RequestError> {
        let mut sources = Sources::default();
        let mut pending: Vec<(&SourceStream, Capture)> =
            self.wanted.sources.iter().map(|source| (source, self.capture(source))).collect();
        loop {
            let captures: Vec<&Capture> = pending.iter().map(|(_, capture)| capture).collect();
            let free = match capture::next(&captures) {
                None => break,
                Some(NextChange::Change(free)) => free,
                Some(NextChange::Park(first)) => {
                    let (source, capture) = &mut pending[first];
                    capture.park();
                    let name = source.stream.name.clone();
                    self.park(&name).await?;
                    continue;
                }
            };
            let (source, _) = pending.remove(free);
            let stream = source.stream.name.clone();
            match (self.put_source(source).await?, &source.reading) {
                (
                    put @ (SourceState::Reading(start) | SourceState::Created(start)),
                    Reading::Transform { from, to },
                ) => {
                    if matches!(put, SourceState::Created(_)) {
                        sources.made.push(stream.clone());
                    }
                    sources.wanted.push(SourceEntry { stream, from: from.clone(), to: to.clone(), start });
                }
                (SourceState::Reading(_) | SourceState::Created(_), Reading::Split { consumer }) => {
                    self.put_consumer(source, consumer).await?
                }
                (SourceState::Refused, _) => sources.kept.push(stream),
                (SourceState::Absent, _) => {}
            }
        }
        Ok(sources)
    }

    /// Returns what a source's stream captures now and later.
    fn capture(&self, source: &SourceStream) -> Capture {
        let stream = self.streams.get(&source.stream.name);
        let ours = stream.filter(|stream| ownership(stream, &self.wanted.owner) == Ownership::Ours);
        let current = ours.and_then(|stream| stream.config.get("subjects")?.as_array());
        let current = current.into_iter().flatten().filter_map(Value::as_str);
        Capture::new(current, source.stream.subjects.iter().map(String::as_str))
    }

    /// Makes a source's stream capture nothing.
    async fn park(&mut self, name: &str) -> Result<(), RequestError> {
        let Some(stream) = self.streams.get(name) else { return Ok(()) };
        let mut parked = stream.config.clone();
        settings::capture_nothing(&mut parked, name);
        if self.update(name, &stream.config, parked.clone()).await? {
            self.parked.insert(name.to_owned(), parked);
        }
        Ok(())
    }

    /// Creates or changes one source's stream.
    async fn put_source(&mut self, source: &SourceStream) -> Result<SourceState, RequestError> {
        let name = &source.stream.name;
        let reading = describe(source);
        let Some(stream) = self.streams.get(name) else {
            let mut config = settings::merge_stream(&Map::new(), &source.stream);
            // Sequences of a source must not repeat, also when its stream is created again: the tenant's
            // stream remembers the last one that it took, and message ids made of them would count as
            // duplicates. So the first one is the time in µs.
            let first = microseconds_since_1970();
            config.insert("first_seq".to_owned(), first.into());
            self.set_metadata(&mut config, &[(READING, Some(reading)), (READ_FROM, Some(first.to_string()))]);
            return Ok(if self.create(name, config).await? {
                SourceState::Created(first)
            } else {
                SourceState::Absent
            });
        };
        if !self.is_ours(name, stream) {
            return Ok(SourceState::Absent);
        }
        let noted =
            stream.metadata(READ_FROM).and_then(|noted| noted.parse().ok()).unwrap_or(stream.first_sequence);
        let start = if stream.metadata(READING) == Some(&reading) { noted } else { stream.last_sequence + 1 };
        let current = self.parked.get(name).unwrap_or(&stream.config).clone();
        let mut config = settings::merge_stream(&current, &source.stream);
        self.set_metadata(&mut config, &[(READING, Some(reading)), (READ_FROM, Some(start.to_string()))]);
        Ok(if self.update(name, &current, config).await? {
            SourceState::Reading(start)
        } else {
            SourceState::Refused
        })
    }

    async fn put_consumer(&mut self, source: &SourceStream, consumer: &str) -> Result<(), RequestError> {
        let stream = &source.stream.name;
        let wanted = settings::split_consumer(source, consumer);
        let current = self.api.consumer(stream, consumer).await?;
        let current = current.as_ref().and_then(|info| info["config"].as_object());
        let config = match current {
            Some(current) => settings::merged(current, &wanted),
            None => wanted,
        };
        if current.is_some_and(|current| settings::same(current, &config)) {
            return Ok(());
        }
        let put = self.api.put_consumer(stream, consumer, Value::Object(config)).await;
        self.note(&format!("the consumer {consumer} of stream {stream}"), put.map(drop)).map(drop)
    }

    /// Step 3: creates or changes the tenant's stream. Returns whether it reads what it should.
    async fn put_stream(&mut self, sources: &Sources) -> Result<bool, RequestError> {
        let name = &self.wanted.stream.name;
        let Some(stream) = self.streams.get(name) else {
            let mut config = settings::merge_stream(&Map::new(), &self.wanted.stream);
            self.set_metadata(&mut config, &[]);
            settings::merge_sources(&mut config, &sources.wanted, &sources.kept);
            self.applied.has_stream = self.create(name, config).await?;
            return Ok(self.applied.has_stream);
        };
        if !self.is_ours(name, stream) {
            return Ok(false);
        }
        let mut current = stream.config.clone();
        // A stream notices only after up to twenty seconds that a stream it reads from was deleted and
        // created again. If that source is removed first, it notices at once.
        let forgetful = settings::without_sources(&current, &sources.made);
        if self.update(name, &current, forgetful.clone()).await? {
            current = forgetful;
        }
        let mut config = settings::merge_stream(&current, &self.wanted.stream);
        self.set_metadata(&mut config, &[]);
        settings::merge_sources(&mut config, &sources.wanted, &sources.kept);
        for (source, subject) in settings::ending_sources(&current, &config) {
            self.catch_up(name, &source, &subject).await?;
        }
        self.update(name, &current, config).await
    }

    /// Step 5: creates or changes the stream of the last values, without which everything else works.
    async fn put_kept(&mut self) -> Result<(), RequestError> {
        let name = &self.wanted.kept.name;
        let stream = self.streams.get(name);
        if stream.is_some_and(|stream| !self.is_ours(name, stream)) {
            return Ok(());
        }
        let current = stream.map(|stream| stream.config.clone()).unwrap_or_default();
        let mut config = settings::merge_stream(&current, &self.wanted.kept);
        self.set_metadata(&mut config, &[]);
        let is_as_wanted = match stream {
            None => self.create(name, config).await?,
            Some(_) => self.update(name, &current, config).await?,
        };
        self.applied.has_kept = stream.is_some() || is_as_wanted;
        Ok(())
    }

    /// Waits until the stream has taken what `source` holds on `subject` now, for [`CATCH_UP`] at most.
    async fn catch_up(&self, name: &str, source: &str, subject: &str) -> Result<(), RequestError> {
        let Some(last) = self.api.last_sequence_on(source, subject).await? else { return Ok(()) };
        let started = Instant::now();
        loop {
            let Some(stream) = self.api.stream(name).await? else { return Ok(()) };
            let Some(progress) = stream.sources.into_iter().find(|progress| progress.stream == source) else {
                return Ok(());
            };
            let done = match progress.sequence {
                Some(sequence) => sequence >= last,
                // An older server reports only the lag, which is zero at first as well.
                None => progress.heard && progress.lag == 0 && started.elapsed() >= CATCH_UP_BLINDLY,
            };
            if done {
                return Ok(());
            }
            if started.elapsed() >= CATCH_UP {
                tracing::warn!(
                    stream = name,
                    source,
                    "a source is switched although not all of its messages were taken"
                );
                return Ok(());
            }
            tokio::time::sleep(CATCH_UP_LOOK).await;
        }
    }

    /// Step 4: deletes the streams of sources that went.
    async fn delete_leaving(&mut self, leaving: &[String]) -> Result<(), RequestError> {
        for name in leaving {
            self.split_rest(name).await?;
            let deleted = self.api.delete_stream(name).await;
            self.note(&format!("stream {name} of a source that went"), deleted)?;
        }
        Ok(())
    }

    /// Waits until the data plane has split the remaining messages of a payload source, for [`CATCH_UP`] at
    /// most. For this reason the mapping has the source for a moment longer.
    async fn split_rest(&self, stream: &str) -> Result<(), RequestError> {
        let started = Instant::now();
        while let Some(consumer) = self.api.consumer(stream, SPLIT_CONSUMER).await? {
            let count = |field: &str| consumer[field].as_u64().unwrap_or(0);
            let rest = count("num_pending") + count("num_ack_pending");
            if rest == 0 {
                return Ok(());
            }
            if started.elapsed() >= CATCH_UP {
                tracing::warn!(
                    stream,
                    rest,
                    "a source is switched off although messages of it were not split yet"
                );
                return Ok(());
            }
            tokio::time::sleep(CATCH_UP_LOOK).await;
        }
        Ok(())
    }

    fn set_metadata(&self, config: &mut Map<String, Value>, more: &[(&'static str, Option<String>)]) {
        settings::set_metadata(config, &settings::owner_metadata(self.wanted));
        settings::set_metadata(config, more);
    }

    fn is_ours(&mut self, name: &str, stream: &StreamInfo) -> bool {
        match ownership(stream, &self.wanted.owner) {
            Ownership::Ours => true,
            Ownership::Other(owner) => {
                let message = format!(
                    "stream {name} exists and belongs to {owner}; it is left as it is. Delete it, or write \
                     {OWNER_NAMESPACE}={} and \
                     flutecast.io/owner-name={} into its metadata to hand it over",
                    self.wanted.owner.namespace, self.wanted.owner.name
                );
                self.applied.findings.push(Finding::new(Reason::StreamOwnedByOther, "", message));
                false
            }
        }
    }

    async fn create(&mut self, name: &str, config: Map<String, Value>) -> Result<bool, RequestError> {
        let created = self.api.create_stream(name, config).await;
        self.note(&format!("stream {name}"), created.map(drop))
    }

    /// Updates a stream if anything differs. Returns whether it is as wanted.
    async fn update(
        &mut self,
        name: &str,
        current: &Map<String, Value>,
        wanted: Map<String, Value>,
    ) -> Result<bool, RequestError> {
        if settings::same(current, &wanted) {
            return Ok(true);
        }
        if current.get("sealed") == Some(&Value::Bool(true)) {
            // NATS would accept the update, and change almost nothing.
            let message = format!(
                "stream {name} is sealed: it takes no messages, and NATS never opens it again. Delete it \
                 (nats stream rm {name}), and it is made anew"
            );
            self.applied.findings.push(Finding::new(Reason::StreamRefused, "", message));
            return Ok(false);
        }
        let (updated, now) = match self.api.update_stream(name, wanted.clone()).await {
            Ok(now) => (Ok(()), now.config),
            Err(error) => (Err(error), wanted.clone()),
        };
        let is_made = self.note(&format!("a change of stream {name}"), updated)?;
        let kept = settings::not_taken(&wanted, &now);
        if !kept.is_empty() {
            let message =
                format!("NATS takes a change of stream {name}, and leaves as they were: {}", kept.join(", "));
            self.applied.findings.push(Finding::new(Reason::StreamRefused, "", message));
        }
        Ok(is_made && kept.is_empty())
    }

    /// Counts a change, or turns a refusal into a finding with the broker's own words. Returns whether it was
    /// made.
    fn note(&mut self, what: &str, result: Result<(), RequestError>) -> Result<bool, RequestError> {
        match result {
            Ok(()) => {
                self.applied.changes += 1;
                tracing::info!(tenant = %self.wanted.tenant, "applied {what}");
                Ok(true)
            }
            Err(RequestError::Refused { code, description }) => {
                // 10065: subjects overlap with another stream's.
                let reason = if code == 10065 { Reason::SourceConflict } else { Reason::StreamRefused };
                let message = format!("NATS refuses {what}: {description} (error {code})");
                self.applied.findings.push(Finding::new(reason, "", message));
                Ok(false)
            }
            Err(away) => Err(away),
        }
    }
}

/// Returns a source's reading as one line of metadata.
fn describe(source: &SourceStream) -> String {
    match &source.reading {
        Reading::Transform { from, to } => format!("{from} -> {to}"),
        Reading::Split { consumer } => format!("{} -> consumer {consumer}", source.stream.subjects.join(",")),
    }
}

fn microseconds_since_1970() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
