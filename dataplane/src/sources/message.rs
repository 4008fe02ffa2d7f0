//! A message of a tenant's stream, as it is republished and as it is read back.

use async_nats::header::{self, HeaderMap, HeaderName};
use bytes::Bytes;
use flutecast_format::program::Timestamp;

/// A message as it was republished when it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The sequence of the message before it that was stored on exactly this subject; 0: there was none any
    /// more.
    pub previous: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// What the device sent.
    pub payload: Bytes,
}

/// A message as it is read back from the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredMessage {
    /// The subject on which it is stored.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// What the device sent.
    pub payload: Bytes,
}

impl LiveMessage {
    /// Reads a republished message; `None` if it lacks what the server writes, so that it isn't one.
    #[must_use]
    pub(crate) fn read(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        Some(Self {
            sequence: number(headers, &header::NATS_SEQUENCE)?,
            previous: number(headers, &header::NATS_LAST_SEQUENCE)?,
            stored_at: time(headers)?,
            payload: message.payload,
        })
    }
}

impl StoredMessage {
    /// Reads one message of an answer to a direct get.
    #[must_use]
    pub(crate) fn read(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        Some(Self {
            subject: headers.get_last(header::NATS_SUBJECT)?.as_str().to_owned(),
            sequence: number(headers, &header::NATS_SEQUENCE)?,
            stored_at: time(headers)?,
            payload: message.payload,
        })
    }
}

/// The number in a header. The server appends its headers to the publisher's, so the last one of a name is
/// the server's, and a device that sends a `Nats-Sequence` of its own deceives nobody.
pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get_last(name.clone())?.as_str().parse().ok()
}

fn time(headers: &HeaderMap) -> Option<Timestamp> {
    let time: jiff::Timestamp = headers.get_last(header::NATS_TIME_STAMP)?.as_str().parse().ok()?;
    Some(Timestamp(time.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)]) -> async_nats::Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        async_nats::Message {
            subject: "live.acme.a.power".into(),
            reply: None,
            payload: "{}".into(),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    const TIME: (&str, &str) = ("Nats-Time-Stamp", "2026-11-22T10:00:00.123456789Z");

    #[test]
    fn the_servers_headers_count_and_not_the_publishers() {
        let read = LiveMessage::read(message(&[
            ("Nats-Sequence", "999"),
            ("Nats-Sequence", "7"),
            ("Nats-Last-Sequence", "5"),
            TIME,
        ]));
        let time = Timestamp(1_795_341_600_123_456);
        assert_eq!(
            read,
            Some(LiveMessage { sequence: 7, previous: 5, stored_at: time, payload: "{}".into() })
        );
    }

    #[test]
    fn what_is_no_republished_message_is_not_read() {
        for headers in [
            &[TIME][..],
            &[("Nats-Sequence", "7"), TIME],
            &[("Nats-Sequence", "x"), ("Nats-Last-Sequence", "1"), TIME],
        ] {
            assert_eq!(LiveMessage::read(message(headers)), None);
        }
        let mut bare = message(&[]);
        bare.headers = None;
        assert_eq!(LiveMessage::read(bare), None);
    }
}
