//! A broker and devices that exist in numbers only, and a [`Scheduler`] that is driven as the task drives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::subject;
use flutecast_crds::Presence;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::object::Key;
use crate::presence::PresenceState;
use crate::presence::device::LastMessage;
use crate::presence::scheduler::{DeviceId, LookupReply, Scheduler};
use crate::presence::table::Target;

/// How far the world goes at once: as long as the task gathers looks.
pub(super) const STEP: Duration = Duration::from_millis(200);

pub(super) struct World {
    start: Instant,
    /// How long it has been going.
    pub(super) now: Duration,
    /// By how much the broker's clock is off.
    pub(super) clock_is_off: SignedDuration,
    /// Whether the broker can be reached.
    pub(super) is_up: bool,
    /// How many may be subscribed to.
    pub(super) max_subscriptions: usize,
    /// How many tenants are asked in a step.
    pub(super) at_once: usize,
    pub(super) scheduler: Scheduler,
    /// Last messages, by subject.
    stored: BTreeMap<String, (u64, Timestamp)>,
    sequence: u64,
    devices: Vec<Arc<Target>>,
    subscriptions: BTreeMap<DeviceId, Arc<Target>>,
    /// What was reports: when, of which device, what.
    pub(super) reports: Vec<(Duration, usize, PresenceState)>,
    /// How many subjects were asked for.
    pub(super) asked: usize,
    /// The largest and the number of requests.
    pub(super) largest: usize,
    pub(super) requests: usize,
}

pub(super) const UNKNOWN: PresenceState = PresenceState { presence: Presence::Unknown, since: None };

fn key(device: usize) -> Key {
    ("default".to_owned(), format!("d{device}"))
}

impl World {
    /// One with these devices, each with the `staleAfter`s of its channels.
    pub(super) fn new(devices: &[Vec<Duration>]) -> Self {
        Self::with_tenants(1, devices)
    }

    /// The same, the devices being of so many tenants in turn.
    pub(super) fn with_tenants(tenants: usize, devices: &[Vec<Duration>]) -> Self {
        let start = Instant::now();
        let target = devices.iter().enumerate().map(|(device, channels)| {
            let name = |channel| ChannelName::new(&format!("c{channel}")).unwrap();
            Arc::new(Target {
                tenant: TenantName::new(&format!("t{}", device % tenants)).unwrap(),
                iot_id: IotId::new(&format!("id{device}")).unwrap(),
                channels: channels
                    .iter()
                    .enumerate()
                    .map(|(at, stale_after)| (name(at), *stale_after))
                    .collect(),
            })
        });
        let mut this = Self {
            start,
            now: Duration::ZERO,
            clock_is_off: SignedDuration::ZERO,
            is_up: true,
            max_subscriptions: usize::MAX,
            at_once: usize::MAX,
            scheduler: Scheduler::new(start),
            stored: BTreeMap::new(),
            sequence: 0,
            devices: target.collect(),
            subscriptions: BTreeMap::new(),
            reports: Vec::new(),
            asked: 0,
            largest: 0,
            requests: 0,
        };
        for (device, target) in this.devices.clone().into_iter().enumerate() {
            this.scheduler.track(&key(device), target, UNKNOWN, start);
        }
        this
    }

    /// What the broker's clock shows.
    pub(super) fn broker_time(&self) -> Timestamp {
        let epoch: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        epoch + SignedDuration::try_from(self.now).unwrap() + self.clock_is_off
    }

    fn local(&self) -> Instant {
        self.start + self.now
    }

    /// A device sends; nothing comes of it while the broker is down.
    pub(super) fn send(&mut self, device: usize, channel: usize) {
        if !self.is_up {
            return;
        }
        self.sequence += 1;
        let target = self.devices[device].clone();
        let subject = subject::stored(&target.tenant, &target.iot_id, &target.channels[channel].0);
        let (sequence, stored) = (self.sequence, self.broker_time());
        self.stored.insert(subject, (sequence, stored));
        let id = self
            .subscriptions
            .iter()
            .find(|(_, subscribed)| Arc::ptr_eq(subscribed, &target))
            .map(|(id, _)| *id);
        if let Some(id) = id {
            self.subscriptions.remove(&id);
            if self.scheduler.apply_message(id, &LastMessage { channel, sequence, stored }, self.local()) {
                self.subscribe(id);
            }
        }
        self.take_reports();
    }

    /// The broker goes or comes back, perhaps without what it had stored.
    pub(super) fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
        if is_up {
            self.scheduler.restart(self.local());
        }
    }

    /// The broker's stream is made anew.
    pub(super) fn lose_everything(&mut self) {
        self.stored.clear();
        self.sequence = 0;
    }

    /// Goes on by one step.
    pub(super) fn step(&mut self) {
        self.now += STEP;
        let mut lookups = 0;
        while self.is_up
            && lookups < self.at_once
            && let Some(lookup) = self.scheduler.next_lookup(self.local())
        {
            lookups += 1;
            self.asked += lookup.subjects.len();
            self.largest = self.largest.max(lookup.subjects.len());
            self.requests += 1;
            let last = |subject: &String| {
                self.stored.get(subject).map(|(sequence, stored)| (subject.clone(), *sequence, *stored))
            };
            let reply = LookupReply {
                messages: lookup.subjects.keys().filter_map(last).collect(),
                clock: lookup.with_clock.then(|| self.broker_time()),
            };
            for id in self.scheduler.apply_reply(&lookup, &reply, self.local()) {
                self.subscribe(id);
            }
        }
        self.take_reports();
    }

    fn subscribe(&mut self, id: DeviceId) {
        if self.subscriptions.len() < self.max_subscriptions {
            let target = self.scheduler.target(id).unwrap().clone();
            self.subscriptions.insert(id, target);
            self.scheduler.subscribed(id, self.local());
        }
    }

    fn take_reports(&mut self) {
        for change in self.scheduler.take_reports(self.local()) {
            let device = change.key.1[1..].parse().unwrap();
            self.reports.push((self.now, device, change.state));
        }
    }

    /// What was reports of a device last.
    pub(super) fn last_report(&self, device: usize) -> PresenceState {
        self.reports_of(device).last().map_or(UNKNOWN, |(_, reports)| reports)
    }

    /// Everything that was reports of a device.
    pub(super) fn reports_of(&self, device: usize) -> impl Iterator<Item = (Duration, PresenceState)> {
        let of_this = self.reports.iter().filter(move |(_, of, _)| *of == device);
        of_this.map(|(at, _, reports)| (*at, *reports))
    }
}
