//! Schedules all tracked devices: which are looked up next, and which changes are reported. Pure; the time is
//! passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_contract::subject;
use flutecast_crds::Presence;
use flutecast_nats::stream::MAX_SUBJECTS;
use flutecast_process::backoff::Backoff;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::damping::{CHANGES, FlapDamping};
use super::device::{ClockReading, DevicePresence, LastMessage, LookupScope};
use super::table::Target;
use super::{Observation, Understanding, Understood};
use crate::object::Key;
use crate::rate_limit::TokenBucket;

/// The first and the longest wait after a tenant's stream could not be read.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// The time for which a reading of the broker's clock is used.
const CLOCK_MAX_AGE: Duration = Duration::from_secs(60);
/// A larger difference from the expected time means that the broker's clock was set.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// For so long what is known of a device first, its presence or whether its messages are understood, waits
/// for the other one: a device that begins to send costs one write.
pub(super) const BOTH_AT_ONCE: Duration = Duration::from_secs(10);

/// Identifies a device as one [`Target`]. Ids are never used again, so that a late reply changes nothing.
pub(super) type DeviceId = u64;

#[derive(Debug)]
pub(super) struct Scheduler {
    devices: BTreeMap<DeviceId, TrackedDevice>,
    ids: BTreeMap<Key, DeviceId>,
    tenants: BTreeMap<TenantName, TenantQueue>,
    /// The devices of which something else was observed than was reported last, by when that may be reported.
    reports: BTreeSet<(Instant, DeviceId)>,
    report_limit: TokenBucket,
    /// The devices whose messages are to be looked at soon.
    first_looks: Vec<Arc<Target>>,
    next_id: DeviceId,
}

#[derive(Debug)]
struct TrackedDevice {
    key: Key,
    target: Arc<Target>,
    presence: DevicePresence,
    understanding: Understanding,
    reported: Observation,
    damping: FlapDamping,
    /// `true` while its report waits for a look at its messages, which was asked for.
    awaits_look: bool,
    /// Its time in [`TenantQueue::lookups`]; a device without a `staleAfter` has none.
    lookup_at: Option<Instant>,
    /// Its time in [`Scheduler::reports`].
    report_at: Option<Instant>,
}

/// The due lookups of one tenant.
#[derive(Debug)]
struct TenantQueue {
    lookups: BTreeSet<(Instant, DeviceId)>,
    /// `true` while a lookup is under way; there is one at a time.
    is_busy: bool,
    /// The time from which on the tenant may be looked up again after a failure.
    retry_at: Option<Instant>,
    backoff: Backoff,
    clock: Option<ClockReading>,
}

/// A request for last messages of one tenant's stream.
#[derive(Debug, Clone)]
pub(super) struct Lookup {
    pub(super) tenant: TenantName,
    /// The subjects, each with its device and channel.
    pub(super) subjects: BTreeMap<String, (DeviceId, usize)>,
    /// `true` if the broker's clock is read too.
    pub(super) with_clock: bool,
    devices: Vec<(DeviceId, LookupScope)>,
}

/// The reply to a [`Lookup`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LookupReply {
    /// The last message of each subject that has one: subject, sequence, and when it was stored.
    pub(super) messages: Vec<(String, u64, Timestamp)>,
    /// The broker's clock, if it was asked for.
    pub(super) clock: Option<Timestamp>,
}

/// A change that is to be reported.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) key: Key,
    pub(super) target: Arc<Target>,
    pub(super) observed: Observation,
}

impl Scheduler {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            devices: BTreeMap::new(),
            ids: BTreeMap::new(),
            tenants: BTreeMap::new(),
            reports: BTreeSet::new(),
            report_limit: TokenBucket::new(CHANGES, now),
            first_looks: Vec::new(),
            next_id: 0,
        }
    }

    /// Tracks a device of which `reported` was reported so far. Returns the id that its key had before.
    pub(super) fn track(
        &mut self,
        key: &Key,
        target: Arc<Target>,
        reported: Observation,
        now: Instant,
    ) -> Option<DeviceId> {
        let before = self.untrack(key);
        let id = self.next_id;
        self.next_id += 1;
        let stale_after: Vec<Duration> =
            target.channels.iter().map(|(_, stale_after)| *stale_after).collect();
        let presence = DevicePresence::new(&stale_after, reported.presence, now, rand::random());
        self.tenants.entry(target.tenant.clone()).or_insert_with(TenantQueue::new);
        let device = TrackedDevice {
            key: key.clone(),
            target,
            presence,
            understanding: reported.understanding.clone(),
            reported,
            // Not kept from before: after a change of the spec its effect should be seen soon.
            damping: FlapDamping::default(),
            awaits_look: false,
            lookup_at: None,
            report_at: None,
        };
        self.devices.insert(id, device);
        self.ids.insert(key.clone(), id);
        self.reschedule(id, now);
        before
    }

    /// Stops tracking a device. Returns its id.
    pub(super) fn untrack(&mut self, key: &Key) -> Option<DeviceId> {
        let id = self.ids.remove(key)?;
        let device = self.devices.remove(&id)?;
        if let Some(at) = device.report_at {
            self.reports.remove(&(at, id));
        }
        if let Some(queue) = self.tenants.get_mut(&device.target.tenant)
            && let Some(at) = device.lookup_at
        {
            queue.lookups.remove(&(at, id));
        }
        // A busy queue stays until its reply is there.
        self.tenants.retain(|_, queue| queue.is_busy || !queue.lookups.is_empty());
        Some(id)
    }

    /// Notes what was judged of a device's messages.
    pub(super) fn judged(&mut self, key: &Key, newer: Understanding, now: Instant) {
        let Some(id) = self.ids.get(key).copied() else { return };
        if let Some(device) = self.devices.get_mut(&id) {
            device.understanding = device.reported.understanding.followed_by(newer, true);
            self.reschedule(id, now);
        }
    }

    /// The broker is available again: all devices are looked up.
    pub(super) fn restart(&mut self, now: Instant) {
        for queue in self.tenants.values_mut() {
            queue.clock = None;
            queue.retry_at = None;
        }
        let ids: Vec<DeviceId> = self.devices.keys().copied().collect();
        for id in ids {
            self.restart_device(id, now);
        }
    }

    fn restart_device(&mut self, id: DeviceId, now: Instant) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.presence.restart(now, rand::random());
            self.reschedule(id, now);
        }
    }

    /// Returns when [`Self::next_lookup`] has one.
    pub(super) fn lookup_due(&self) -> Option<Instant> {
        self.tenants.values().filter_map(TenantQueue::due).min()
    }

    /// Returns when [`Self::take_reports`] has some.
    pub(super) fn report_due(&self, now: Instant) -> Option<Instant> {
        let (first, _) = self.reports.first()?;
        Some((*first).max(self.report_limit.available_at(now)))
    }

    /// Returns a lookup that is due, of a tenant that has none under way; `None` if there is none.
    ///
    /// The tenant that has waited for longest comes first: a tenant with many devices always has one that is
    /// due, and would keep the others from their turn.
    pub(super) fn next_lookup(&mut self, now: Instant) -> Option<Lookup> {
        let due = |queue: &TenantQueue| queue.due().filter(|due| *due <= now);
        let (_, (tenant, queue)) = self
            .tenants
            .iter_mut()
            .filter_map(|(tenant, queue)| Some((due(queue)?, (tenant, queue))))
            .min_by_key(|(due, _)| *due)?;
        let clock_is_fresh = queue.clock.is_some_and(|clock| now < clock.local + CLOCK_MAX_AGE);
        let mut lookup = Lookup {
            tenant: tenant.clone(),
            subjects: BTreeMap::new(),
            with_clock: !clock_is_fresh,
            devices: Vec::new(),
        };
        while let Some((at, id)) = queue.lookups.first().copied()
            && at <= now
        {
            let Some(device) = self.devices.get_mut(&id) else {
                queue.lookups.pop_first();
                continue;
            };
            if !lookup.add(id, device) {
                break;
            }
            queue.lookups.pop_first();
            device.lookup_at = None;
        }
        queue.is_busy = true;
        Some(lookup)
    }

    /// Applies the reply to a lookup. Returns the devices that need a subscription.
    pub(super) fn apply_reply(
        &mut self,
        lookup: &Lookup,
        reply: &LookupReply,
        now: Instant,
    ) -> Vec<DeviceId> {
        let Some(queue) = self.tenants.get_mut(&lookup.tenant) else { return Vec::new() };
        queue.is_busy = false;
        queue.retry_at = None;
        queue.backoff.reset();
        if let Some(clock) = reply.clock {
            queue.set_clock(&lookup.tenant, ClockReading { local: now, broker: clock });
        }
        let Some(clock) = queue.clock_at(now) else {
            // It was asked for, and is missing in the reply.
            self.lookup_failed(lookup, now);
            return Vec::new();
        };
        let mut found: BTreeMap<DeviceId, Vec<LastMessage>> = BTreeMap::new();
        for (subject, sequence, stored) in &reply.messages {
            if let Some((id, channel)) = lookup.subjects.get(subject) {
                let message = LastMessage { channel: *channel, sequence: *sequence, stored: *stored };
                found.entry(*id).or_default().push(message);
            }
        }
        let mut to_subscribe = Vec::new();
        for (id, scope) in &lookup.devices {
            let Some(device) = self.devices.get_mut(id) else { continue };
            let messages = found.get(id).map(Vec::as_slice).unwrap_or_default();
            device.presence.apply_lookup(*scope, messages, clock, rand::random());
            if device.presence.needs_subscription() {
                to_subscribe.push(*id);
            }
            self.reschedule(*id, now);
        }
        to_subscribe
    }

    /// Notes that a lookup failed; it is repeated later.
    pub(super) fn lookup_failed(&mut self, lookup: &Lookup, now: Instant) {
        let Some(queue) = self.tenants.get_mut(&lookup.tenant) else { return };
        queue.is_busy = false;
        queue.retry_at = Some(now + queue.backoff.next_wait());
        queue.clock = None;
        // A stream that can't be read may not store messages either, so its devices are not silent.
        let of_tenant = self.devices.iter().filter(|(_, device)| device.target.tenant == lookup.tenant);
        let ids: Vec<DeviceId> = of_tenant.map(|(id, _)| *id).collect();
        for id in ids {
            self.restart_device(id, now);
        }
    }

    /// Applies a message of a device's subscription, which ended with it. Returns `true` if the device needs
    /// a new one.
    pub(super) fn apply_message(&mut self, id: DeviceId, message: &LastMessage, now: Instant) -> bool {
        let Some(device) = self.devices.get_mut(&id) else { return false };
        device.presence.set_subscribed(false, now);
        device.presence.apply_message(message, now, rand::random());
        let needs_subscription = device.presence.needs_subscription();
        self.reschedule(id, now);
        needs_subscription
    }

    /// Notes that a device has a subscription from now on.
    pub(super) fn subscribed(&mut self, id: DeviceId, now: Instant) {
        if let Some(device) = self.devices.get_mut(&id) {
            device.presence.set_subscribed(true, now);
            self.reschedule(id, now);
        }
    }

    pub(super) fn target(&self, id: DeviceId) -> Option<&Arc<Target>> {
        self.devices.get(&id).map(|device| &device.target)
    }

    /// Takes the devices that came Online and whose messages were not looked at yet.
    pub(super) fn take_first_looks(&mut self) -> Vec<Arc<Target>> {
        std::mem::take(&mut self.first_looks)
    }

    /// Takes the changes that may be reported now.
    pub(super) fn take_reports(&mut self, now: Instant) -> Vec<Report> {
        let mut changes = Vec::new();
        while let Some((at, id)) = self.reports.first().copied()
            && at <= now
            && self.report_limit.take(now)
        {
            self.reports.pop_first();
            let Some(device) = self.devices.get_mut(&id) else { continue };
            device.report_at = None;
            device.reported = Observation {
                presence: device.presence.state(),
                understanding: device.understanding.clone(),
            };
            device.damping.reported(now);
            changes.push(Report {
                key: device.key.clone(),
                target: device.target.clone(),
                observed: device.reported.clone(),
            });
        }
        changes
    }

    /// Returns the numbers of devices with a `staleAfter` that are Online, Silent and Unknown.
    pub(super) fn counts(&self) -> [(Presence, usize); 3] {
        let followed = || self.devices.values().filter(|device| !device.target.channels.is_empty());
        let count = |presence| {
            let is = |device: &&TrackedDevice| device.presence.state().presence == presence;
            (presence, followed().filter(is).count())
        };
        [count(Presence::Online), count(Presence::Silent), count(Presence::Unknown)]
    }

    /// Returns the numbers of devices by whether their messages are understood.
    pub(super) fn understood_counts(&self) -> [(Understood, usize); 3] {
        [Understood::True, Understood::False, Understood::Unknown].map(|status| {
            let is = |device: &&TrackedDevice| device.understanding.status == status;
            (status, self.devices.values().filter(is).count())
        })
    }

    /// Moves a device to its place in the queues.
    fn reschedule(&mut self, id: DeviceId, now: Instant) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        if !device.target.channels.is_empty()
            && let Some(queue) = self.tenants.get_mut(&device.target.tenant)
        {
            let (due, _) = device.presence.next_lookup();
            if let Some(before) = device.lookup_at.replace(due) {
                queue.lookups.remove(&(before, id));
            }
            queue.lookups.insert((due, id));
        }
        let has_changed = device.presence.state().presence != device.reported.presence.presence
            || !device.understanding.tells_the_same(&device.reported.understanding);
        let awaits_look = has_changed && device.lacks_look();
        if awaits_look && !device.awaits_look {
            self.first_looks.push(device.target.clone());
        }
        device.awaits_look = awaits_look;
        let wait = if awaits_look || device.lacks_presence() { BOTH_AT_ONCE } else { Duration::ZERO };
        let earliest = device.damping.held_until().map_or(now, |at| at.max(now)).max(now + wait);
        let report_at = has_changed.then(|| device.report_at.map_or(earliest, |at| at.min(earliest)));
        if let Some(before) = device.report_at
            && report_at != Some(before)
        {
            self.reports.remove(&(before, id));
        }
        if let Some(at) = report_at {
            self.reports.insert((at, id));
        }
        device.report_at = report_at;
    }
}

impl TrackedDevice {
    /// Returns whether it sends, and nothing is known of its messages.
    fn lacks_look(&self) -> bool {
        self.presence.state().presence == Presence::Online && self.understanding.status == Understood::Unknown
    }

    /// Returns whether its messages were judged, and its presence is not known yet.
    fn lacks_presence(&self) -> bool {
        !self.target.channels.is_empty()
            && self.presence.state().presence == Presence::Unknown
            && self.understanding.status != Understood::Unknown
    }
}

impl TenantQueue {
    fn new() -> Self {
        Self {
            lookups: BTreeSet::new(),
            is_busy: false,
            retry_at: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            clock: None,
        }
    }

    fn due(&self) -> Option<Instant> {
        let (first, _) = self.lookups.first().filter(|_| !self.is_busy)?;
        Some(self.retry_at.map_or(*first, |retry_at| retry_at.max(*first)))
    }

    /// Returns `now` on both clocks; `None` before the broker's was read.
    fn clock_at(&self, now: Instant) -> Option<ClockReading> {
        let clock = self.clock?;
        let elapsed = SignedDuration::try_from(now.saturating_duration_since(clock.local)).ok()?;
        Some(ClockReading { local: now, broker: clock.broker.checked_add(elapsed).ok()? })
    }

    fn set_clock(&mut self, tenant: &TenantName, clock: ClockReading) {
        if let Some(expected) = self.clock_at(clock.local) {
            let by = clock.broker.duration_since(expected.broker);
            if by.abs() > CLOCK_TOLERANCE {
                tracing::warn!(%tenant, %by, "the broker's clock was set, or another broker answers");
            }
        }
        self.clock = Some(clock);
    }
}

impl Lookup {
    /// Adds a device. Returns `false` if there is no room for it.
    fn add(&mut self, id: DeviceId, device: &TrackedDevice) -> bool {
        let (_, scope) = device.presence.next_lookup();
        let channels = match scope {
            LookupScope::Channel(channel) => channel..channel + 1,
            LookupScope::AllChannels => 0..device.target.channels.len(),
        };
        if !self.devices.is_empty() && self.subjects.len() + channels.len() > MAX_SUBJECTS {
            return false;
        }
        for channel in channels {
            if let Some((name, _)) = device.target.channels.get(channel) {
                let subject = subject::stored(&self.tenant, &device.target.iot_id, name);
                self.subjects.insert(subject, (id, channel));
            }
        }
        // Whether a device is silent is decided by a new reading of the broker's clock.
        self.with_clock |= scope == LookupScope::AllChannels;
        self.devices.push((id, scope));
        true
    }
}
