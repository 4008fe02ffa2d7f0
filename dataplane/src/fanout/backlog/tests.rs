use flutecast_contract::name::{ChannelName, DeviceCode};
use flutecast_contract::stream_position::{Epoch, EventId, Sequence};
use flutecast_format::program::Timestamp;

use super::*;
use crate::pipeline::{DataParts, FrameWriter};

fn bounds() -> BacklogBounds {
    BacklogBounds { count: 8, bytes: 1_500 }
}

fn keys<const N: usize>() -> [ChannelKey; N] {
    let mut items = slotmap::SlotMap::default();
    std::array::from_fn(|_| items.insert(()))
}

fn push(backlog: &Backlog, kind: FrameKind, text: &str) -> u64 {
    backlog.push(kind, Bytes::copy_from_slice(text.as_bytes()), Instant::now())
}

/// Pushes the event `number` of an `Every` channel; [`take`] returns it as `channel number`.
fn push_every(backlog: &Backlog, channel: &str, number: u64) -> u64 {
    push_every_with(backlog, channel, number, "{}")
}

fn push_every_with(backlog: &Backlog, channel: &str, number: u64, values: &str) -> u64 {
    let writer = FrameWriter::new(&DeviceCode::new("D").unwrap(), &ChannelName::new(channel).unwrap());
    let id = EventId { epoch: Epoch(1), sequence: Sequence(number) };
    let frame = writer.write_data(
        id,
        DataParts { time: Timestamp(0), values: values.as_bytes(), bad: b"", at: b"", late: false },
    );
    backlog.push(FrameKind::Every(frame.names()), frame.with_id(), Instant::now())
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

fn take(backlog: &Backlog, max: usize) -> Poll<Option<Vec<String>>> {
    let mut out = Vec::new();
    let poll = backlog.poll_take(&mut Context::from_waker(Waker::noop()), max, &mut out);
    poll.map(|taken| {
        taken.map(|taken| {
            assert_eq!(taken, out.len());
            out.iter().map(shortened).collect()
        })
    })
}

fn texts(backlog: &Backlog) -> Vec<String> {
    match take(backlog, usize::MAX) {
        Poll::Ready(Some(texts)) => texts,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_newer_latest_value_replaces_the_older_one_and_goes_to_the_back() {
    let backlog = Backlog::new(bounds());
    let [a, b] = keys();
    push(&backlog, FrameKind::Latest(a), "a1");
    push_every(&backlog, "c", 1);
    push(&backlog, FrameKind::Latest(b), "b1");
    push(&backlog, FrameKind::Latest(a), "a2");
    assert_eq!(texts(&backlog), ["c 1", "b1", "a2"]);
    push(&backlog, FrameKind::Latest(a), "a3");
    assert_eq!(texts(&backlog), ["a3"]);
    assert!(take(&backlog, 1).is_pending());
}

#[test]
fn memory_of_a_client_that_takes_nothing_does_not_grow() {
    let backlog = Backlog::new(bounds());
    let [a, b] = keys();
    push_every(&backlog, "c", 1);
    for round in 0..10_000 {
        push(&backlog, FrameKind::Latest(a), &format!("a{round}"));
        push(&backlog, FrameKind::Latest(b), &format!("b{round}"));
        push(&backlog, FrameKind::Freshness(a), &format!("fresh{round}"));
    }
    assert!(backlog.lock().queue.len() < 100, "{}", backlog.lock().queue.len());
    assert_eq!(texts(&backlog), ["c 1", "a9999", "b9999", "fresh9999"]);
}

#[test]
fn dropped_every_events_are_counted_and_announced_first() {
    let backlog = Backlog::new(bounds());
    let [b] = keys();
    push(&backlog, FrameKind::Latest(b), "b1");
    let mut lost = 0;
    for event in 1..=20 {
        lost += push_every(&backlog, "a", event);
    }
    let mut texts = texts(&backlog);
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
fn each_channel_gets_its_own_gap() {
    let backlog = Backlog::new(bounds());
    push_every(&backlog, "a", 1);
    for event in 1..=8 {
        push_every(&backlog, "b", event);
    }
    let texts = texts(&backlog);
    // An eighth of eight is one: of the nine, seven are kept.
    assert!(texts[0].contains("\"channel\":\"a\"") && texts[0].contains("\"lost\":1"), "{texts:?}");
    assert!(texts[1].contains("\"channel\":\"b\"") && texts[1].contains("\"lost\":1"), "{texts:?}");
    assert_eq!(texts.len(), 2 + 7);
}

#[test]
fn the_bound_counts_bytes_too() {
    let backlog = Backlog::new(bounds());
    let long = "x".repeat(520);
    push_every_with(&backlog, "a", 1, &long);
    push_every_with(&backlog, "a", 2, &long);
    assert_eq!(push_every_with(&backlog, "a", 3, &long), 1);
    let texts = texts(&backlog);
    assert!(texts[0].contains("\"lost\":1"), "{texts:?}");
    assert_eq!(texts.len(), 1 + 2);
}

/// A client may have thousands of them.
#[test]
fn an_entry_takes_48_bytes() {
    assert_eq!(size_of::<Option<WaitingFrame>>(), 48);
}

#[test]
fn waiting_frames_are_taken_in_parts_before_the_end() {
    let backlog = Backlog::new(bounds());
    for text in ["1", "2", "3"] {
        push(&backlog, FrameKind::Control, text);
    }
    assert!(backlog.waiting_since().is_some());
    assert_eq!(take(&backlog, 2), Poll::Ready(Some(vec!["1".to_owned(), "2".to_owned()])));
    assert!(backlog.waiting_since().is_some());
    backlog.finish(Some("bye".into()));
    assert_eq!(push(&backlog, FrameKind::Control, "late"), 0);
    assert_eq!(take(&backlog, 2), Poll::Ready(Some(vec!["3".to_owned(), "bye".to_owned()])));
    assert!(backlog.waiting_since().is_none());
    assert_eq!(take(&backlog, 2), Poll::Ready(None));
}

#[test]
fn a_push_wakes_the_connection() {
    let backlog = Backlog::new(bounds());
    let woken = std::sync::Arc::new(Flag::default());
    let waker = Waker::from(std::sync::Arc::clone(&woken));
    assert!(backlog.poll_take(&mut Context::from_waker(&waker), 1, &mut Vec::new()).is_pending());
    push(&backlog, FrameKind::Control, "1");
    assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
}

#[derive(Default)]
struct Flag(std::sync::atomic::AtomicBool);

impl std::task::Wake for Flag {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// Counts the events of each channel.
#[derive(Default)]
struct Tally {
    newest: [u64; 4],
    came: [u64; 4],
    lost: [u64; 4],
}

impl Tally {
    fn take(&mut self, backlog: &Backlog, max: usize) {
        let index_of = |found: &str| CHANNELS.iter().position(|name| *name == found).unwrap();
        let Poll::Ready(Some(texts)) = take(backlog, max) else { return };
        for text in texts {
            if let Some(data) = text.strip_prefix("event: gap\ndata: ") {
                let gap: serde_json::Value = serde_json::from_str(data).unwrap();
                self.lost[index_of(gap["channel"].as_str().unwrap())] += gap["lost"].as_u64().unwrap();
            } else {
                let (channel, number) = text.split_once(' ').unwrap();
                let (channel, number) = (index_of(channel), number.parse().unwrap());
                assert!(number > self.newest[channel], "out of order");
                self.newest[channel] = number;
                self.came[channel] += 1;
            }
        }
    }
}

proptest::proptest! {
    /// In any order of pushes and takes, the events of each channel come in order, each `Every` event comes
    /// or is counted as lost, and the newest value of each `Latest` channel comes.
    #[test]
    fn every_event_is_delivered_or_counted_as_lost(
        steps in proptest::collection::vec((0_u8..5, 0_u8..4), 1..300)
    ) {
        let backlog = Backlog::new(bounds());
        let keys: [ChannelKey; 4] = keys();
        let (mut pushed, mut tally) = ([0_u64; 4], Tally::default());
        for (channel, action) in steps {
            if channel == 4 {
                tally.take(&backlog, usize::from(action) + 1);
                continue;
            }
            let channel = usize::from(channel);
            pushed[channel] += 1;
            let (key, name, number) = (keys[channel], CHANNELS[channel], pushed[channel]);
            // The first two channels are Every, the others Latest.
            if channel < 2 {
                push_every(&backlog, name, number);
            } else {
                push(&backlog, FrameKind::Latest(key), &format!("{name} {number}"));
            }
        }
        tally.take(&backlog, usize::MAX);
        let Tally { newest, came, lost } = tally;
        proptest::prop_assert_eq!([came[0] + lost[0], came[1] + lost[1]], &pushed[..2]);
        proptest::prop_assert_eq!(&newest[2..], &pushed[2..], "the newest value of each Latest channel");
    }
}
