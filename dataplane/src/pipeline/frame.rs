//! SSE blocks, built once and shared by every client.

use std::sync::Arc;

use bytes::Bytes;
use flutecast_contract::name::{ChannelName, DeviceCode};
use flutecast_contract::stream_position::{EventId, Sequence};
use flutecast_format::program::Timestamp;

use super::clock::{json_time, write_rfc3339};

/// One data event as an SSE block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    /// Start of the block for a client that must not get the id: after the `id:` line.
    without_id: u32,
    /// End of the names of device and channel, which start after [`DATA`].
    names_end: u32,
    /// Start and end of the values.
    values: (u32, u32),
    /// End of the notes about the values, which follow them: `,"bad":{…}` and `,"at":{…}`, if they are there.
    notes_end: u32,
    pub sequence: Sequence,
    pub time: Timestamp,
}

/// The content of a data event besides its place and its names.
#[derive(Debug, Clone, Copy)]
pub struct DataParts<'a> {
    pub time: Timestamp,
    /// A JSON object.
    pub values: &'a [u8],
    /// The fields that can't be read, with their raw texts: a JSON object; empty if there are none.
    pub bad: &'a [u8],
    /// The fields that are older than the event, with their times: a JSON object; empty if there are none.
    pub at: &'a [u8],
    /// Whether the event came late.
    pub late: bool,
}

/// Position of the names of device and channel in a data event, from the event's end, so that it holds for
/// the block with its id and without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NamesPlace {
    start: u32,
    end: u32,
}

/// The start of a data event, before the names.
const DATA: &[u8] = b"data: {";
/// The bytes after the values: `}` closes the object, and an empty line the block.
const TAIL: &[u8] = b"}\n\n";

impl NamesPlace {
    pub fn of(self, event: &[u8]) -> &[u8] {
        let at = |from_end: u32| event.len().saturating_sub(from_end as usize);
        event.get(at(self.start)..at(self.end)).unwrap_or_default()
    }
}

impl Frame {
    pub fn with_id(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Returns the block without its `id:` line, for a client to which something older is still owed.
    pub fn without_id(&self) -> Bytes {
        self.bytes.slice(self.without_id as usize..)
    }

    /// Returns where the names of device and channel stand.
    pub fn names(&self) -> NamesPlace {
        let from_end = |at: usize| u32::try_from(self.bytes.len().saturating_sub(at)).unwrap_or(0);
        NamesPlace {
            start: from_end(self.without_id as usize + DATA.len()),
            end: from_end(self.names_end as usize),
        }
    }

    /// Returns the formatted values, a JSON object. Shares the bytes.
    pub fn values(&self) -> Bytes {
        self.bytes.slice(self.values.0 as usize..self.values.1 as usize)
    }

    /// Returns what follows the values about them, as it stands in an object: `,"bad":{…},"at":{…}` or a part
    /// of it. Shares the bytes.
    pub fn notes(&self) -> Bytes {
        self.bytes.slice(self.values.1 as usize..self.notes_end as usize)
    }

    /// Returns whether a client would see no difference.
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// Why events of an `Every` channel are lost, or can't be proven complete. Used as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapReason {
    /// The stream no longer holds what was missed.
    Retention,
    /// The stream was created again.
    Epoch,
    /// The client's backlog was full.
    SlowClient,
    /// The messages stored meanwhile could not be read.
    BrokerAway,
}

impl GapReason {
    pub const ALL: [Self; 4] = [Self::Retention, Self::Epoch, Self::SlowClient, Self::BrokerAway];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "Retention",
            Self::Epoch => "Epoch",
            Self::SlowClient => "SlowClient",
            Self::BrokerAway => "BrokerAway",
        }
    }
}

/// Writes the frames of one channel of one device. The part that they share is rendered once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FrameWriter {
    /// `"device":"CORR-01","channel":"telemetry"`. Neither name can hold a character that JSON would escape.
    names: Arc<str>,
}

impl FrameWriter {
    pub fn new(device: &DeviceCode, channel: &ChannelName) -> Self {
        Self { names: format!("\"device\":\"{device}\",\"channel\":\"{channel}\"").into() }
    }

    pub fn write_data(&self, id: EventId, parts: DataParts<'_>) -> Frame {
        let DataParts { time, values, bad, at, late } = parts;
        // An id has at most 29 bytes, a sequence 20, a time 24, and the text between the parts 75.
        let mut out = Vec::with_capacity(self.names.len() + values.len() + bad.len() + at.len() + 150);
        write_id(&mut out, id);
        let without_id = out.len();
        out.extend_from_slice(DATA);
        out.extend_from_slice(self.names.as_bytes());
        let names_end = out.len();
        out.extend_from_slice(b",\"seq\":");
        out.extend_from_slice(id.sequence.to_string().as_bytes());
        out.extend_from_slice(b",\"time\":\"");
        write_rfc3339(time, &mut out);
        out.extend_from_slice(b"\",\"values\":");
        let values_at = out.len();
        out.extend_from_slice(values);
        let values_end = out.len();
        for (name, object) in [(&b",\"bad\":"[..], bad), (b",\"at\":", at)] {
            if !object.is_empty() {
                out.extend_from_slice(name);
                out.extend_from_slice(object);
            }
        }
        let notes_end = out.len();
        if late {
            out.extend_from_slice(b",\"late\":true");
        }
        out.extend_from_slice(TAIL);
        let offset = |at: usize| u32::try_from(at).unwrap_or(0);
        Frame {
            without_id: offset(without_id),
            names_end: offset(names_end),
            values: (offset(values_at), offset(values_end)),
            notes_end: offset(notes_end),
            bytes: out.into(),
            sequence: id.sequence,
            time,
        }
    }

    /// Writes `stale`: silent since the message of `since`, for longer than `stale_after_ms`.
    pub fn stale(&self, since: Option<Timestamp>, stale_after_ms: u64) -> Bytes {
        let more = format!(",\"since\":{},\"staleAfterMs\":{stale_after_ms}", json_time(since));
        channel_event("stale", self.names.as_bytes(), &more)
    }

    pub fn fresh(&self) -> Bytes {
        channel_event("fresh", self.names.as_bytes(), "")
    }

    /// Writes `problem`: what is wrong with the newest messages, as JSON; `None` if that has ended.
    pub fn problem(&self, problem: Option<&str>) -> Bytes {
        let more = format!(",\"problem\":{}", problem.unwrap_or("null"));
        channel_event("problem", self.names.as_bytes(), &more)
    }

    /// Writes `gap`: events are lost, `lost` of them if that is known.
    pub fn gap(&self, reason: GapReason, lost: Option<u64>) -> Bytes {
        gap(self.names.as_bytes(), reason, lost)
    }
}

/// Writes the `gap` of the channel with these names, as [`FrameWriter::gap`] does.
pub fn gap(names: &[u8], reason: GapReason, lost: Option<u64>) -> Bytes {
    let lost = lost.map_or("null".to_owned(), |lost| lost.to_string());
    channel_event("gap", names, &format!(",\"reason\":\"{}\",\"lost\":{lost}", reason.as_str()))
}

fn channel_event(event: &str, names: &[u8], more: &str) -> Bytes {
    [b"event: ", event.as_bytes(), b"\ndata: {", names, more.as_bytes(), TAIL].concat().into()
}

/// Writes a block with nothing but an id: a client remembers it and dispatches nothing.
#[must_use]
pub fn id_only(id: EventId) -> Bytes {
    let mut out = Vec::with_capacity(32);
    write_id(&mut out, id);
    out.push(b'\n');
    out.into()
}

/// Writes a named event. `data` is one line of JSON.
#[must_use]
pub fn block(id: Option<EventId>, event: &str, data: &str) -> Bytes {
    let mut out = Vec::with_capacity(event.len() + data.len() + 56);
    if let Some(id) = id {
        write_id(&mut out, id);
    }
    for part in ["event: ", event, "\ndata: ", data, "\n\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out.into()
}

fn write_id(out: &mut Vec<u8>, id: EventId) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.to_string().as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use flutecast_contract::stream_position::Epoch;

    fn writer() -> FrameWriter {
        FrameWriter::new(&DeviceCode::new("CORR-01").unwrap(), &ChannelName::new("power").unwrap())
    }

    #[test]
    fn a_data_event_is_as_documented_with_and_without_its_id() {
        let id = EventId { epoch: Epoch(0x5f3a_9c01), sequence: Sequence(1042) };
        let parts = DataParts {
            time: Timestamp(1_795_341_600_123_000),
            values: b"{\"on\":true}",
            bad: b"",
            at: b"",
            late: false,
        };
        let frame = writer().write_data(id, parts);
        let data = "data: {\"device\":\"CORR-01\",\"channel\":\"power\",\"seq\":1042,\
                    \"time\":\"2026-11-22T10:00:00.123Z\",\"values\":{\"on\":true}}\n\n";
        let noted = DataParts { bad: b"{\"st\":\"7\"}", at: b"{\"hum\":\"T\"}", late: true, ..parts };
        let noted = writer().write_data(id, noted);
        assert_eq!(noted.values(), "{\"on\":true}");
        assert_eq!(noted.notes(), ",\"bad\":{\"st\":\"7\"},\"at\":{\"hum\":\"T\"}");
        assert!(noted.without_id().ends_with(b"\"at\":{\"hum\":\"T\"},\"late\":true}\n\n"));
        assert!(frame.notes().is_empty() && !frame.is_same(&noted) && frame.is_same(&frame.clone()));
        assert_eq!(frame.without_id(), data);
        assert_eq!(frame.with_id(), format!("id: 5f3a9c01-1042\n{data}"));
        assert_eq!(frame.values(), "{\"on\":true}");
        for event in [frame.with_id(), frame.without_id()] {
            assert_eq!(frame.names().of(&event), b"\"device\":\"CORR-01\",\"channel\":\"power\"");
        }
    }

    #[test]
    fn named_events_are_as_documented() {
        let names = "\"device\":\"CORR-01\",\"channel\":\"power\"";
        assert_eq!(
            writer().stale(Some(Timestamp(0)), 10_000),
            format!(
                "event: stale\ndata: {{{names},\"since\":\"1970-01-01T00:00:00.000Z\",\
                 \"staleAfterMs\":10000}}\n\n"
            )
        );
        assert_eq!(
            writer().problem(Some("{\"reason\":\"TooOld\"}")),
            format!("event: problem\ndata: {{{names},\"problem\":{{\"reason\":\"TooOld\"}}}}\n\n")
        );
        assert_eq!(writer().problem(None), format!("event: problem\ndata: {{{names},\"problem\":null}}\n\n"));
        assert_eq!(writer().fresh(), format!("event: fresh\ndata: {{{names}}}\n\n"));
        assert_eq!(
            writer().gap(GapReason::Retention, None),
            format!("event: gap\ndata: {{{names},\"reason\":\"Retention\",\"lost\":null}}\n\n")
        );
        assert_eq!(
            writer().gap(GapReason::SlowClient, Some(3)),
            format!("event: gap\ndata: {{{names},\"reason\":\"SlowClient\",\"lost\":3}}\n\n")
        );
        let id = EventId { epoch: Epoch(1), sequence: Sequence(2) };
        assert_eq!(id_only(id), "id: 00000001-2\n\n");
        assert_eq!(block(Some(id), "ping", "{}"), "id: 00000001-2\nevent: ping\ndata: {}\n\n");
    }
}
