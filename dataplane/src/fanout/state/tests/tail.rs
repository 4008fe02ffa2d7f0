//! Corners of what a channel shows, by simulated time: a screen that was there, one that comes to a pod which
//! has just started, and the JSON API.

use std::sync::atomic::{AtomicUsize, Ordering};

use flutecast_contract::document::{TimestampDocument, TimestampUnit};
use flutecast_contract::tail::MESSAGES;
use serde_json::{Value, json};

use super::one_truth::{CHANNEL, DEVICE, Screen, read_json, shown, start};
use super::*;
use crate::catalog::Channel;
use crate::fanout::latest::{LookBackBudget, fold_channel};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

/// A pod with one channel, and the screen that was there from the start.
struct Place {
    pod: Harness,
    catalog: Arc<TenantCatalog>,
    there: Screen,
}

impl Place {
    fn new(format: FormatDocument) -> Self {
        let catalog = catalog_of(&[DEVICE], &[(CHANNEL, format, None)]);
        let mut pod = Harness::with(Arc::clone(&catalog));
        let there = Screen::open(&mut pod);
        pod.read_all();
        Self { pod, catalog, there }
    }

    /// Stores a message that is so much later than the one before.
    fn publish(&mut self, seconds: u64, payload: impl Fn(Timestamp) -> String) {
        self.there.shows();
        self.pod.pass(Duration::from_secs(seconds));
        let now = self.pod.now.wall;
        let live = self.pod.store_message(DEVICE, CHANNEL, payload(now), now, None);
        self.pod.state.apply_live(live.into_iter(), self.pod.now);
        self.pod.read_all();
    }

    /// Returns what a screen shows that comes now to a pod which has just started.
    fn new_screen(&self) -> Value {
        let mut pod = start(&self.catalog, &self.pod.stored, self.pod.now);
        let mut screen = Screen::open(&mut pod);
        pod.read_all();
        screen.shows()
    }

    fn json(&self) -> Value {
        read_json(&self.catalog, &self.pod.stored, self.pod.now)
    }

    /// Returns the `n` that all places show.
    #[track_caller]
    fn all_show(&mut self) -> Value {
        let there = self.there.shows();
        assert_eq!(self.new_screen(), there, "a new screen");
        assert_eq!(shown(&self.json()), there, "the JSON API");
        there["values"]["n"].clone()
    }
}

/// A format with the field `n` and a time in milliseconds.
fn timed(policy: DeliveryPolicy) -> FormatDocument {
    let unit = TimestampUnit::Milliseconds;
    let pointer = "/ts".to_owned();
    let timestamp = TimestampDocument { pointer, unit, max_age_ms: None, max_ahead_ms: None };
    FormatDocument { timestamp: Some(timestamp), ..format(policy) }
}

/// Returns a message whose time is so many microseconds after that of its storing.
fn at(offset: i64, n: u64) -> impl Fn(Timestamp) -> String {
    move |now| format!("{{\"ts\":{},\"n\":{n}}}", (now.0 + offset) / 1_000)
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_is_live_again_within_a_minute_in_all_places() {
    let mut place = Place::new(timed(DeliveryPolicy::Latest));
    place.publish(1, at(0, 1));
    assert_eq!(place.all_show(), 1);
    for n in 2..=12 {
        place.publish(5, at(-HOUR, n));
        assert_eq!(place.all_show(), 1, "55 s haven't passed yet");
        assert_eq!(place.json()["problem"]["reason"], "OutOfOrder");
    }
    place.publish(6, at(-HOUR, 13));
    assert_eq!(place.all_show(), 13);
    // Set right again, which is a step ahead: live at once.
    place.publish(5, at(0, 14));
    assert_eq!(place.all_show(), 14);
}

#[test]
fn a_time_of_next_year_stops_nothing() {
    let mut place = Place::new(timed(DeliveryPolicy::Latest));
    place.publish(1, at(365 * 24 * HOUR, 1));
    assert_eq!(place.all_show(), 1);
    let json = place.json();
    assert_eq!(json["problem"]["reason"], "ClockAhead");
    assert!(json["time"].as_str() <= Some("2026-11-22T10:00:01.000Z"), "{json}");
    for n in 2..10 {
        place.publish(1, at(0, n));
        assert_eq!(place.all_show(), n);
    }
}

#[test]
fn a_broker_s_clock_that_steps_back_does_not_change_the_order() {
    let mut place = Place::new(timed(DeliveryPolicy::Latest));
    place.publish(1, at(0, 1));
    // A new leader, whose clock is an hour behind, as are those of the devices from now on.
    place.pod.now.wall.0 -= HOUR;
    for n in 2..5 {
        place.publish(1, at(0, n));
        assert_eq!(place.all_show(), n);
    }
}

#[test]
fn a_tail_in_which_nothing_can_be_shown_shows_nothing_and_says_why() {
    let mut place = Place::new(format(DeliveryPolicy::Latest));
    place.publish(1, |_| r#"{"n":1}"#.to_owned());
    for _ in 1..MESSAGES {
        place.publish(0, |_| "online".to_owned());
    }
    assert_eq!(place.all_show(), 1);
    place.publish(0, |_| "online".to_owned());
    // A screen that was there keeps what it had: this difference is documented.
    assert_eq!(place.there.shows()["values"]["n"], 1);
    assert_eq!(place.new_screen()["values"], Value::Null);
    let json = place.json();
    assert_eq!((&json["values"], &json["problem"]["reason"]), (&Value::Null, &json!("Malformed")));
}

#[test]
fn a_message_that_can_not_be_shown_during_the_read_does_not_hide_the_one_that_was_read() {
    let place = Place::new(format(DeliveryPolicy::Latest));
    let mut pod = start(&place.catalog, &[], place.pod.now);
    pod.store_message(DEVICE, CHANNEL, r#"{"n":1}"#, pod.now.wall, None);
    let mut screen = Screen::open(&mut pod);
    let request = pod.start_read().unwrap();
    let answer = pod.answer(&request);
    let live = pod.store_message(DEVICE, CHANNEL, "online", pod.now.wall, None);
    pod.state.apply_live(live.into_iter(), pod.now);
    pod.state.apply_read(answer, pod.now);
    pod.read_all();
    assert_eq!(screen.shows()["values"]["n"], 1);
    assert_eq!(screen.sequences(), [1]);
}

#[test]
fn a_held_back_value_keeps_its_place() {
    let mut slow = format(DeliveryPolicy::Latest);
    slow.delivery.min_interval_ms = Some(5_000);
    let mut place = Place::new(slow);
    for n in 1..=3 {
        place.publish(1, |_| format!("{{\"n\":{n}}}"));
    }
    assert_eq!(place.there.shows()["seq"], 1);
    place.pod.pass(Duration::from_secs(5));
    assert_eq!(place.all_show(), 3);
    assert_eq!(place.there.shows()["seq"], 3);
}

/// The messages of a subject, and how often more than the newest one was asked for.
struct Counted<'a>(&'a Vec<StoredMessage>, AtomicUsize);

impl StoredMessages for Counted<'_> {
    async fn tail(
        &self,
        subject: &str,
        since: Option<jiff::Timestamp>,
        up_to: Sequence,
    ) -> Result<Vec<StoredMessage>, RequestError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.tail(subject, since, up_to).await
    }

    async fn last_up_to(
        &self,
        subject: &str,
        up_to: Sequence,
    ) -> Result<Option<StoredMessage>, RequestError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.last_up_to(subject, up_to).await
    }

    async fn missed(
        &self,
        subject: &str,
        after: Sequence,
    ) -> Result<Option<(Vec<StoredMessage>, bool)>, RequestError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.missed(subject, after).await
    }
}

/// Returns the number of reads behind the one of the newest message.
fn reads_of(place: &Place) -> usize {
    let device = &place.catalog.devices[&IotId::new(DEVICE).unwrap()];
    let channel: &Channel = device.channels.values().next().unwrap();
    let (budget, stored) = (LookBackBudget::new(), Counted(&place.pod.stored, AtomicUsize::new(0)));
    let last = place.pod.stored.last().cloned();
    fold_channel(&stored, (device, channel), last, &budget).now_or_never().unwrap().unwrap();
    stored.1.into_inner()
}

#[test]
fn the_usual_cases_cost_no_more_reads_than_the_newest_message() {
    let mut place = Place::new(timed(DeliveryPolicy::Latest));
    assert_eq!(reads_of(&place), 0, "no message");
    place.publish(1, at(0, 1));
    assert_eq!(reads_of(&place), 0, "a right one");
    place.publish(1, at(-SECOND / 2, 2));
    assert_eq!(reads_of(&place), 0, "clocks that differ a little");
    place.publish(1, at(HOUR, 3));
    assert_eq!(reads_of(&place), 0, "a clock that is ahead");
    place.publish(1, at(-3 * SECOND, 4));
    assert_eq!(reads_of(&place), 1, "a late one");
    place.publish(1, |_| "online".to_owned());
    assert_eq!(reads_of(&place), 1, "one that can't be shown");
    place.publish(130, |_| "online".to_owned());
    assert_eq!(reads_of(&place), 2, "nothing else in the last two minutes");
}
