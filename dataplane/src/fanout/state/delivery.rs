//! Tracks the deliveries to one client, and decides if the next frame may carry its id.

use flutecast_contract::stream_position::{EventId, Sequence};

/// The frames that one client has got and is owed.
///
/// An id promises that everything before it was delivered. So a client gets ids only while it is *settled*:
/// none of its channels is being read from the stream, and none is being replayed for it.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Number of channels that are being read or replayed for the client.
    owed: usize,
    last_id: Option<Sequence>,
    /// Up to here the client has everything of `Every` channels from an earlier connection.
    received: Sequence,
}

impl Delivery {
    /// Starts with one thing owed: until all channels were looked at, nothing of the snapshot gets an id.
    pub(super) fn new(resumed: Option<EventId>) -> Self {
        let last_id = resumed.map(|id| id.sequence);
        Self { owed: 1, last_id, received: last_id.unwrap_or_default() }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.owed == 0
    }

    pub(super) fn is_unplaced(&self) -> bool {
        self.last_id.is_none()
    }

    /// Returns whether the client got this event of an `Every` channel before it came, from a quicker pod.
    pub(super) fn has(&self, sequence: Sequence) -> bool {
        sequence <= self.received
    }

    pub(super) fn owe(&mut self) {
        self.owed += 1;
    }

    /// Records that `done` of the owed things are done.
    pub(super) fn owe_less(&mut self, done: usize) {
        debug_assert!(self.owed >= done, "{} owed, {done} done", self.owed);
        self.owed = self.owed.saturating_sub(done);
    }

    /// Returns whether the next frame carries the id `sequence`, and remembers that it does.
    pub(super) fn claim(&mut self, sequence: Sequence) -> bool {
        let claimed = self.is_settled() && self.last_id.is_none_or(|last| sequence > last);
        if claimed {
            self.last_id = Some(sequence);
        }
        claimed
    }

    /// Returns the id for a `ping`: the newest place up to which a settled client has everything.
    pub(super) fn ping_id(&mut self, processed: Sequence) -> Option<Sequence> {
        if !self.is_settled() {
            return None;
        }
        let sequence = self.last_id?.max(processed);
        self.last_id = Some(sequence);
        Some(sequence)
    }

    /// Forgets the ids, as the stream counts from an earlier place again.
    pub(super) fn restart(&mut self) {
        self.last_id = None;
        self.received = Sequence::START;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flutecast_contract::stream_position::Epoch;

    fn resumed_at(sequence: u64) -> Delivery {
        Delivery::new(Some(EventId { epoch: Epoch(7), sequence: Sequence(sequence) }))
    }

    #[test]
    fn ids_rise_and_come_only_while_nothing_is_owed() {
        let mut delivery = Delivery::new(None);
        assert!(!delivery.claim(Sequence(1)), "the snapshot is owed");
        delivery.owe_less(1);
        assert!(delivery.claim(Sequence(2)));
        assert!(!delivery.claim(Sequence(2)), "it has this id");
        delivery.owe();
        assert!(!delivery.claim(Sequence(3)));
        delivery.owe_less(1);
        assert!(delivery.claim(Sequence(3)));
    }

    #[test]
    fn a_ping_moves_the_id_of_a_settled_client_on() {
        let mut delivery = Delivery::new(None);
        delivery.owe_less(1);
        assert_eq!(delivery.ping_id(Sequence(4)), None, "it has no place yet");
        assert!(delivery.claim(Sequence(2)));
        assert_eq!(delivery.ping_id(Sequence(4)), Some(Sequence(4)));
        assert!(!delivery.claim(Sequence(4)));
        delivery.owe();
        assert_eq!(delivery.ping_id(Sequence(9)), None);
    }

    #[test]
    fn a_resumed_client_has_what_it_got_before_until_the_stream_restarts() {
        let mut delivery = resumed_at(5);
        assert!(delivery.has(Sequence(5)) && !delivery.has(Sequence(6)));
        delivery.owe_less(1);
        assert!(!delivery.claim(Sequence(5)));
        delivery.restart();
        assert!(delivery.is_unplaced() && !delivery.has(Sequence(1)));
        assert!(delivery.claim(Sequence(1)));
    }
}
