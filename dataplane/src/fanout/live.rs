//! The live messages of a tenant, and how far they are known to be in stream order.

use std::task::{Context, Poll};
use std::vec::Drain;

use async_nats::{Message, Subscriber};
use flutecast_nats::LiveMessage;

use super::keys::ChannelKey;
use crate::ingest::broker::SUBSCRIPTION_CAPACITY;
use crate::ingest::ordered_merge::{BatchEnd, OrderedMerge};

/// The most messages in a batch.
const BATCH: usize = 4_096;

#[derive(Default)]
pub(super) struct LiveMessages {
    pub(super) subscriptions: OrderedMerge<Subscriber, ChannelKey>,
    batch: Vec<(ChannelKey, Message)>,
    /// The channels whose queue may have been full, so that messages were dropped.
    pub(super) overrun: Vec<ChannelKey>,
    /// Messages whose predecessors may still be missing.
    unproven: Vec<(ChannelKey, LiveMessage)>,
}

impl LiveMessages {
    /// Takes a batch of messages from the subscriptions. Must run without a cooperative budget.
    pub(super) fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<BatchEnd> {
        let Self { subscriptions, batch, overrun, .. } = self;
        subscriptions.poll_batch(cx, BATCH, SUBSCRIPTION_CAPACITY, batch, overrun)
    }

    /// Takes the messages of the batch that `end` has ended, and of those before it, as far as everything
    /// older is here too. They come in stream order. `not_republished` is called for each message that no
    /// stream has republished.
    pub(super) fn take_proven_batch(
        &mut self,
        end: BatchEnd,
        not_republished: impl Fn(),
    ) -> Drain<'_, (ChannelKey, LiveMessage)> {
        let proven_count = match end {
            BatchEnd::Complete => usize::MAX,
            BatchEnd::Partial { proven_count } => proven_count,
        };
        let mut proven = self.unproven.iter().map(|(_, message)| message.sequence).max().unwrap_or_default();
        for (index, (key, message)) in self.batch.drain(..).enumerate() {
            match LiveMessage::read(message) {
                Some(message) => {
                    if index < proven_count {
                        proven = proven.max(message.sequence);
                    }
                    self.unproven.push((key, message));
                }
                None => not_republished(),
            }
        }
        self.unproven.sort_by_key(|(_, message)| message.sequence);
        let count = self.unproven.partition_point(|(_, message)| message.sequence <= proven);
        self.unproven.drain(..count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::HeaderMap;

    fn message(sequence: u64) -> (ChannelKey, Message) {
        let mut headers = HeaderMap::new();
        headers.append("Nats-Sequence", sequence.to_string());
        headers.append("Nats-Last-Sequence", "0");
        headers.append("Nats-Time-Stamp", "2026-11-22T10:00:00Z");
        let message = Message {
            subject: "live.acme.a.power".into(),
            reply: None,
            payload: "{}".into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        (ChannelKey::default(), message)
    }

    fn take(live: &mut LiveMessages, batch: &[u64], end: BatchEnd) -> Vec<u64> {
        live.batch.extend(batch.iter().copied().map(message));
        live.take_proven_batch(end, || ()).map(|(_, message)| message.sequence.0).collect()
    }

    #[test]
    fn messages_come_in_stream_order_as_far_as_a_batch_proves_them() {
        let mut live = LiveMessages::default();
        assert_eq!(take(&mut live, &[3, 1, 2], BatchEnd::Complete), [1, 2, 3]);
        assert_eq!(take(&mut live, &[5, 4, 7, 6], BatchEnd::Partial { proven_count: 2 }), [4, 5]);
        // The next batch proves what was left.
        assert_eq!(take(&mut live, &[9], BatchEnd::Partial { proven_count: 0 }), [6, 7]);
        assert_eq!(take(&mut live, &[], BatchEnd::Complete), [9]);
    }

    #[test]
    fn a_message_that_no_stream_republished_is_left_out() {
        let mut live = LiveMessages::default();
        let (key, mut bare) = message(1);
        bare.headers = None;
        live.batch.extend([(key, bare), message(2)]);
        let count = std::cell::Cell::new(0);
        let taken = live.take_proven_batch(BatchEnd::Complete, || count.set(count.get() + 1)).count();
        assert_eq!((taken, count.get()), (1, 1));
    }
}
