//! The state of one tenant's fan-out: which channels are watched, by which clients, and what each client has
//! got and is owed.
//!
//! Everything here is synchronous: each change is a plain call, which appends frames to the backlogs of
//! clients and leaves [`IoRequests`] for the hub's task. That task is the only caller, so that the order of
//! the stream holds by construction. [`HubState`] only routes; the decisions are made by components that know
//! neither each other nor the hub:
//!
//! | component | decides |
//! | --- | --- |
//! | [`progress`] | how far the stream and each channel are known: is a message missing, is an id covered |
//! | [`phase`] | whether a channel's live messages are passed on or wait for a read |
//! | [`delivery`] | what a client is owed, and whether a frame carries its id |
//! | [`freshness`] | when a channel becomes stale and fresh |
//! | [`throttle`] | which value passes in an interval |
//! | [`problems`] | when clients are told what is wrong with a channel's messages |
//!
//! # States
//!
//! A channel is read when it is first watched, and again when messages of it may be missing. "Owed" counts,
//! for each client, the channels that are being read or replayed for it. A client that is owed nothing is
//! *settled*.
//!
//! | channel | event | next state | frames and ids |
//! | --- | --- | --- | --- |
//! | none | first viewer | reading | viewers are owed the channel |
//! | reading | live message | reading | none: the message waits |
//! | reading | read ends | live | what was read, what waits, without ids; viewers are owed one less |
//! | reading, in flight | messages may be missing | reading, again | none |
//! | reading, again | read ends | reading | the value and missed messages without ids |
//! | reading | read fails | reading | none |
//! | reading | no read succeeds for 15 s, messages wait | live | what waits, on `Every` behind a `gap` |
//! | live without that read, `Latest` | an audit works | reading | viewers are owed the channel |
//! | live | next message | live | with its id to settled clients |
//! | live | message behind a hole, or one that needs those before it | reading | none: the message waits |
//! | live | messages may be missing, or the format changes | reading | viewers are owed the channel |
//! | any | the stream was created again or set back | reading | `hello`, `gap`; ids start again |
//! | any | no viewer for 2 s | none | |
//!
//! | client, on an `Every` channel | event | next state | frames and ids |
//! | --- | --- | --- | --- |
//! | comes with an id | the place is covered, the channel is live | replaying | owed one more |
//! | comes with an id | otherwise | waiting for a read | none |
//! | waiting for a read | the read covers its place | replaying | owed one more |
//! | waiting for a read | nothing newer is stored | live | |
//! | waiting for a read | what it missed can't be read | live | `gap` and the current value, without an id |
//! | replaying | event | replaying | none: the event is held back |
//! | replaying | replay ends | live | `gap` if incomplete; the held events; then owed one less |
//!
//! | client | event | ids |
//! | --- | --- | --- |
//! | owed something | data event | none |
//! | settled | data event newer than its last id | the event's own |
//! | becomes settled | | a block with only the place up to which it has everything |
//! | settled | `ping` | the newest place that was processed |

mod attach;
mod client;
mod delivery;
mod freshness;
mod mapping_change;
mod message;
mod phase;
mod problems;
mod progress;
mod read;
mod resume;
mod throttle;
mod timers;
mod watched_channel;

use std::sync::Arc;

use flutecast_contract::name::TenantName;

use super::HubSettings;
use super::keys::{ChannelId, ChannelKey, ClientKey, Indexed};
use super::metrics::FanoutMetrics;
use super::problem_log::ProblemLine;
use super::values::LiveValues;
use crate::catalog::TenantCatalog;
use crate::ingest::ordered_merge::SlotKey;
use crate::pipeline::{Now, Scratch};

pub(super) use attach::NewClient;
pub(super) use read::{ChannelRead, ChannelReadResult, ReadKind, ReadRequest, ReadResult};
pub(super) use resume::ReplayRequest;

use client::Client;
use progress::StreamProgress;
use read::ReadQueue;
use timers::Timers;
use watched_channel::WatchedChannel;

/// The I/O that the hub's task has to do.
#[derive(Debug, Default)]
pub(super) struct IoRequests {
    pub(super) close: Vec<SlotKey>,
    pub(super) replays: Vec<ReplayRequest>,
    pub(super) problems: Vec<ProblemLine>,
    /// `true` if an audit is due soon, as a message may mean that the stream was created again.
    pub(super) audit: bool,
}

#[derive(Debug)]
pub(super) struct HubState {
    tenant: TenantName,
    settings: Arc<HubSettings>,
    metrics: FanoutMetrics,
    catalog: Option<Arc<TenantCatalog>>,
    progress: StreamProgress,
    watched: Indexed<ChannelKey, ChannelId, WatchedChannel>,
    clients: Indexed<ClientKey, u64, Client>,
    /// New clients that wait to learn whether their event id belongs to the current epoch.
    waiting: Vec<NewClient>,
    pub(super) timers: Timers,
    reads: ReadQueue,
    /// At least the bytes of the live messages that wait for reads.
    waiting_bytes: usize,
    io: IoRequests,
    scratch: Scratch,
}

impl HubState {
    pub(super) fn new(
        tenant: TenantName,
        catalog: Option<Arc<TenantCatalog>>,
        settings: Arc<HubSettings>,
        metrics: FanoutMetrics,
    ) -> Self {
        Self {
            tenant,
            settings,
            metrics,
            catalog,
            progress: StreamProgress::default(),
            watched: Indexed::new(),
            clients: Indexed::new(),
            waiting: Vec::new(),
            timers: Timers::default(),
            reads: ReadQueue::default(),
            waiting_bytes: 0,
            io: IoRequests::default(),
            scratch: Scratch::default(),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.watched.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn take_io(&mut self) -> IoRequests {
        std::mem::take(&mut self.io)
    }

    /// Returns the stream that holds the tenant's messages; `None` if the tenant isn't there yet.
    pub(super) fn stream(&self) -> Option<&str> {
        self.catalog.as_ref().map(|catalog| catalog.settings.stream.as_str())
    }

    /// Returns the values of those of these channels that are live, whether they have values or not. Only the
    /// requested channels are looked at, so that a request for one device costs the other clients nothing.
    pub(super) fn live_values(&self, channels: Vec<ChannelId>, now: Now) -> LiveValues {
        let values = |name: ChannelId| {
            let watched = self.watched.get(self.watched.find(&name)?)?;
            watched.phase.is_live().then(|| (name, watched.values(now)))
        };
        channels.into_iter().filter_map(values).collect()
    }

    /// Takes the watched channels out of the metrics, as the hub ends.
    pub(super) fn forget(&mut self) {
        self.metrics.channels.dec_by(i64::try_from(self.watched.drain().count()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests;
