//! The task: which tenant is looked at when, a few at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_nats::{JetStreamApi, RequestError};
use flutecast_process::backoff::{Backoff, jittered};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Judge;
use super::declared::{DeclaredChannels, TenantChannels};
use super::look::{self, Gone, Look, LookedAt, Programs};
use super::memory::TenantMemory;
use super::metrics::LookMetrics;
use super::store::KeptStore;
use crate::jetstream::reconciler::StreamReports;
use crate::metrics::CallResult;
use crate::presence::Target;

/// The longest interval of looks at a tenant. What a look finds is to be written a minute after the message
/// at the latest.
const INTERVAL: Duration = Duration::from_secs(45);
/// The looks in the time for which a tenant's stream has a message. Two of them are between the age at which
/// it is copied and its end.
const LOOKS_PER_MAX_AGE: u32 = 4;
/// The most tenants that are looked at at once, so that a large one delays no other.
const CONCURRENT: usize = 4;
/// The time over which first looks are spread.
const FIRST: Duration = Duration::from_secs(2);
/// The time for which devices are collected that are looked at out of turn.
const COLLECT: Duration = Duration::from_secs(1);
/// The first and the longest wait after a look that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), INTERVAL);

pub(crate) struct LookTask {
    pub(crate) client: Client,
    pub(crate) api: JetStreamApi,
    pub(crate) connected: watch::Receiver<bool>,
    /// `None` while another operator works.
    pub(crate) channels: watch::Receiver<Option<Arc<DeclaredChannels>>>,
    pub(crate) reports: watch::Receiver<StreamReports>,
    /// How long a channel has to be gone before its last value goes. In a folder, an editor or a
    /// `git checkout` may remove a file and restore it a moment later.
    pub(crate) grace: Duration,
    /// Devices that are looked at soon.
    pub(crate) first: mpsc::Receiver<Arc<Target>>,
    pub(crate) metrics: Arc<LookMetrics>,
}

/// How a look ended.
struct Ended {
    memory: Option<TenantMemory>,
    was_whole: bool,
    swept: Vec<(IotId, ChannelName)>,
    /// The inner result is that of keeping last values.
    result: Result<Result<(), RequestError>, RequestError>,
}

type Running = BoxFuture<'static, (TenantName, Ended)>;

/// A tenant whose channels are looked at.
struct Followed {
    channels: TenantChannels,
    programs: Arc<Programs>,
    memory: Option<TenantMemory>,
    is_looked_at: bool,
    /// When the next whole look is due.
    next: Instant,
    /// The channels that went, and when they are swept.
    gone: Vec<(IotId, ChannelName)>,
    sweep: Option<Instant>,
    /// The devices that are looked at out of turn, and when. One that is not declared yet stays until it is.
    first: BTreeSet<IotId>,
    first_look: Option<Instant>,
    backoff: Backoff,
    /// `true` while last values can't be kept.
    is_warned: bool,
}

impl Followed {
    fn new(channels: TenantChannels) -> Self {
        Self {
            programs: Arc::new(look::compile(&channels, &Programs::new())),
            channels,
            memory: None,
            is_looked_at: false,
            next: Instant::now() + jittered(FIRST),
            gone: Vec::new(),
            sweep: None,
            first: BTreeSet::new(),
            first_look: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            is_warned: false,
        }
    }

    fn change(&mut self, channels: &TenantChannels, grace: Duration) {
        if self.channels == *channels {
            return;
        }
        self.gone.extend(channels.gone_since(&self.channels));
        if !self.gone.is_empty() {
            self.sweep.get_or_insert(Instant::now() + grace);
        }
        self.programs = Arc::new(look::compile(channels, &self.programs));
        self.channels = channels.clone();
        if !self.first.is_empty() {
            self.first_look.get_or_insert(Instant::now() + COLLECT);
        }
    }

    fn look_soon(&mut self, iot_id: &IotId) {
        self.first.insert(iot_id.clone());
        self.first_look.get_or_insert(Instant::now() + COLLECT);
    }

    /// Returns when there is something to do.
    fn due(&self) -> Option<Instant> {
        let due = [self.sweep, self.first_look, Some(self.next)];
        due.into_iter().flatten().min().filter(|_| !self.is_looked_at)
    }

    /// Takes the devices that are looked at now.
    fn take_looked_at(&mut self, now: Instant) -> LookedAt {
        if self.next <= now {
            self.first_look = None;
            self.first.clear();
            return LookedAt::All;
        }
        let is_due = self.first_look.take_if(|at| *at <= now).is_some();
        let is_taken = |iot_id: &IotId| is_due && self.channels.has(iot_id);
        LookedAt::These(self.first.extract_if(.., is_taken).collect())
    }

    fn log(&mut self, tenant: &TenantName, result: &Result<Result<(), RequestError>, RequestError>) {
        match result {
            Ok(Ok(())) => {
                if std::mem::take(&mut self.is_warned) {
                    tracing::info!(%tenant, "last values are kept again");
                }
            }
            Ok(Err(error)) => {
                if !std::mem::replace(&mut self.is_warned, true) {
                    tracing::warn!(%tenant, %error, "last values can't be kept");
                }
            }
            Err(error) => tracing::debug!(%tenant, %error, "last messages can't be looked at"),
        }
    }

    /// Notes how a look ended.
    fn ended(&mut self, ended: Ended) {
        let Ended { memory, was_whole, swept, result } = ended;
        self.memory = memory;
        self.is_looked_at = false;
        match result {
            // A stream that is not there yet is no fault: its own task makes it.
            Ok(Ok(())) | Err(RequestError::NoStream) => {
                self.backoff.reset();
                if was_whole {
                    let interval = INTERVAL.min(self.channels.max_age / LOOKS_PER_MAX_AGE);
                    self.next = Instant::now() + jittered(interval);
                }
            }
            Ok(Err(_)) | Err(_) => {
                let again = Instant::now() + self.backoff.next_wait();
                self.next = again;
                self.gone.extend(swept);
                self.sweep = (!self.gone.is_empty()).then_some(again);
            }
        }
    }
}

impl LookTask {
    /// Looks at the channels for as long as it is polled; `judge` gets what is found.
    pub(crate) async fn run(mut self, judge: Arc<impl Judge>) {
        let mut tenants = BTreeMap::<TenantName, Followed>::new();
        let mut looks = FuturesUnordered::<Running>::new();
        loop {
            let channels = self.channels.borrow_and_update().clone();
            self.follow(&mut tenants, channels.as_deref());
            if channels.is_none() {
                looks.clear();
            }
            let is_connected = *self.connected.borrow_and_update();
            while is_connected && looks.len() < CONCURRENT {
                let due = tenants.iter_mut().filter_map(|(name, tenant)| Some((tenant.due()?, name, tenant)));
                let first = due.min_by_key(|(due, ..)| *due);
                let Some((_, name, tenant)) = first.filter(|(due, ..)| *due <= Instant::now()) else { break };
                looks.push(self.start(name, tenant, judge.clone()));
            }
            let may_start = is_connected && looks.len() < CONCURRENT;
            let next = tenants.values().filter_map(Followed::due).min().filter(|_| may_start);
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.channels.changed() => if changed.is_err() { return },
                Some(device) = self.first.recv() => {
                    if let Some(tenant) = tenants.get_mut(&device.tenant) {
                        tenant.look_soon(&device.iot_id);
                    }
                }
                changed = self.connected.changed() => if changed.is_err() { return },
                Some((name, ended)) = looks.next() => {
                    if let Some(tenant) = tenants.get_mut(&name) {
                        tenant.log(&name, &ended.result);
                        tenant.ended(ended);
                    }
                }
                () = sleep => {}
            }
        }
    }

    fn follow(&self, tenants: &mut BTreeMap<TenantName, Followed>, channels: Option<&DeclaredChannels>) {
        tenants.retain(|name, _| channels.is_some_and(|channels| channels.contains_key(name)));
        for (name, channels) in channels.into_iter().flatten() {
            match tenants.get_mut(name) {
                Some(tenant) => tenant.change(channels, self.grace),
                None => drop(tenants.insert(name.clone(), Followed::new(channels.clone()))),
            }
        }
    }

    fn start(&self, name: &TenantName, tenant: &mut Followed, judge: Arc<impl Judge>) -> Running {
        let now = Instant::now();
        if !self.grace.is_zero() {
            tenant.gone.retain(|(iot_id, channel)| !tenant.channels.declares(iot_id, channel));
        }
        let is_swept = tenant.sweep.take_if(|sweep| *sweep <= now).is_some();
        let gone = match is_swept {
            true => Gone { now: std::mem::take(&mut tenant.gone), waiting: Vec::new() },
            false => Gone { now: Vec::new(), waiting: tenant.gone.clone() },
        };
        let swept = gone.now.clone();
        let has_kept = self.reports.borrow().get(name).is_some_and(|report| report.has_kept);
        let looked_at = tenant.take_looked_at(now);
        let was_whole = looked_at == LookedAt::All;
        let look = Look {
            client: self.client.clone(),
            tenant: name.clone(),
            channels: tenant.channels.clone(),
            programs: tenant.programs.clone(),
            gone,
            looked_at,
            store: has_kept.then(|| KeptStore::new(&self.client, &self.api, name)),
            judge,
            metrics: self.metrics.clone(),
        };
        tenant.is_looked_at = true;
        let (name, memory, metrics) = (name.clone(), tenant.memory.take(), self.metrics.clone());
        Box::pin(async move {
            let (memory, result) = look.run(memory).await;
            let label = if matches!(result, Ok(Ok(()))) { CallResult::Done } else { CallResult::Failed };
            metrics.count_look(label, now.elapsed());
            (name, Ended { memory, was_whole, swept, result })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{channels, real_nats::folder};
    use super::*;

    fn these(devices: &[&str]) -> LookedAt {
        LookedAt::These(devices.iter().map(|device| IotId::new(device).unwrap()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn devices_that_begin_to_send_are_looked_at_together_and_out_of_turn() {
        let power: &[_] = &[("power", "plain")];
        let mut tenant = Followed::new(channels(&folder(&[("a", power), ("b", power)])));
        assert_eq!(tenant.take_looked_at(Instant::now() + FIRST), LookedAt::All);
        tenant.next = Instant::now() + INTERVAL;
        for device in ["a", "b", "later"] {
            tenant.look_soon(&IotId::new(device).unwrap());
        }
        assert_eq!(tenant.due(), Some(Instant::now() + COLLECT));
        assert_eq!(tenant.take_looked_at(Instant::now()), these(&[]), "a channel that went is due before");
        assert_eq!(tenant.take_looked_at(Instant::now() + COLLECT), these(&["a", "b"]));
        assert_eq!(tenant.due(), Some(tenant.next));
        // One came before it was declared.
        tenant.change(&channels(&folder(&[("a", power), ("later", power)])), Duration::ZERO);
        assert_eq!(tenant.take_looked_at(Instant::now() + COLLECT), these(&["later"]));
        // A look at all devices is one at these, too.
        tenant.look_soon(&IotId::new("a").unwrap());
        assert_eq!(tenant.take_looked_at(tenant.next), LookedAt::All);
        assert_eq!((tenant.first_look, tenant.first.len()), (None, 0));
    }
}
