//! Presence without a broker: reports converge to the truth, whatever happens, and their rate is bounded.

mod load;
mod world;

use std::time::Duration;

use flutecast_crds::Presence;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use self::world::{STEP, World};
use super::scheduler::BOTH_AT_ONCE;
use super::{Understanding, Understood, damping};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets a device publish on its first channel, once in `period`, for `time`.
fn run(world: &mut World, device: usize, period: Option<Duration>, time: Duration) {
    let end = world.now + time;
    let mut next = world.now;
    while world.now < end {
        if let Some(period) = period
            && world.now >= next
        {
            world.send(device, 0);
            next = world.now + period;
        }
        world.step();
    }
}

fn reports(world: &World, device: usize) -> Vec<(u64, Presence)> {
    world.reports_of(device).map(|(at, report)| (at.as_secs(), report.presence)).collect()
}

fn reported(world: &World, device: usize) -> Vec<Presence> {
    world.reports_of(device).map(|(_, report)| report.presence).collect()
}

const OFTEN: Option<Duration> = Some(Duration::from_millis(100));

#[test]
fn a_device_falls_silent_and_comes_back() {
    let mut world = World::new(&[vec![seconds(10)]]);
    run(&mut world, 0, OFTEN, seconds(100));
    assert_eq!(reported(&world, 0), [Presence::Online]);
    assert!(world.asked <= 16, "{} lookups in ten times staleAfter", world.asked);
    let last = world.broker_time();
    run(&mut world, 0, None, seconds(100));
    let silent = world.last_report(0);
    assert_eq!(silent.presence, Presence::Silent);
    let off = silent.since.unwrap().duration_since(last + seconds(10)).as_secs_f64();
    assert!((-2.0..=0.0).contains(&off), "{silent:?}");
    assert!(reports(&world, 0)[1].0 <= 111, "{:?}", reports(&world, 0));
    // While it is silent it is looked up only now and then.
    let before = world.asked;
    run(&mut world, 0, None, seconds(600));
    assert!(world.asked - before <= 12, "{} lookups", world.asked - before);
    let back = world.now;
    run(&mut world, 0, OFTEN, STEP);
    assert_eq!(world.reports_of(0).last().unwrap().0, back, "its first message is enough");
    assert_eq!(world.last_report(0).presence, Presence::Online);
}

#[test]
fn one_fresh_channel_keeps_a_device_online() {
    let mut world = World::new(&[vec![seconds(5), seconds(60)]]);
    world.send(0, 1);
    run(&mut world, 0, None, seconds(55));
    assert_eq!(reported(&world, 0), [Presence::Online]);
    run(&mut world, 0, None, seconds(10));
    assert_eq!(world.last_report(0).presence, Presence::Silent);
}

#[test]
fn a_device_without_messages_is_silent_after_the_grace_time() {
    let mut world = World::new(&[vec![seconds(10)], vec![seconds(3600)]]);
    run(&mut world, 0, None, seconds(9));
    assert_eq!(world.reports, []);
    run(&mut world, 0, None, seconds(60));
    assert_eq!(reports(&world, 0), [(10, Presence::Silent)]);
    assert_eq!(reports(&world, 1), [(60, Presence::Silent)], "nobody waits for an hour");
}

#[test]
fn a_new_device_is_online_with_its_first_message() {
    for max_subscriptions in [0, 1] {
        let mut world = World::new(&[vec![seconds(3600)]]);
        world.max_subscriptions = max_subscriptions;
        run(&mut world, 0, None, seconds(5));
        let first = world.now;
        world.send(0, 0);
        run(&mut world, 0, None, seconds(11));
        let (noticed, report) = world.reports_of(0).next().unwrap();
        assert_eq!(report.presence, Presence::Online);
        assert!(
            noticed - first <= if max_subscriptions == 0 { seconds(10) } else { Duration::ZERO },
            "{noticed:?}"
        );
    }
}

#[test]
fn an_outage_of_the_broker_makes_no_device_silent() {
    for loses_everything in [false, true] {
        let mut world = World::new(&[vec![seconds(10)]]);
        run(&mut world, 0, OFTEN, seconds(30));
        world.set_up(false);
        run(&mut world, 0, OFTEN, seconds(300));
        if loses_everything {
            world.lose_everything();
        }
        world.set_up(true);
        // A device needs some time to notice and to reconnect.
        run(&mut world, 0, None, seconds(8));
        run(&mut world, 0, OFTEN, seconds(60));
        assert_eq!(reported(&world, 0), [Presence::Online]);
        // A device that stays away becomes silent.
        world.set_up(false);
        world.set_up(true);
        run(&mut world, 0, None, seconds(12));
        assert_eq!(world.last_report(0).presence, Presence::Silent);
    }
}

#[test]
fn setting_the_clock_of_the_broker_changes_no_presence() {
    for hours in [-1, 1] {
        let mut world = World::new(&[vec![seconds(10)], vec![seconds(10)]]);
        world.send(1, 0);
        run(&mut world, 0, OFTEN, seconds(60));
        world.clock_is_off = SignedDuration::from_hours(hours);
        run(&mut world, 0, OFTEN, seconds(200));
        assert_eq!(reported(&world, 0), [Presence::Online], "{hours} h");
        assert_eq!(reports(&world, 1).len(), 2, "{hours} h: {:?}", reports(&world, 1));
        // A device that fell silent just before is silent, whatever its last message shows.
        world.send(1, 0);
        world.clock_is_off = SignedDuration::ZERO;
        run(&mut world, 0, OFTEN, seconds(60));
        assert_eq!(world.last_report(1).presence, Presence::Silent, "{hours} h");
        assert_eq!(reports(&world, 0).len(), 1, "{hours} h");
    }
}

#[test]
fn a_plant_that_is_switched_off_is_reported_at_the_bounded_rate() {
    let plant = vec![vec![seconds(10), seconds(10), seconds(75)]; 2000];
    let mut world = World::new(&plant);
    world.max_subscriptions = 100;
    for device in 0..plant.len() {
        (0..3).for_each(|channel| world.send(device, channel));
    }
    for _ in 0..5 * 140 {
        world.step();
    }
    assert!((0..plant.len()).all(|device| world.last_report(device).presence == Presence::Silent));
    assert_eq!(world.reports.len(), 2 * plant.len());
    assert!(world.largest <= 1024, "{} subjects in one request", world.largest);
    let first = world.reports.iter().find(|(_, _, report)| report.presence == Presence::Silent).unwrap().0;
    let last = world.reports.last().unwrap().0;
    let least = damping::CHANGES.interval * (2000 - damping::CHANGES.burst);
    assert!(last - first >= least && last - first <= least + seconds(5), "{:?}", last - first);
    // All come back: those without a subscription within seconds.
    for device in 0..plant.len() {
        world.send(device, 0);
    }
    for _ in 0..5 * 45 {
        world.step();
        (0..plant.len()).for_each(|device| world.send(device, 0));
    }
    assert!((0..plant.len()).all(|device| world.last_report(device).presence == Presence::Online));
}

#[test]
fn a_tenant_that_always_has_a_due_lookup_delays_no_other() {
    // More tenants than are looked up at once, all silent and without subscriptions, so that devices are due
    // all the time.
    const TENANTS: usize = 24;
    let mut world = World::with_tenants(TENANTS, &vec![vec![seconds(30)]; TENANTS * 100]);
    (world.max_subscriptions, world.at_once) = (0, 8);
    for _ in 0..5 * 120 {
        world.step();
    }
    assert_eq!(world.scheduler.counts()[1], (Presence::Silent, TENANTS * 100));
    // One device of each tenant comes back.
    (0..TENANTS).for_each(|device| world.send(device, 0));
    for _ in 0..5 * 12 {
        world.step();
    }
    assert_eq!(world.scheduler.counts()[0], (Presence::Online, TENANTS));
}

fn bad(found: &str) -> Understanding {
    Understanding::new(Understood::False, "BadField", "channel power", found)
}

#[test]
fn one_report_says_both_and_the_same_problem_is_reported_once() {
    // One has no staleAfter.
    let mut world = World::new(&[vec![seconds(10)], vec![]]);
    world.judge(1, Understanding::NO_MESSAGES);
    run(&mut world, 0, None, seconds(5));
    assert_eq!(world.reports, []);
    for minute in 0..10 {
        for device in 0..2 {
            world.judge(device, bad(&minute.to_string()));
        }
        run(&mut world, 0, OFTEN, seconds(60));
    }
    for device in 0..2 {
        assert_eq!(world.understood_of(device).last(), Some(&bad("0")), "{device}");
    }
    assert_eq!(world.reports_of(1).count(), 1, "{:?}", reports(&world, 1));
    assert!(world.reports_of(0).count() <= 2, "{:?}", reports(&world, 0));
    assert_eq!(world.scheduler.understood_counts()[1], (Understood::False, 2));
    assert_eq!(world.scheduler.counts()[0], (Presence::Online, 1));
    // It falls silent within the hold of a report, and is understood again: both are said at once.
    run(&mut world, 0, None, seconds(9));
    let before = world.reports_of(0).count();
    world.judge(0, Understanding::UNDERSTOOD);
    run(&mut world, 0, None, seconds(60));
    let after = world.reports_of(0).count();
    assert!(after - before <= 2, "{:?}", reports(&world, 0));
    assert_eq!(world.understood_of(0).last(), Some(&Understanding::UNDERSTOOD));
    assert_eq!(world.last_report(0).presence, Presence::Silent);
}

#[test]
fn a_device_that_begins_to_send_is_reported_once() {
    let mut world = World::new(&vec![vec![seconds(60)]; 4]);
    world.looks = false;
    world.judge(1, bad("7"));
    world.judge(3, bad("7"));
    for device in 0..3 {
        world.send(device, 0);
    }
    run(&mut world, 0, OFTEN, seconds(3));
    assert_eq!(reports(&world, 0), [], "its messages were not looked at yet");
    assert_eq!(reported(&world, 1), [Presence::Online]);
    let asked: Vec<_> = world.scheduler.take_first_looks();
    assert_eq!(asked.len(), 2, "{asked:?}");
    world.judge(0, Understanding::UNDERSTOOD);
    run(&mut world, 0, OFTEN, seconds(15));
    assert_eq!(reports(&world, 0), [(3, Presence::Online)]);
    assert_eq!(world.understood_of(0).last(), Some(&Understanding::UNDERSTOOD));
    // What doesn't come is not waited for any longer: a look, or a presence.
    let (at, report) = world.reports_of(2).next().unwrap();
    assert_eq!(report.presence, Presence::Online);
    assert!(at >= BOTH_AT_ONCE && at <= BOTH_AT_ONCE + seconds(3), "{at:?}");
    assert_eq!(reports(&world, 3), [(10, Presence::Unknown)]);
    assert!(world.scheduler.take_first_looks().is_empty(), "it was asked for");
}

#[test]
fn messages_that_are_understood_now_and_then_are_reported_as_seldom_as_presence() {
    let mut world = World::new(&[vec![]]);
    for look in 0..6 * 60 {
        let judged = if look % 2 == 0 { bad("7") } else { Understanding::UNDERSTOOD };
        world.judge(0, judged);
        run(&mut world, 0, None, seconds(10));
    }
    let count = world.reports_of(0).count();
    assert!((5..=11).contains(&count), "{:?}", reports(&world, 0));
    // The last word is right in the end.
    world.judge(0, Understanding::UNDERSTOOD);
    run(&mut world, 0, None, damping::MAX_HOLD);
    assert_eq!(world.understood_of(0).last(), Some(&Understanding::UNDERSTOOD));
}

/// One event of a story.
#[derive(Debug, Clone)]
enum Event {
    /// A device starts to publish on one channel, or stops.
    Sends {
        device: usize,
        channel: usize,
        period: Option<Duration>,
    },
    Broker {
        is_up: bool,
        loses_everything: bool,
    },
    Clock {
        seconds: i64,
    },
    MaxSubscriptions {
        max_subscriptions: usize,
    },
    Judged {
        device: usize,
        understanding: Understanding,
    },
}

fn understanding() -> impl Strategy<Value = Understanding> {
    let known = [Understanding::UNDERSTOOD, Understanding::NO_MESSAGES, bad("7"), bad("8")];
    prop::sample::select(known.to_vec())
}

fn event(devices: usize) -> impl Strategy<Value = Event> {
    let period = prop_oneof![Just(None), (100_u64..60_000).prop_map(|ms| Some(Duration::from_millis(ms)))];
    prop_oneof![
        6 => (0..devices, 0..3_usize, period)
            .prop_map(|(device, channel, period)| Event::Sends { device, channel, period }),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_up, loses_everything)| Event::Broker { is_up, loses_everything }),
        1 => (-4000_i64..4000).prop_map(|seconds| Event::Clock { seconds }),
        1 => (0_usize..5).prop_map(|max_subscriptions| Event::MaxSubscriptions { max_subscriptions }),
        4 => (0..devices, understanding())
            .prop_map(|(device, understanding)| Event::Judged { device, understanding }),
    ]
}

/// A world, and the devices that publish.
struct Story {
    world: World,
    stale_after: Vec<Vec<Duration>>,
    /// The period of each channel that publishes.
    periods: Vec<Vec<Option<Duration>>>,
    next: Vec<Vec<Duration>>,
}

impl Story {
    fn new(devices: &[Vec<u64>]) -> Self {
        let channels =
            |channels: &Vec<u64>| channels.iter().map(|stale_after| seconds(*stale_after)).collect();
        let stale_after: Vec<Vec<Duration>> = devices.iter().map(channels).collect();
        Self {
            world: World::new(&stale_after),
            periods: stale_after.iter().map(|channels| vec![None; channels.len()]).collect(),
            next: stale_after.iter().map(|channels| vec![Duration::ZERO; channels.len()]).collect(),
            stale_after,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            for (device, channels) in self.periods.iter().enumerate() {
                for (channel, period) in channels.iter().enumerate() {
                    if let Some(period) = period
                        && self.world.now >= self.next[device][channel]
                    {
                        self.world.send(device, channel);
                        self.next[device][channel] = self.world.now + *period;
                    }
                }
            }
            self.world.step();
        }
    }

    fn apply(&mut self, event: Event) {
        let world = &mut self.world;
        match event {
            Event::Sends { device, channel, period } => {
                let channels = self.periods.get_mut(device);
                if let Some(sender) = channels.and_then(|channels| channels.get_mut(channel)) {
                    *sender = period;
                }
            }
            Event::Broker { is_up, loses_everything } => {
                if loses_everything && is_up && !world.is_up {
                    world.lose_everything();
                }
                world.set_up(is_up);
            }
            Event::Clock { seconds } => world.clock_is_off = SignedDuration::from_secs(seconds),
            Event::MaxSubscriptions { max_subscriptions } => world.max_subscriptions = max_subscriptions,
            Event::Judged { device, understanding } => {
                if device < self.periods.len() {
                    world.judge(device, understanding);
                }
            }
        }
    }

    /// Lets these devices publish, and no others, for longer than any report is held.
    fn end(&mut self, sends: &[bool]) {
        self.world.set_up(true);
        (0..self.periods.len()).for_each(|device| self.world.judge(device, bad("9")));
        for ((periods, stale_after), sends) in self.periods.iter_mut().zip(&self.stale_after).zip(sends) {
            periods.fill(None);
            if *sends {
                periods[0] = Some(stale_after[0] / 2);
            }
        }
        self.run(damping::MAX_HOLD + seconds(180));
    }

    /// Checks the rate of the reports about a device, and that their times increase.
    fn check_reports(&self, device: usize) -> Result<(), TestCaseError> {
        let all: Vec<_> = self.world.reports_of(device).collect();
        let shown = reports(&self.world, device);
        let understood: Vec<_> = self.world.understood_of(device).collect();
        for (pair, understood) in all.windows(2).zip(understood.windows(2)) {
            let ((before, first), (after, second)) = (pair[0], pair[1]);
            prop_assert!(after - before >= damping::MIN_HOLD, "{:?}", shown);
            let is_same = understood[0].tells_the_same(understood[1]);
            prop_assert!(first.presence != second.presence || !is_same, "{:?}", shown);
            prop_assert!(first.since <= second.since, "{:?} after {:?}", second, first);
        }
        let in_an_hour =
            |from: Duration| all.iter().filter(|(at, _)| (from..from + seconds(3600)).contains(at)).count();
        prop_assert!(all.iter().all(|(at, _)| in_an_hour(*at) <= 18), "{:?}", shown);
        let whole = |time: Timestamp| time.subsec_nanosecond() == 0;
        let may_have_none = |presence| presence == Presence::Unknown;
        prop_assert!(
            all.iter().all(|(_, report)| report.since.map_or(may_have_none(report.presence), whole))
        );
        Ok(())
    }
}

#[test]
fn a_look_that_was_asked_for_while_the_broker_was_away_says_what_holds_when_it_is_back() {
    let mut run = Story::new(&[vec![3]]);
    let sends = Event::Sends { device: 0, channel: 0, period: Some(Duration::from_millis(20_601)) };
    let story = [
        (0, Event::Judged { device: 0, understanding: bad("7") }),
        (0, sends),
        (250, Event::Broker { is_up: false, loses_everything: false }),
        (0, Event::Judged { device: 0, understanding: Understanding::NO_MESSAGES }),
    ];
    for (time, event) in story {
        run.run(seconds(time));
        run.apply(event);
    }
    run.end(&[false]);
    assert!(run.world.understood_of(0).last().unwrap().tells_the_same(&bad("9")));
    run.check_reports(0).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn reports_converge_and_are_never_too_frequent(
        devices in prop::collection::vec(prop::collection::vec(1_u64..90, 1..4), 1..5),
        story in prop::collection::vec((0_u64..90, event(4)), 0..40),
        sends_in_the_end in prop::collection::vec(any::<bool>(), 4),
        looks in any::<bool>(),
    ) {
        let mut run = Story::new(&devices);
        run.world.looks = looks;
        for (time, event) in story {
            run.run(seconds(time));
            run.apply(event);
        }
        run.end(&sends_in_the_end);
        for (device, sends) in (0..devices.len()).zip(&sends_in_the_end) {
            let expected = if *sends { Presence::Online } else { Presence::Silent };
            let shown = reports(&run.world, device);
            prop_assert_eq!(run.world.last_report(device).presence, expected, "device {}: \
                {:?}", device, shown);
            prop_assert!(run.world.understood_of(device).last().unwrap().tells_the_same(&bad("9")));
            run.check_reports(device)?;
        }
    }
}
