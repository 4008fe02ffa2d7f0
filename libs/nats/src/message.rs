//! Messages of a stream, as they are republished and as they are read back.

use async_nats::HeaderMap;
use async_nats::header::{self, HeaderName, IntoHeaderName};
use bytes::Bytes;
use flutecast_contract::header::{CAPTURED, ORIGIN_EPOCH, ORIGIN_SEQUENCE, ORIGIN_TIME};
use flutecast_contract::stream_position::{Epoch, Sequence};
use flutecast_contract::subject;
use jiff::Timestamp;

/// A message as the stream republished it when it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMessage {
    /// Its sequence in the stream.
    pub sequence: Sequence,
    /// The sequence of the message stored before it on exactly this subject, or [`Sequence::START`] if there
    /// was none.
    pub previous: Sequence,
    /// The time at which the broker stored it.
    pub stored_at: Timestamp,
    /// The time at which the stream of a payload source captured what it was split from.
    pub captured_at: Option<Timestamp>,
    /// The bytes that the publisher sent.
    pub payload: Bytes,
}

/// A message as it is read back from the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The subject on which it is stored.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: Sequence,
    /// The time at which the broker stored it.
    pub stored_at: Timestamp,
    /// The time at which the stream of a payload source captured what it was split from.
    pub captured_at: Option<Timestamp>,
    /// The message of which it is a copy, if it is a kept last value.
    pub origin: Option<Origin>,
    /// The bytes that the publisher sent.
    pub payload: Bytes,
}

/// The message of a tenant's stream of which a kept last value is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The incarnation of the tenant's stream.
    pub epoch: Epoch,
    /// The message's sequence there.
    pub sequence: Sequence,
    /// The time at which the tenant's stream stored the message.
    pub stored_at: Timestamp,
}

impl LiveMessage {
    /// Reads a republished message. Returns `None` if the server's headers are missing: then it was published
    /// directly and belongs to no stream.
    #[must_use]
    pub fn read(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        Some(Self {
            sequence: Sequence(number(headers, header::NATS_SEQUENCE)?),
            previous: Sequence(number(headers, header::NATS_LAST_SEQUENCE)?),
            stored_at: time(headers, header::NATS_TIME_STAMP)?,
            captured_at: time(headers, HeaderName::from_static(CAPTURED)),
            payload: message.payload,
        })
    }
}

impl StoredMessage {
    /// Reads one message of an answer to a direct get. Returns `None` if the server's headers are missing.
    #[must_use]
    pub fn read(message: async_nats::Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        let subject = text(headers, header::NATS_SUBJECT)?;
        Some(Self {
            subject: subject.to_owned(),
            sequence: Sequence(number(headers, header::NATS_SEQUENCE)?),
            stored_at: time(headers, header::NATS_TIME_STAMP)?,
            captured_at: time(headers, HeaderName::from_static(CAPTURED)),
            // A device may send any header: on its own subjects it says nothing of an origin.
            origin: if subject::is_kept(subject) { Origin::read(headers) } else { None },
            payload: message.payload,
        })
    }
}

impl Origin {
    fn read(headers: &HeaderMap) -> Option<Self> {
        Some(Self {
            epoch: text(headers, HeaderName::from_static(ORIGIN_EPOCH))?.parse().ok()?,
            sequence: Sequence(number(headers, HeaderName::from_static(ORIGIN_SEQUENCE))?),
            stored_at: time(headers, HeaderName::from_static(ORIGIN_TIME))?,
        })
    }
}

fn time(headers: &HeaderMap, name: impl IntoHeaderName) -> Option<Timestamp> {
    text(headers, name)?.parse().ok()
}

/// Returns the number in a header of the server.
pub(crate) fn number(headers: &HeaderMap, name: impl IntoHeaderName) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// Returns the text in a header of the server. The server appends its headers to the publisher's, so the last
/// one of a name is the server's: a device that sends a `Nats-Sequence` of its own changes nothing.
fn text(headers: &HeaderMap, name: impl IntoHeaderName) -> Option<&str> {
    headers.get_last(name).map(async_nats::HeaderValue::as_str)
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
    fn headers_of_the_server_win_over_those_of_the_publisher() {
        let headers = [
            ("Nats-Sequence", "999"),
            ("Nats-Time-Stamp", "2030-01-01T00:00:00Z"),
            ("Nats-Sequence", "7"),
            ("Nats-Last-Sequence", "5"),
            ("Nats-Subject", "iot.acme.a.power"),
            TIME,
        ];
        let stored_at = TIME.1.parse().unwrap();
        assert_eq!(
            LiveMessage::read(message(&headers)),
            Some(LiveMessage {
                sequence: Sequence(7),
                previous: Sequence(5),
                stored_at,
                captured_at: None,
                payload: "{}".into()
            })
        );
        let subject = "iot.acme.a.power".to_owned();
        assert_eq!(
            StoredMessage::read(message(&headers)),
            Some(StoredMessage {
                subject,
                sequence: Sequence(7),
                stored_at,
                captured_at: None,
                origin: None,
                payload: "{}".into()
            })
        );
    }

    #[test]
    fn a_time_of_capture_and_an_origin_are_read_if_they_are_whole() {
        let stored = [("Nats-Sequence", "7"), ("Nats-Subject", "last.acme.a.power"), TIME];
        let read = |more: &[(&str, &str)]| {
            let message = StoredMessage::read(message(&[&stored[..], more].concat())).unwrap();
            (message.captured_at, message.origin)
        };
        let at = "2026-11-22T09:00:00Z";
        let origin = [(ORIGIN_EPOCH, "5f3a9c01"), (ORIGIN_SEQUENCE, "42"), (ORIGIN_TIME, at)];
        let expected =
            Origin { epoch: Epoch(0x5f3a_9c01), sequence: Sequence(42), stored_at: at.parse().unwrap() };
        assert_eq!(read(&origin), (None, Some(expected)));
        assert_eq!(read(&origin[1..]), (None, None));
        let of_device = ("Nats-Subject", "iot.acme.a.power");
        assert_eq!(read(&[&origin[..], &[of_device]].concat()), (None, None), "a device has forged them");
        assert_eq!(read(&[(CAPTURED, at)]), (Some(at.parse().unwrap()), None));
        assert_eq!(read(&[(CAPTURED, "yesterday")]), (None, None), "what can't be read doesn't count");
    }

    #[test]
    fn a_message_without_the_servers_headers_is_not_read() {
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
