use flutecast_contract::name::{ChannelName, DeviceCode};
use flutecast_format::program::Timestamp;

use super::*;
use crate::fanout::arena::Arena;
use flutecast_contract::stream_position::Epoch;

fn bounds() -> Bounds {
    Bounds { count: 8, bytes: 1_500 }
}

fn keys<const N: usize>() -> [Key; N] {
    let mut arena = Arena::default();
    std::array::from_fn(|_| arena.insert(()))
}

fn push(outbox: &Outbox, push: Push, text: &str) -> u64 {
    outbox.push(push, Bytes::copy_from_slice(text.as_bytes()), Instant::now())
}

/// Pushes the event `number` of an `Every` channel; [`take`] gives it back as `channel number`.
fn push_every(outbox: &Outbox, key: Key, channel: &str, number: u64) -> u64 {
    let frames = NamedFrames::new(&DeviceCode::new("D").unwrap(), &ChannelName::new(channel).unwrap());
    let frame = frames.data(Epoch(1), number, Timestamp(0), b"{}");
    outbox.push(Push::Every(key), frame.with_id(), Instant::now())
}

fn shortened(block: &Bytes) -> String {
    let text = String::from_utf8(block.to_vec()).unwrap();
    match text.strip_prefix("id: 00000001-").and_then(|rest| rest.split_once('\n')) {
        Some((number, rest)) => {
            let channel = rest.split("\"channel\":\"").nth(1).unwrap().split('"').next().unwrap();
            format!("{channel} {number}")
        }
        None => text,
    }
}

fn take(outbox: &Outbox, max: usize) -> Poll<Option<Vec<String>>> {
    let mut out = Vec::new();
    let poll = outbox.poll_take(&mut Context::from_waker(Waker::noop()), max, &mut out);
    poll.map(|taken| {
        taken.map(|taken| {
            assert_eq!(taken, out.len());
            out.iter().map(shortened).collect()
        })
    })
}

fn texts(outbox: &Outbox) -> Vec<String> {
    match take(outbox, usize::MAX) {
        Poll::Ready(Some(texts)) => texts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_newer_latest_value_replaces_the_older_one_and_goes_to_the_back() {
    let outbox = Outbox::new(bounds());
    let [a, b, c] = keys();
    push(&outbox, Push::Latest(a), "a1");
    push_every(&outbox, c, "c", 1);
    push(&outbox, Push::Latest(b), "b1");
    push(&outbox, Push::Latest(a), "a2");
    assert_eq!(texts(&outbox), ["c 1", "b1", "a2"]);
    push(&outbox, Push::Latest(a), "a3");
    assert_eq!(texts(&outbox), ["a3"]);
    assert!(take(&outbox, 1).is_pending());
}

#[test]
fn a_client_that_takes_nothing_costs_no_more_with_time() {
    let outbox = Outbox::new(bounds());
    let [a, b, c] = keys();
    push_every(&outbox, c, "c", 1);
    for round in 0..10_000 {
        push(&outbox, Push::Latest(a), &format!("a{round}"));
        push(&outbox, Push::Latest(b), &format!("b{round}"));
        push(&outbox, Push::Freshness(a), &format!("fresh{round}"));
    }
    assert!(outbox.lock().queue.len() < 100, "{}", outbox.lock().queue.len());
    assert_eq!(texts(&outbox), ["c 1", "a9999", "b9999", "fresh9999"]);
}

#[test]
fn every_event_that_had_to_go_is_counted_and_told_first() {
    let outbox = Outbox::new(bounds());
    let [a, b] = keys();
    push(&outbox, Push::Latest(b), "b1");
    let mut lost = 0;
    for event in 1..=20 {
        lost += push_every(&outbox, a, "a", event);
    }
    let mut texts = texts(&outbox);
    let gap = texts.remove(0);
    assert_eq!(
        gap,
        "event: gap\ndata: {\"device\":\"D\",\"channel\":\"a\",\"reason\":\"SlowClient\",\"lost\":12}\n\n"
    );
    assert_eq!(lost, 12);
    assert_eq!(texts.remove(0), "b1");
    assert_eq!(texts, (13..=20).map(|event| format!("a {event}")).collect::<Vec<_>>());
}

#[test]
fn a_loss_is_told_for_the_channel_that_lost() {
    let outbox = Outbox::new(bounds());
    let [a, b] = keys();
    push_every(&outbox, a, "a", 1);
    for event in 1..=8 {
        push_every(&outbox, b, "b", event);
    }
    let texts = texts(&outbox);
    // An eighth of eight is one: of the nine, seven are kept.
    assert!(texts[0].contains("\"channel\":\"a\"") && texts[0].contains("\"lost\":1"), "{texts:?}");
    assert!(texts[1].contains("\"channel\":\"b\"") && texts[1].contains("\"lost\":1"), "{texts:?}");
    assert_eq!(texts.len(), 2 + 7);
}

#[test]
fn the_bound_counts_bytes_too() {
    let outbox = Outbox::new(bounds());
    let [a] = keys();
    let long = "x".repeat(600);
    push(&outbox, Push::Every(a), &long);
    push(&outbox, Push::Every(a), &long);
    assert_eq!(push(&outbox, Push::Every(a), &long), 1);
    assert_eq!(texts(&outbox).len(), 2);
}

#[test]
fn what_waits_is_taken_in_parts_and_the_end_comes_after_it() {
    let outbox = Outbox::new(bounds());
    for text in ["1", "2", "3"] {
        push(&outbox, Push::Control, text);
    }
    assert!(outbox.waiting_since().is_some());
    assert_eq!(take(&outbox, 2), Poll::Ready(Some(vec!["1".to_owned(), "2".to_owned()])));
    assert!(outbox.waiting_since().is_some());
    outbox.finish(Some("bye".into()));
    assert_eq!(push(&outbox, Push::Control, "late"), 0);
    assert_eq!(take(&outbox, 2), Poll::Ready(Some(vec!["3".to_owned(), "bye".to_owned()])));
    assert!(outbox.waiting_since().is_none());
    assert_eq!(take(&outbox, 2), Poll::Ready(None));
}

#[test]
fn a_push_wakes_the_connection() {
    let outbox = Outbox::new(bounds());
    let woken = std::sync::Arc::new(Flag::default());
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    assert!(outbox.poll_take(&mut Context::from_waker(&waker), 1, &mut Vec::new()).is_pending());
    push(&outbox, Push::Control, "1");
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
}

#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

proptest::proptest! {
    /// Whatever is pushed and taken: each channel's events come in order, `Every` events come or are counted
    /// as lost, the newest value of each `Latest` channel comes.
    #[test]
    fn nothing_vanishes(steps in proptest::collection::vec((0_u8..5, 0_u8..4), 1..300)) {
        let outbox = Outbox::new(bounds());
        let keys: [Key; 4] = keys();
        let names = ["a", "b", "c", "d"];
        let (mut pushed, mut got) = ([0_u64; 4], [0_u64; 4]);
        let (mut came, mut lost) = ([0_u64; 4], [0_u64; 4]);
        let take_all = |outbox: &Outbox, max: usize, got: &mut [u64; 4], came: &mut [u64; 4], lost: &mut [u64; 4]| {
            let Poll::Ready(Some(texts)) = take(outbox, max) else { return };
            for text in texts {
                if let Some((_, count)) = text.split_once("\"lost\":") {
                    let channel = names.iter().position(|name| text.contains(&format!("\"channel\":\"{name}\""))).unwrap();
                    lost[channel] += count.trim_end().trim_end_matches('}').parse::<u64>().unwrap();
                } else {
                    let (channel, number) = text.split_once(' ').unwrap();
                    let channel = names.iter().position(|name| *name == channel).unwrap();
                    let number: u64 = number.parse().unwrap();
                    assert!(number > got[channel], "out of order");
                    got[channel] = number;
                    came[channel] += 1;
                }
            }
        };
        for (channel, action) in steps {
            if channel == 4 {
                take_all(&outbox, usize::from(action) + 1, &mut got, &mut came, &mut lost);
                continue;
            }
            let channel = usize::from(channel);
            pushed[channel] += 1;
            // The first two channels are Every, the others Latest.
            if channel < 2 {
                push_every(&outbox, keys[channel], names[channel], pushed[channel]);
            } else {
                push(&outbox, Push::Latest(keys[channel]), &format!("{} {}", names[channel], pushed[channel]));
            }
        }
        take_all(&outbox, usize::MAX, &mut got, &mut came, &mut lost);
        for channel in 0..2 {
            proptest::prop_assert_eq!(came[channel] + lost[channel], pushed[channel]);
        }
        proptest::prop_assert_eq!(&got[2..], &pushed[2..], "the newest value of each Latest channel came");
    }
}
