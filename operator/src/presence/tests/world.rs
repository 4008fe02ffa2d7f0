//! A simulated broker with devices, and a [`Scheduler`] that is driven as the task drives it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::subject;
use flutecast_crds::Presence;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::object::Key;
use crate::presence::device::LastMessage;
use crate::presence::scheduler::{DeviceId, LookupReply, Scheduler};
use crate::presence::table::Target;
use crate::presence::{Observation, PresenceState, Understanding};

/// The step of the simulation: as long as the task collects lookups.
pub(super) const STEP: Duration = Duration::from_millis(200);

pub(super) struct World {
    start: Instant,
    /// The time since the start.
    pub(super) now: Duration,
    /// The error of the broker's clock.
    pub(super) clock_is_off: SignedDuration,
    pub(super) is_up: bool,
    /// `true` if the messages of a device that begins to send are looked at at once.
    pub(super) looks: bool,
    /// What a look finds, for each device.
    found: Vec<Understanding>,
    /// The limit of subscriptions.
    pub(super) max_subscriptions: usize,
    /// The limit of lookups in a step.
    pub(super) at_once: usize,
    pub(super) scheduler: Scheduler,
    /// Last messages, by subject.
    stored: BTreeMap<String, (u64, Timestamp)>,
    sequence: u64,
    devices: Vec<Arc<Target>>,
    subscriptions: BTreeMap<DeviceId, Arc<Target>>,
    /// All reports: when, about which device, and the presence.
    pub(super) reports: Vec<(Duration, usize, PresenceState)>,
    /// What the same reports say of the device's messages.
    pub(super) understood: Vec<Understanding>,
    /// The number of subjects that were looked up.
    pub(super) asked: usize,
    /// The size of the largest lookup, and the number of lookups.
    pub(super) largest: usize,
    pub(super) requests: usize,
}

pub(super) const UNKNOWN: PresenceState = PresenceState { presence: Presence::Unknown, since: None };

fn key(device: usize) -> Key {
    ("default".to_owned(), format!("d{device}"))
}

impl World {
    /// Creates a world with these devices, each with the `staleAfter`s of its channels.
    pub(super) fn new(devices: &[Vec<Duration>]) -> Self {
        Self::with_tenants(1, devices)
    }

    /// The same with the devices spread over this many tenants.
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
            looks: true,
            found: vec![Understanding::UNDERSTOOD; devices.len()],
            max_subscriptions: usize::MAX,
            at_once: usize::MAX,
            scheduler: Scheduler::new(start),
            stored: BTreeMap::new(),
            sequence: 0,
            devices: target.collect(),
            subscriptions: BTreeMap::new(),
            reports: Vec::new(),
            understood: Vec::new(),
            asked: 0,
            largest: 0,
            requests: 0,
        };
        for (device, target) in this.devices.clone().into_iter().enumerate() {
            let before = Observation { presence: UNKNOWN, understanding: Understanding::NO_MESSAGES };
            this.scheduler.track(&key(device), target, before, start);
        }
        this
    }

    /// Returns the time of the broker's clock.
    pub(super) fn broker_time(&self) -> Timestamp {
        let epoch: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        epoch + SignedDuration::try_from(self.now).unwrap() + self.clock_is_off
    }

    fn local(&self) -> Instant {
        self.start + self.now
    }

    /// Publishes a message; it gets lost while the broker is down.
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

    /// Stops or starts the broker.
    pub(super) fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
        if is_up {
            self.scheduler.restart(self.local());
        }
    }

    /// Creates the stream again: its messages and sequences are lost.
    pub(super) fn lose_everything(&mut self) {
        self.stored.clear();
        self.sequence = 0;
    }

    /// Advances by one step.
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
        if self.is_up && self.looks {
            for target in self.scheduler.take_first_looks() {
                let device = self.devices.iter().position(|device| Arc::ptr_eq(device, &target)).unwrap();
                self.scheduler.judged(&key(device), self.found[device].clone(), self.local());
            }
        }
        for report in self.scheduler.take_reports(self.local()) {
            let device = report.key.1[1..].parse().unwrap();
            self.reports.push((self.now, device, report.observed.presence));
            self.understood.push(report.observed.understanding);
        }
    }

    /// Returns what all reports about a device say of its messages.
    pub(super) fn understood_of(&self, device: usize) -> impl Iterator<Item = &Understanding> {
        let of_this = self.reports.iter().zip(&self.understood);
        of_this.filter(move |((_, of, _), _)| *of == device).map(|(_, understanding)| understanding)
    }

    /// A device's messages are judged; each look from now on finds the same.
    pub(super) fn judge(&mut self, device: usize, understanding: Understanding) {
        if understanding != Understanding::NO_MESSAGES {
            self.found[device] = understanding.clone();
        }
        self.scheduler.judged(&key(device), understanding, self.local());
        self.take_reports();
    }

    /// All reports: when, about which device, and the state.
    pub(super) fn last_report(&self, device: usize) -> PresenceState {
        self.reports_of(device).last().map_or(UNKNOWN, |(_, reports)| reports)
    }

    /// Returns all reports about a device.
    pub(super) fn reports_of(&self, device: usize) -> impl Iterator<Item = (Duration, PresenceState)> {
        let of_this = self.reports.iter().filter(move |(_, of, _)| *of == device);
        of_this.map(|(at, _, reports)| (*at, *reports))
    }
}
