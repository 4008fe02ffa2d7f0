//! Whatever a device sends, and whenever one looks: a screen that was there, one that comes now to the same
//! pod, one on a pod that has just started, one on a pod that started in the middle, and the JSON API of a
//! pod that watches and of one that doesn't all show the same (docs/push-formats.md).
//!
//! `PROPTEST_CASES` takes more cases than a run of all tests has time for.

use proptest::prelude::*;
use serde_json::Value;

use super::random_channel::{Case, INTERVAL, case};
use super::*;
use crate::catalog::Device;
use crate::fanout::keys::channel_id;
use crate::fanout::latest::{LookBackBudget, fold_channel};
use crate::fanout::{ChannelValues, DeviceValues};

pub(super) const DEVICE: &str = "A";
pub(super) const CHANNEL: &str = "x";
/// The milliseconds after which the channel is stale.
const STALE_AFTER: u64 = 10_000;
/// The cases of a run of all tests.
const CASES: u32 = 300;

/// What must be the same in all places.
const SHOWN: [&str; 5] = ["seq", "time", "values", "bad", "at"];

/// A screen: the data events that it has got, in their order.
pub(super) struct Screen {
    connection: u64,
    backlog: Arc<Backlog>,
    events: Vec<Value>,
}

impl Screen {
    pub(super) fn open(pod: &mut Harness) -> Self {
        Self::resume(pod, None)
    }

    pub(super) fn resume(pod: &mut Harness, after: Option<u64>) -> Self {
        let (connection, backlog) = pod.attach(&[DEVICE], after);
        Self { connection, backlog, events: Vec::new() }
    }

    /// Returns what the screen shows: the event that was stored last.
    pub(super) fn shows(&mut self) -> Value {
        self.take();
        let newest = self.events.iter().max_by_key(|event| event["seq"].as_u64());
        shown(newest.unwrap_or(&Value::Null))
    }

    fn take(&mut self) {
        for block in blocks(&self.backlog) {
            match block.event.as_deref() {
                None => {
                    self.events.extend(block.data.map(|data| serde_json::from_str::<Value>(&data).unwrap()))
                }
                Some(event) => assert!(!["gap", "bye", "refused"].contains(&event), "{block:?}"),
            }
        }
    }

    pub(super) fn sequences(&mut self) -> Vec<u64> {
        self.take();
        self.events.iter().filter_map(|event| event["seq"].as_u64()).collect()
    }
}

pub(super) fn shown(channel: &Value) -> Value {
    SHOWN.iter().map(|field| ((*field).to_owned(), channel[field].clone())).collect()
}

impl Case {
    fn catalog(&self) -> Arc<TenantCatalog> {
        catalog_of(&[DEVICE], &[(CHANNEL, self.format.clone(), Some(STALE_AFTER))])
    }

    fn is_every(&self) -> bool {
        self.format.delivery.policy == DeliveryPolicy::Every
    }

    /// Returns whether two places show the same, as docs/push-formats.md defines it.
    fn same(&self, stored: &[StoredMessage], one: &Value, other: &Value) -> bool {
        if one == other {
            return true;
        }
        let payload = |shown: &Value| {
            let place = shown["seq"].as_u64()?;
            stored.iter().find(|message| message.sequence.0 == place).map(|message| &message.payload)
        };
        let (Some(mine), Some(others)) = (payload(one), payload(other)) else { return false };
        if self.is_every() && mine == others {
            // A repeat that follows directly: a screen that comes gets it, one that was there had it before.
            return true;
        }
        self.triggers() && self.close(&one["values"], &other["values"])
    }

    fn clock_steps_back(&self) -> bool {
        self.messages.iter().any(|message| message.gap < 0)
    }

    fn triggers(&self) -> bool {
        self.format.fields.iter().any(|field| field.on_change)
    }

    /// Returns whether values differ by less than a channel pushes: a screen that was there may have an older
    /// message.
    fn close(&self, one: &Value, other: &Value) -> bool {
        let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else { return false };
        let deadband = self.format.fields[0].deadband.unwrap_or(0.0);
        let near = |name: &String, here: &Value, there: &Value| {
            let difference = here.as_f64().zip(there.as_f64()).map(|(here, there)| (here - there).abs());
            here == there || name == "a" && difference.is_some_and(|difference| difference < deadband)
        };
        let mut fields = one.iter();
        one.len() == other.len()
            && fields.all(|(name, here)| other.get(name).is_some_and(|there| near(name, here, there)))
    }
}

/// Starts a pod on a stream that holds these messages.
pub(super) fn start(catalog: &Arc<TenantCatalog>, stored: &[StoredMessage], now: Now) -> Harness {
    let mut pod = Harness::with(Arc::clone(catalog));
    pod.now = now;
    for message in stored {
        store(&mut pod, message);
    }
    pod
}

fn store(pod: &mut Harness, message: &StoredMessage) -> Option<(ChannelKey, LiveMessage)> {
    let StoredMessage { stored_at, captured_at, payload, .. } = message;
    let captured_at = captured_at.map(Timestamp::from);
    pod.store_message(DEVICE, CHANNEL, payload.clone(), (*stored_at).into(), captured_at)
}

/// Returns what the JSON API of a pod that doesn't watch the channel says.
pub(super) fn read_json(catalog: &TenantCatalog, stored: &Vec<StoredMessage>, now: Now) -> Value {
    let device = &catalog.devices[&IotId::new(DEVICE).unwrap()];
    let channel = device.channels.values().next().unwrap();
    let budget = LookBackBudget::new();
    let fold = fold_channel(stored, (device, channel), stored.last().cloned(), &budget).now_or_never();
    let (_, fold) = fold.expect("no I/O").unwrap();
    json(device, fold.values(channel, now))
}

/// Returns what the JSON API of a pod that watches the channel says.
fn watched_json(catalog: &TenantCatalog, pod: &Harness) -> Option<Value> {
    let device = &catalog.devices[&IotId::new(DEVICE).unwrap()];
    let channel = device.channels.values().next().unwrap();
    let mut values = pod.state.live_values(vec![channel_id(device, channel)], pod.now);
    values.remove(&channel_id(device, channel)).map(|values| json(device, values))
}

fn json(device: &Arc<Device>, channel: ChannelValues) -> Value {
    let mut out = Vec::new();
    DeviceValues { device: Arc::clone(device), channels: vec![channel] }.write_json(&mut out);
    let mut device: Value = serde_json::from_slice(&out).unwrap();
    device["channels"][CHANNEL].take()
}

/// Two pods and the screens that stay on them.
struct Plant<'a> {
    case: &'a Case,
    catalog: Arc<TenantCatalog>,
    first: Harness,
    there: Screen,
    second: Option<(Harness, Screen)>,
    /// The answer to the second pod's first read, if it is slow.
    under_way: Option<ReadResult>,
}

impl<'a> Plant<'a> {
    fn new(case: &'a Case, now: Now) -> Self {
        let catalog = case.catalog();
        let mut first = start(&catalog, &[], now);
        let there = Screen::open(&mut first);
        first.read_all();
        Self { case, catalog, first, there, second: None, under_way: None }
    }

    fn pods(&mut self) -> impl Iterator<Item = &mut Harness> {
        [Some(&mut self.first), self.second.as_mut().map(|(pod, _)| pod)].into_iter().flatten()
    }

    fn pass_to(&mut self, now: Now) {
        // A screen that takes nothing for long is closed.
        self.there.take();
        self.second.iter_mut().for_each(|(_, screen)| screen.take());
        for pod in self.pods() {
            pod.now = now;
            pod.state.tick(now);
        }
    }

    /// Brings the next message to the pods, or only the news that some may have been missed.
    fn next(&mut self, message: &StoredMessage, missed: bool) {
        for pod in self.pods() {
            let live = store(pod, message);
            if missed {
                pod.state.read_all_again(pod.now);
            } else {
                pod.state.apply_live(live.into_iter(), pod.now);
            }
        }
        if let (Some(answer), Some((pod, _))) = (self.under_way.take(), &mut self.second) {
            pod.state.apply_read(answer, pod.now);
        }
        for pod in self.pods() {
            pod.read_all();
        }
    }

    /// Starts the second pod, whose first read may take until the next message.
    fn start_second(&mut self) {
        let mut pod = start(&self.catalog, &self.first.stored, self.first.now);
        let screen = Screen::open(&mut pod);
        if self.case.slow {
            self.under_way = pod.start_read().map(|request| pod.answer(&request));
        } else {
            pod.read_all();
        }
        self.second = Some((pod, screen));
    }

    /// Checks that all places show the same now.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let Self { case, catalog, first, there, second, under_way } = self;
        let shows = there.shows();
        let mut places = Vec::new();
        let read = read_json(catalog, &first.stored, first.now);
        let watched = watched_json(catalog, first);
        prop_assert!(watched.is_some(), "the first pod is still reading");
        let watched = watched.unwrap_or_default();
        // Staleness is timed by a clock that never steps back.
        prop_assert!(
            case.clock_steps_back() || read["stale"] == watched["stale"],
            "stale: read {}, watched {}\n{}",
            read,
            watched,
            Case::listing(&first.stored)
        );
        places.extend([("the JSON API", shown(&read)), ("the JSON API of the same pod", shown(&watched))]);
        let mut new = Screen::open(first);
        places.push(("a new screen on the same pod", new.shows()));
        new.backlog.detach();
        first.state.detach(new.connection, first.now);
        let mut fresh = start(catalog, &first.stored, first.now);
        let mut new = Screen::open(&mut fresh);
        fresh.read_all();
        places.push(("a new screen on a new pod", new.shows()));
        if let (Some((_, screen)), None) = (second, under_way) {
            places.push(("the screen on the second pod", screen.shows()));
        }
        for (place, other) in places {
            prop_assert!(
                case.same(&first.stored, &shows, &other),
                "{} shows {}, the screen that was there {}\n{}",
                place,
                other,
                shows,
                Case::listing(&first.stored)
            );
        }
        Ok(())
    }

    /// Checks that a screen that goes on behind any event, on a pod that has just started, gets the events
    /// that the screen which was there got, and so does the one on the second pod.
    fn check_events(&mut self) -> Result<(), TestCaseError> {
        let Self { catalog, first, there, second, under_way, .. } = self;
        let all = there.sequences();
        for (index, &after) in all.iter().enumerate() {
            let mut pod = start(catalog, &first.stored, first.now);
            let mut screen = Screen::resume(&mut pod, Some(after));
            pod.read_all();
            pod.replay_all();
            let rest = &all[index + 1..];
            prop_assert_eq!(
                screen.sequences(),
                rest,
                "resumed after {}\n{}",
                after,
                Case::listing(&first.stored)
            );
        }
        if let (Some((_, screen)), None) = (second, under_way) {
            let some = screen.sequences();
            let (listing, tail) = (Case::listing(&first.stored), some.get(1..).unwrap_or_default());
            prop_assert!(
                all.ends_with(tail),
                "the second pod's screen got {:?}, the first {:?}\n{}",
                some,
                all,
                listing
            );
        }
        Ok(())
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let stored = case.stored();
    let wall = stored.first().map_or(Timestamp(0), |first| first.stored_at.into());
    let mut now = Now { instant: Instant::now(), wall };
    let second = case.second.index(stored.len());
    let missed = case.missed.map(|index| index.index(stored.len()));
    let mut plant = Plant::new(case, now);
    for (index, (message, shape)) in stored.iter().zip(&case.messages).enumerate() {
        now.instant += Duration::from_millis(u64::try_from(shape.gap).unwrap_or(0));
        now.wall = message.stored_at.into();
        plant.pass_to(now);
        plant.next(message, missed == Some(index));
        if index == second {
            plant.start_second();
        }
        // What a format's `minInterval` holds back comes when it is over.
        now.instant += Duration::from_millis(INTERVAL);
        now.wall.0 += INTERVAL as i64 * 1_000;
        plant.pass_to(now);
        plant.check()?;
    }
    if case.is_every() { plant.check_events() } else { Ok(()) }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_place_shows_the_same_at_every_moment(case in case()) {
        check(&case)?;
    }
}
