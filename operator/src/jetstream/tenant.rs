//! Brings one tenant's streams, sources and consumers to what is wanted, with as few calls as that takes.
//!
//! Promises: a stream that is as wanted is not touched; one of another owner, or of nobody, is never touched;
//! none is deleted to be made anew. A source is switched in an order that loses nothing that was stored:
//!
//! 1. A source that goes stops to capture (its stream is *parked* on a subject that nobody uses), which frees
//!    its subject.
//! 2. Sources that come or change capture. Their stream notes from which sequence the new reading holds.
//! 3. The tenant's stream takes in what the old reading still holds, for a few seconds at most, and then gets
//!    the new list.
//! 4. Streams of sources that went are deleted, those of payload sources when the data plane has split the
//!    rest, or after a few seconds.
//!
//! Every step can be repeated: when the operator dies in between, the next pass finds the state in the
//! streams themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use flutecast_nats::api::StreamInfo;
use flutecast_nats::{JetStreamApi, RequestError};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::capture::{self, Capture, NextChange};
use super::orphans::{Released, without_owner};
use super::settings::{
    self, OWNER_NAMESPACE, OWNER_UID, Ownership, READ_FROM, READING, SourceEntry, ownership,
};
use crate::finding::{Finding, Reason};
use crate::jetstream::streams::{OnDelete, Reading, SPLIT_CONSUMER, SourceStream, TenantStreams};

/// How long the tenant's stream may take to catch up before a source is switched nevertheless. It is behind
/// by milliseconds unless the broker has trouble, and then a switch that the user asked for must not wait for
/// ever.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How long to wait at least when the server doesn't tell how far it is.
const CATCH_UP_BLINDLY: Duration = Duration::from_secs(1);
/// How often we look whether it has.
const CATCH_UP_LOOK: Duration = Duration::from_millis(50);

/// All streams of the account, by name.
pub(crate) type Streams = BTreeMap<String, StreamInfo>;

/// What became of one tenant's streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// How many calls changed something; zero when all was as wanted.
    pub(crate) changes: u32,
    /// What could not be done.
    pub(crate) findings: Vec<Finding>,
    /// Whether the stream with the tenant's name belongs to somebody else, so that nothing may be read from
    /// it in this tenant's name.
    pub(crate) foreign: bool,
    /// Whether the tenant has its stream, as wanted or as it was before.
    pub(crate) has_stream: bool,
}

/// Applies one tenant's streams, given all streams that exist.
///
/// # Errors
/// [`RequestError::Unavailable`] when the broker can't be asked; what the broker refuses is a finding instead.
pub(crate) async fn apply(
    api: &JetStreamApi,
    streams: &Streams,
    wanted: &TenantStreams,
) -> Result<Applied, RequestError> {
    let mut pass = TenantPass { api, streams, wanted, applied: Applied::default(), parked: BTreeMap::new() };
    // Known from the start: a question that is refused on the way must not make somebody else's stream the
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

/// Lets go of the streams of a tenant that went: deletes them, or keeps them for whoever comes next under the
/// same name.
///
/// # Errors
/// [`RequestError::Unavailable`]
pub(crate) async fn remove(
    api: &JetStreamApi,
    streams: &Streams,
    gone: &TenantStreams,
) -> Result<Released, RequestError> {
    let mut all = Released::default();
    let prefix = source_prefix(gone);
    // The tenant's stream goes first, so that it doesn't complain about sources that are gone.
    let names =
        std::iter::once(&gone.stream.name).chain(streams.keys().filter(|name| name.starts_with(&prefix)));
    for name in names {
        let Some(stream) = streams.get(name) else { continue };
        if ownership(stream, &gone.owner) != Ownership::Ours {
            continue;
        }
        let ended = match gone.on_delete {
            OnDelete::Delete => api.delete_stream(name).await,
            OnDelete::Keep if stream.metadata(OWNER_UID).is_some() => without_owner(api, name, stream).await,
            OnDelete::Keep => continue,
        };
        all.note(name, ended)?;
    }
    Ok(all)
}

/// What the names of a tenant's source streams begin with.
fn source_prefix(tenant: &TenantStreams) -> String {
    format!("SRC_{}_", tenant.tenant)
}

/// What the tenant's stream is to read.
#[derive(Default)]
struct Sources {
    /// As it is wanted.
    wanted: Vec<SourceEntry>,
    /// As it is now, because the broker refuses the change; by the name of the source's stream.
    kept: Vec<String>,
    /// Whose stream was just made.
    made: Vec<String>,
}

/// What became of one source's stream.
enum SourceState {
    /// It captures what it should, and is to be read from this sequence.
    Reading(u64),
    /// The same, and its stream was just made.
    Created(u64),
    /// It is there, but not as wanted.
    Refused,
    /// There is none that we may use.
    Absent,
}

/// One pass over one tenant.
struct TenantPass<'a> {
    api: &'a JetStreamApi,
    streams: &'a Streams,
    wanted: &'a TenantStreams,
    applied: Applied,
    /// The settings of the streams that were made to capture nothing, by name.
    parked: BTreeMap<String, Map<String, Value>>,
}

impl TenantPass<'_> {
    async fn run(&mut self) -> Result<(), RequestError> {
        let leaving = self.park_leaving().await?;
        let sources = self.put_sources().await?;
        if self.put_stream(&sources).await? {
            self.delete_leaving(&leaving).await?;
        }
        Ok(())
    }

    /// Step 1: the streams of ours whose source is no longer wanted stop to capture. Answers their names.
    async fn park_leaving(&mut self) -> Result<Vec<String>, RequestError> {
        let prefix = source_prefix(self.wanted);
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

    /// Step 2: each wanted source has its stream, and its consumer if it needs one. NATS lets no two streams
    /// capture one subject, so they change in an order in which each finds its subject free. Where sources
    /// take over each other's subjects in a circle, one of them stops to capture for a moment.
    async fn put_sources(&mut self) -> Result<Sources, RequestError> {
        let mut sources = Sources::default();
        let mut pending: Vec<(&SourceStream, Capture)> =
            self.wanted.sources.iter().map(|source| (source, self.capture(source))).collect();
        loop {
            let captures: Vec<&Capture> = pending.iter().map(|(_, capture)| capture).collect();
            let free = match capture::next(&captures) {
                None => break,
                Some(NextChange::Change(free)) => free,
                Some(NextChange::Stop(first)) => {
                    let (source, capture) = &mut pending[first];
                    capture.stop();
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

    /// What a source's stream captures, and what it is to capture.
    fn capture(&self, source: &SourceStream) -> Capture {
        let stream = self.streams.get(&source.stream.name);
        let ours = stream.filter(|stream| ownership(stream, &self.wanted.owner) == Ownership::Ours);
        let current = ours.and_then(|stream| stream.config.get("subjects")?.as_array());
        let current = current.into_iter().flatten().filter_map(Value::as_str);
        Capture::new(current, source.stream.subjects.iter().map(String::as_str))
    }

    /// Has a source's stream capture nothing.
    async fn park(&mut self, name: &str) -> Result<(), RequestError> {
        let Some(stream) = self.streams.get(name) else { return Ok(()) };
        let mut parked = stream.config.clone();
        parked.insert("subjects".to_owned(), serde_json::json!([name]));
        if self.update(name, &stream.config, parked.clone()).await? {
            self.parked.insert(name.to_owned(), parked);
        }
        Ok(())
    }

    /// Makes or changes one source's stream.
    async fn put_source(&mut self, source: &SourceStream) -> Result<SourceState, RequestError> {
        let name = &source.stream.name;
        let reading = describe(source);
        let Some(stream) = self.streams.get(name) else {
            let mut config = settings::lay_over(&Map::new(), &source.stream);
            // Sequences of a source never repeat, also when its stream is made anew: the tenant's stream
            // remembers the last one that it took, and ids made of them would be taken for duplicates. So the
            // first one is the time in µs.
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
        let mut config = settings::lay_over(&current, &source.stream);
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

    /// Step 3: the tenant's stream. Answers whether it reads what it is to read.
    async fn put_stream(&mut self, sources: &Sources) -> Result<bool, RequestError> {
        let name = &self.wanted.stream.name;
        let Some(stream) = self.streams.get(name) else {
            let mut config = settings::lay_over(&Map::new(), &self.wanted.stream);
            self.set_metadata(&mut config, &[]);
            settings::lay_sources_over(&mut config, &sources.wanted, &sources.kept);
            self.applied.has_stream = self.create(name, config).await?;
            return Ok(self.applied.has_stream);
        };
        if !self.is_ours(name, stream) {
            return Ok(false);
        }
        let mut current = stream.config.clone();
        // A stream that reads from one that was deleted and made anew notices it late, after up to twenty
        // seconds. Made to forget that source first, it looks at once.
        let forgetful = settings::without_sources(&current, &sources.made);
        if self.update(name, &current, forgetful.clone()).await? {
            current = forgetful;
        }
        let mut config = settings::lay_over(&current, &self.wanted.stream);
        self.set_metadata(&mut config, &[]);
        settings::lay_sources_over(&mut config, &sources.wanted, &sources.kept);
        for (source, subject) in settings::ending_sources(&current, &config) {
            self.catch_up(name, &source, &subject).await?;
        }
        self.update(name, &current, config).await
    }

    /// Waits until the stream has taken what `source` holds on `subject` now, but not for ever.
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
                // An older server: it has only the lag, which is zero at first as well.
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

    /// Step 4.
    async fn delete_leaving(&mut self, leaving: &[String]) -> Result<(), RequestError> {
        for name in leaving {
            self.split_rest(name).await?;
            let deleted = self.api.delete_stream(name).await;
            self.note(&format!("stream {name} of a source that went"), deleted)?;
        }
        Ok(())
    }

    /// Waits until the data plane has split what the stream of a payload source still holds, but not for
    /// ever. The mapping names the source for a moment longer for this reason.
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
                    "stream {name} exists and belongs to {owner}; it is left as it is. Delete it, or write {OWNER_NAMESPACE}={} and \
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

    /// Changes a stream if that changes anything. Answers whether it is as wanted.
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
            // NATS would take the change, and change next to nothing.
            let message = format!(
                "stream {name} is sealed: it takes no messages, and NATS never opens it again. Delete it (nats stream rm {name}), and it is made anew"
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

    /// Counts a change that was made, or turns a refusal into a finding with the broker's own words. Answers
    /// whether it was made.
    fn note(&mut self, what: &str, result: Result<(), RequestError>) -> Result<bool, RequestError> {
        match result {
            Ok(()) => {
                self.applied.changes += 1;
                tracing::info!(tenant = %self.wanted.tenant, "applied {what}");
                Ok(true)
            }
            Err(RequestError::Refused { code, description }) => {
                // 10065 is JetStream's code for subjects that overlap with another stream's.
                let reason = if code == 10065 { Reason::SourceConflict } else { Reason::StreamRefused };
                let message = format!("NATS refuses {what}: {description} (error {code})");
                self.applied.findings.push(Finding::new(reason, "", message));
                Ok(false)
            }
            Err(away) => Err(away),
        }
    }
}

/// A source's reading as one line of metadata.
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
