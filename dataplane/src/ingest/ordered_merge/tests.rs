use std::future::poll_fn;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;

/// A queue like those of the NATS client.
struct Queue(mpsc::Receiver<u64>);

impl Stream for Queue {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.0.poll_recv(cx)
    }
}

async fn batch(set: &mut OrderedMerge<Queue, u32>, bound: usize) -> (BatchEnd, Vec<u64>) {
    let mut out = Vec::new();
    let end = tokio::task::unconstrained(poll_fn(|cx| {
        set.poll_batch(cx, bound, usize::MAX, &mut out, &mut Vec::new())
    }))
    .await;
    (end, out.into_iter().map(|(_, item)| item).collect())
}

const QUEUES: u64 = 97;

/// Publishes 1, 2, 3… to random queues, as the connection task of the NATS client does, with a rare `pause`.
fn publisher(
    set: &mut OrderedMerge<Queue, u32>,
    messages: u64,
    pause: u32,
) -> std::thread::JoinHandle<impl Sized + use<>> {
    let senders: Vec<_> = (0..QUEUES)
        .map(|key| {
            let (sender, receiver) = mpsc::channel(65_536);
            set.insert(u32::try_from(key).unwrap(), Queue(receiver));
            sender
        })
        .collect();
    std::thread::spawn(move || {
        let mut random = 7_u64;
        for sequence in 1..=messages {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let sender = &senders[usize::try_from(random % QUEUES).unwrap()];
            while sender.try_send(sequence).is_err() {
                std::thread::yield_now();
            }
            if random.is_multiple_of(40) {
                (0..pause).for_each(|_| std::hint::spin_loop());
            }
        }
        senders
    })
}

/// Checks that every batch, sorted, continues the last one without a gap.
async fn check_order(messages: u64, pause: u32, bound: usize) -> (u64, u64) {
    let mut set = OrderedMerge::default();
    let publisher = publisher(&mut set, messages, pause);
    let (mut next, mut complete, mut partial) = (1, 0, 0);
    let mut carried: Vec<u64> = Vec::new();
    while next <= messages {
        let (end, items) =
            tokio::time::timeout(Duration::from_secs(30), batch(&mut set, bound)).await.unwrap();
        let proven = match end {
            BatchEnd::Complete => {
                complete += 1;
                u64::MAX
            }
            BatchEnd::Partial { proven_count } => {
                partial += 1;
                assert!(proven_count > bound);
                items[..proven_count].iter().copied().max().unwrap()
            }
        };
        carried.extend(items);
        carried.sort_unstable();
        let count = carried.partition_point(|&item| item <= proven);
        for item in carried.drain(..count) {
            assert_eq!(item, next, "a message is missing below it");
            next += 1;
        }
    }
    publisher.join().unwrap();
    (complete, partial)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn complete_batches_contain_everything_up_to_their_newest_message() {
    let (complete, _) = check_order(200_000, 3_000, usize::MAX).await;
    assert!(complete > 1, "the test needs batches that end while the publisher goes on");
}

/// The number of cut batches depends on scheduling; the next test cuts one for certain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partial_batches_contain_everything_up_to_their_newest_proven_message() {
    check_order(200_000, 0, 50).await;
}

/// A queue that has a new message as soon as one is taken.
struct Endless(u64, bool);

impl Stream for Endless {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.1 = !self.1;
        if self.1 {
            self.0 += 1;
            return Poll::Ready(Some(self.0));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[tokio::test]
async fn batch_ends_even_if_a_queue_never_gets_empty() {
    let mut set = OrderedMerge::default();
    let key = set.insert(1, Endless(0, false));
    let mut out: Vec<(u32, u64)> = Vec::new();
    let end = poll_fn(|cx| set.poll_batch(cx, 10, usize::MAX, &mut out, &mut Vec::new())).await;
    assert_eq!((end, out.len()), (BatchEnd::Partial { proven_count: 11 }, 12));
    set.remove(key);
    let end = poll_fn(|cx| set.poll_batch(cx, 10, usize::MAX, &mut out, &mut Vec::new())).await;
    assert_eq!(
        (end, out.len()),
        (BatchEnd::Complete, 12),
        "what was left unproven is proven without anything new"
    );
}

#[tokio::test]
async fn burst_as_long_as_the_queue_is_reported() {
    let mut set = OrderedMerge::default();
    let (sender, receiver) = mpsc::channel(4);
    let (calm, calm_receiver) = mpsc::channel(4);
    set.insert(1, Queue(receiver));
    set.insert(2, Queue(calm_receiver));
    for sequence in 1..=4 {
        sender.try_send(sequence).unwrap();
    }
    calm.try_send(5).unwrap();
    let (mut out, mut overrun) = (Vec::new(), Vec::new());
    let end = poll_fn(|cx| set.poll_batch(cx, 100, 4, &mut out, &mut overrun)).await;
    assert_eq!((end, overrun), (BatchEnd::Complete, vec![1]));
}

#[tokio::test]
async fn queue_filled_as_fast_as_it_is_emptied_does_not_block() {
    let mut set = OrderedMerge::default();
    set.insert(1, futures_util::stream::repeat(7));
    let (mut out, mut overrun) = (Vec::new(), Vec::new());
    let end = poll_fn(|cx| set.poll_batch(cx, 10, 4, &mut out, &mut overrun)).await;
    // Passes of four until there are more than ten, and one more that proves them.
    assert_eq!((end, out.len()), (BatchEnd::Partial { proven_count: 12 }, 16));
}

#[tokio::test]
async fn removed_stream_yields_nothing_and_its_slot_is_reused() {
    let mut set = OrderedMerge::default();
    let (sender, receiver) = mpsc::channel(4);
    let key = set.insert(1, Queue(receiver));
    sender.try_send(1).unwrap();
    assert!(set.remove(key).is_some());
    assert!(set.remove(key).is_none());
    assert!(sender.is_closed());
    let (sender, receiver) = mpsc::channel(4);
    let second = set.insert(2, Queue(receiver));
    assert_eq!(set.slots.len(), 1);
    assert!(second != key && set.remove(key).is_none());
    sender.try_send(9).unwrap();
    assert_eq!(batch(&mut set, 10).await.1, vec![9]);
}
