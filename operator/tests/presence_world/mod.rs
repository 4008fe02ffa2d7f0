//! A broker and devices that exist in numbers only, and a crowd that follows them as the task does.
// Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::{ChannelName, IotId, TenantName};
use flutecast_contract::subject;
use flutecast_crds::Presence;
use flutecast_operator::presence::Told;
use flutecast_operator::presence::board::{Followed, Key};
use flutecast_operator::presence::crowd::{Answer, Crowd, Id};
use flutecast_operator::presence::pulse::Heard;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// How far the world goes at once: as long as the task gathers looks.
pub const STEP: Duration = Duration::from_millis(200);

pub struct World {
    start: Instant,
    /// How long it has been going.
    pub now: Duration,
    /// By how much the broker's clock is off.
    pub clock_is_off: SignedDuration,
    /// Whether the broker can be reached.
    pub is_up: bool,
    /// How many may be listened to.
    pub ears: usize,
    /// How many tenants are asked in a step.
    pub at_once: usize,
    pub crowd: Crowd,
    /// Last messages, by subject.
    stored: BTreeMap<String, (u64, Timestamp)>,
    sequence: u64,
    devices: Vec<Arc<Followed>>,
    listening: BTreeMap<Id, Arc<Followed>>,
    /// What was told: when, of which device, what.
    pub told: Vec<(Duration, usize, Told)>,
    /// How many subjects were asked for.
    pub asked: usize,
    /// The largest and the number of requests.
    pub largest: usize,
    pub requests: usize,
}

pub const UNKNOWN: Told = Told { presence: Presence::Unknown, since: None };

fn key(device: usize) -> Key {
    ("default".to_owned(), format!("d{device}"))
}

impl World {
    /// One with these devices, each with the `staleAfter`s of its channels.
    pub fn new(devices: &[Vec<Duration>]) -> Self {
        Self::with_tenants(1, devices)
    }

    /// The same, the devices being of so many tenants in turn.
    pub fn with_tenants(tenants: usize, devices: &[Vec<Duration>]) -> Self {
        let start = Instant::now();
        let followed = devices.iter().enumerate().map(|(device, channels)| {
            let name = |channel| ChannelName::new(&format!("c{channel}")).unwrap();
            Arc::new(Followed {
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
            ears: usize::MAX,
            at_once: usize::MAX,
            crowd: Crowd::new(start),
            stored: BTreeMap::new(),
            sequence: 0,
            devices: followed.collect(),
            listening: BTreeMap::new(),
            told: Vec::new(),
            asked: 0,
            largest: 0,
            requests: 0,
        };
        for (device, followed) in this.devices.clone().into_iter().enumerate() {
            this.crowd.follow(&key(device), followed, UNKNOWN, start);
        }
        this
    }

    /// What the broker's clock shows.
    pub fn broker_time(&self) -> Timestamp {
        let epoch: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        epoch + SignedDuration::try_from(self.now).unwrap() + self.clock_is_off
    }

    fn local(&self) -> Instant {
        self.start + self.now
    }

    /// A device sends; nothing comes of it while the broker is down.
    pub fn send(&mut self, device: usize, channel: usize) {
        if !self.is_up {
            return;
        }
        self.sequence += 1;
        let followed = self.devices[device].clone();
        let subject = subject::stored(&followed.tenant, &followed.iot_id, &followed.channels[channel].0);
        let (sequence, stored) = (self.sequence, self.broker_time());
        self.stored.insert(subject, (sequence, stored));
        let id =
            self.listening.iter().find(|(_, listened)| Arc::ptr_eq(listened, &followed)).map(|(id, _)| *id);
        if let Some(id) = id {
            self.listening.remove(&id);
            if self.crowd.heard(id, &Heard { channel, sequence, stored }, self.local()) {
                self.listen(id);
            }
        }
        self.tell();
    }

    /// The broker goes or comes back, perhaps without what it had stored.
    pub fn set_up(&mut self, is_up: bool) {
        self.is_up = is_up;
        if is_up {
            self.crowd.begin_again(self.local());
        }
    }

    /// The broker's stream is made anew.
    pub fn lose_everything(&mut self) {
        self.stored.clear();
        self.sequence = 0;
    }

    /// Goes on by one step.
    pub fn step(&mut self) {
        self.now += STEP;
        let mut rounds = 0;
        while self.is_up
            && rounds < self.at_once
            && let Some(round) = self.crowd.ask(self.local())
        {
            rounds += 1;
            self.asked += round.subjects.len();
            self.largest = self.largest.max(round.subjects.len());
            self.requests += 1;
            let last = |subject: &String| {
                self.stored.get(subject).map(|(sequence, stored)| (subject.clone(), *sequence, *stored))
            };
            let answer = Answer {
                messages: round.subjects.keys().filter_map(last).collect(),
                clock: round.with_clock.then(|| self.broker_time()),
            };
            for id in self.crowd.answered(&round, &answer, self.local()) {
                self.listen(id);
            }
        }
        self.tell();
    }

    fn listen(&mut self, id: Id) {
        if self.listening.len() < self.ears {
            let followed = self.crowd.followed(id).unwrap().clone();
            self.listening.insert(id, followed);
            self.crowd.listened_to(id, self.local());
        }
    }

    fn tell(&mut self) {
        for news in self.crowd.tell(self.local()) {
            let device = news.key.1[1..].parse().unwrap();
            self.told.push((self.now, device, news.told));
        }
    }

    /// What was told of a device last.
    pub fn last_told(&self, device: usize) -> Told {
        self.told_of(device).last().map_or(UNKNOWN, |(_, told)| told)
    }

    /// Everything that was told of a device.
    pub fn told_of(&self, device: usize) -> impl Iterator<Item = (Duration, Told)> {
        let of_this = self.told.iter().filter(move |(_, of, _)| *of == device);
        of_this.map(|(at, _, told)| (*at, *told))
    }
}
