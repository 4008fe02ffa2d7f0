//! The state of one tenant's fan-out: what is watched, who watches it, and what each client has and is owed.
//!
//! Synchronous: every change is a plain call, which pushes frames into the clients' backlogs and leaves
//! [`Work`] for the hub's task, which does the I/O. There is one writer (that task), so that the order of the
//! stream holds by construction.
//!
//! # Ids
//! `position` is the place in the stream up to which everything on every *live* `Every` channel was
//! processed. A client is *settled* when nothing older is owed to it: none of its channels is being read from
//! the stream and none is being replayed. Only a settled client gets ids.

mod attach;
mod client;
mod deliver;
mod membership;
mod read;
mod resume;
mod timers;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use tokio::time::Instant;

use super::arena::{Arena, Key};
use super::metrics::FanoutMetrics;
use super::{ChannelValues, HubSettings};
use crate::catalog::TenantCatalog;
use crate::pipeline::Moment;
use crate::sources::ordered::SlotKey;
use flutecast_contract::stream_position::Epoch;

pub(super) use attach::Arrival;
pub(super) use attach::matched;
pub(super) use read::{ReadItem, ReadRequest, ReadResult, ReadWatch};
pub(super) use resume::{ReplayEnd, ReplayRequest};

use client::Client;
use timers::Timers;
use watch::Watch;

/// What the hub's task has to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Subscriptions to leave.
    pub(super) close: Vec<SlotKey>,
    /// Replays to start.
    pub(super) replays: Vec<ReplayRequest>,
}

/// One tenant's fan-out.
#[derive(Debug)]
pub(super) struct HubState {
    tenant: TenantName,
    settings: Arc<HubSettings>,
    metrics: FanoutMetrics,
    catalog: Option<Arc<TenantCatalog>>,
    /// The stream's incarnation; none: not known yet.
    epoch: Option<Epoch>,
    position: u64,
    /// The newest place in the stream that a read has told.
    newest_known: u64,
    /// The place up to which all `Every` channels are known by reading, if that was worked out since the last
    /// read.
    floor: Option<u64>,
    watches: Arena<Watch>,
    by_channel: HashMap<(IotId, ChannelName), Key>,
    clients: Arena<Client>,
    by_connection: HashMap<u64, Key>,
    /// Clients that wait to learn whether their event id belongs to the current epoch.
    arrivals: Vec<Arrival>,
    timers: Timers,
    /// Watches that have to be read from the stream.
    unread: Vec<Key>,
    /// Whether the stream's epoch has to be asked for although nothing has to be read.
    ask_epoch: bool,
    /// Whether there are clients that are owed nothing and could not be told a place, as the epoch wasn't
    /// known.
    unplaced: bool,
    /// Whether it will be looked whether a read takes too long.
    overdue_armed: bool,
    /// Whether something came that may mean that the stream was made anew.
    doubt: bool,
    work: Work,
    /// Why reading fails; clients that come meanwhile are told.
    trouble: Option<Trouble>,
    scratch: Vec<u8>,
}

/// Why the stream can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no stream.
    NoStream,
    /// The broker is away or doesn't answer.
    BrokerAway,
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
            epoch: None,
            position: 0,
            newest_known: 0,
            floor: None,
            watches: Arena::default(),
            by_channel: HashMap::new(),
            clients: Arena::default(),
            by_connection: HashMap::new(),
            arrivals: Vec::new(),
            timers: Timers::default(),
            unread: Vec::new(),
            ask_epoch: false,
            unplaced: false,
            overdue_armed: false,
            doubt: false,
            work: Work::default(),
            trouble: None,
            scratch: Vec::new(),
        }
    }

    /// Whether nobody is here and nothing is held for anybody.
    pub(super) fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.watches.is_empty() && self.arrivals.is_empty()
    }

    /// What there is to do since the last call.
    pub(super) fn take_work(&mut self) -> Work {
        std::mem::take(&mut self.work)
    }

    /// Whether something came, since the last call, that calls for an audit.
    pub(super) fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }

    /// The stream that holds the tenant's messages; none: the tenant isn't there yet.
    pub(super) fn stream(&self) -> Option<&str> {
        self.catalog.as_ref().map(|catalog| catalog.settings.stream.as_str())
    }

    /// When the next timer is due.
    pub(super) fn next_timer(&mut self) -> Option<Instant> {
        self.timers.next()
    }

    /// The values of those of these channels that are live, whether there are any or not. Whoever asks for
    /// one device costs the clients of all others nothing.
    pub(super) fn cached(
        &self,
        wanted: Vec<(IotId, ChannelName)>,
    ) -> HashMap<(IotId, ChannelName), ChannelValues> {
        let live = |name: &(IotId, ChannelName)| {
            self.watches.get(*self.by_channel.get(name)?).filter(|watch| watch.is_live())
        };
        let values = |name: (IotId, ChannelName)| {
            let watch = live(&name)?;
            let values = ChannelValues {
                name: watch.channel.clone(),
                time: watch.latest.as_ref().map(|frame| frame.time),
                stale: watch.freshness.stale,
                values: watch.latest.as_ref().map(|frame| frame.values()),
            };
            Some((name, values))
        };
        wanted.into_iter().filter_map(values).collect()
    }

    /// The hub ends: what it holds is no longer counted.
    pub(super) fn forget(&mut self) {
        let watches = std::mem::take(&mut self.watches);
        self.metrics.channels.dec_by(i64::try_from(watches.len()).unwrap_or(i64::MAX));
    }

    /// Everything up to this place was processed.
    pub(super) fn advance(&mut self, sequence: u64) {
        self.position = self.position.max(sequence);
    }

    fn client_settles(&mut self, key: Key, now: Moment) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.owe_less(1);
        self.settle(key, now);
    }
}

#[cfg(test)]
mod tests;
