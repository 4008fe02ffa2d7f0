//! Merges the events of one client across reconnects: repeats are recognized, and missing events are counted.

use std::collections::HashMap;

use serde::Deserialize;

/// The relation of a data event to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The first event of its channel.
    First,
    /// The event with the expected number.
    Next,
    /// A newer event, with the number of missing events before it.
    After(u64),
    /// A newer event of a channel that isn't counted.
    Newer,
    /// A repeat, which a page would drop.
    Known,
    /// An event that a page would take for new although its number repeats or goes back.
    Wrong,
    /// Invalid JSON, or fields are missing.
    Strange,
}

#[derive(Debug, Default)]
pub(super) struct Merge {
    channels: HashMap<Box<str>, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    /// True for `Every` channels: no event may be missing.
    every: bool,
    /// Epoch and sequence of the newest event with an id.
    id: Option<(u32, u64)>,
    /// True if the newest event had an id.
    numbered: bool,
    newest: Option<Newest>,
}

#[derive(Debug)]
struct Newest {
    time: Box<str>,
    values: Box<str>,
    number: Option<u64>,
}

#[derive(Deserialize)]
struct Hello<'a> {
    #[serde(borrow)]
    devices: Vec<HelloDevice<'a>>,
    #[serde(rename = "pingMs")]
    ping_ms: u64,
    server: &'a str,
}

#[derive(Deserialize)]
struct HelloDevice<'a> {
    device: String,
    #[serde(borrow)]
    channels: Vec<HelloChannel<'a>>,
}

#[derive(Deserialize)]
struct HelloChannel<'a> {
    channel: &'a str,
    delivery: &'a str,
}

#[derive(Deserialize)]
struct Data<'a> {
    device: String,
    channel: &'a str,
    time: &'a str,
    values: serde_json::Map<String, serde_json::Value>,
}

/// The fields of `hello` that concern the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) server: String,
    pub(super) ping_ms: u64,
}

impl Merge {
    /// Reads a `hello`. Returns `None` if it is invalid.
    pub(super) fn hello(&mut self, data: &str) -> Option<Welcome> {
        let Hello { devices, ping_ms, server } = serde_json::from_str(data).ok()?;
        for device in devices {
            for HelloChannel { channel, delivery } in device.channels {
                self.channels.entry(key(&device.device, channel)).or_default().every = delivery == "Every";
            }
        }
        Some(Welcome { server: server.to_owned(), ping_ms })
    }

    /// Classifies and keeps a data event by the rules for pages in docs/client.md: within an epoch the
    /// sequence decides; for events without an id the time decides, and the values if the times are equal.
    /// `field` names the value that increases by one with each message of a channel.
    pub(super) fn data(&mut self, id: Option<&str>, data: &str, field: &str) -> Taken {
        let Ok(Data { device, channel, time, values }) = serde_json::from_str(data) else {
            return Taken::Strange;
        };
        let channel = self.channels.entry(key(&device, channel)).or_default();
        let number = values.get(field).and_then(serde_json::Value::as_f64).map(|number| number as u64);
        let values = serde_json::Value::Object(values).to_string();
        let id = id.and_then(parse_id);
        let Some(newest) = &channel.newest else {
            channel.keep(id, time, values, number);
            return Taken::First;
        };
        if !channel.is_newer(newest, id, time, &values) {
            return Taken::Known;
        }
        let taken = match (channel.every, newest.number, number) {
            (true, Some(before), Some(now)) if now == before + 1 => Taken::Next,
            (true, Some(before), Some(now)) if now > before => Taken::After(now - before - 1),
            (true, Some(_), Some(_)) => Taken::Wrong,
            _ => Taken::Newer,
        };
        channel.keep(id, time, values, number);
        taken
    }

    /// Returns the newest number of each `Every` channel.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        let every = self.channels.iter().filter(|(_, channel)| channel.every);
        every.filter_map(|(name, channel)| Some((&**name, channel.newest.as_ref()?.number?)))
    }
}

impl Channel {
    fn is_newer(&self, newest: &Newest, id: Option<(u32, u64)>, time: &str, values: &str) -> bool {
        if let (Some((epoch, sequence)), Some((known_epoch, known))) = (id, self.id)
            && epoch == known_epoch
        {
            if sequence <= known {
                return false;
            }
            if self.numbered {
                return true;
            }
        }
        // All times are in UTC and have the same format, so they can be compared as strings.
        if time == &*newest.time { values != &*newest.values } else { time > &*newest.time }
    }

    fn keep(&mut self, id: Option<(u32, u64)>, time: &str, values: String, number: Option<u64>) {
        self.numbered = id.is_some();
        self.id = id.or(self.id);
        self.newest = Some(Newest { time: time.into(), values: values.into(), number });
    }
}

fn key(device: &str, channel: &str) -> Box<str> {
    format!("{device}/{channel}").into()
}

pub(super) fn parse_id(id: &str) -> Option<(u32, u64)> {
    let (epoch, sequence) = id.split_once('-')?;
    Some((u32::from_str_radix(epoch, 16).ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome() -> Merge {
        let mut merge = Merge::default();
        let hello = r#"{"protocol":1,"server":"pod-1","pingMs":500,"devices":[{"device":"A-1","channels":
            [{"channel":"switch","delivery":"Every"},{"channel":"level","delivery":"Latest"}]}]}"#;
        assert_eq!(merge.hello(hello), Some(Welcome { server: "pod-1".into(), ping_ms: 500 }));
        merge
    }

    fn data(channel: &str, second: u32, n: u64) -> String {
        format!(
            r#"{{"device":"A-1","channel":"{channel}","time":"2026-11-22T10:00:{second:02}.000Z",
                "values":{{"n":{n}}}}}"#
        )
    }

    #[test]
    fn a_replay_is_merged_and_a_hole_is_seen() {
        let mut merge = welcome();
        let mut take = |id: Option<&str>, second, n| merge.data(id, &data("switch", second, n), "n");
        assert_eq!(take(None, 1, 7), Taken::First);
        assert_eq!(take(Some("5f3a9c01-10"), 2, 8), Taken::Next);
        assert_eq!(take(Some("5f3a9c01-10"), 2, 8), Taken::Known);
        assert_eq!(take(None, 2, 8), Taken::Known, "without an id it is known by time and values");
        assert_eq!(take(None, 2, 9), Taken::Next, "another message of the same moment");
        assert_eq!(take(Some("5f3a9c01-14"), 3, 12), Taken::After(2));
        assert_eq!(take(Some("5f3a9c01-15"), 3, 12), Taken::Wrong, "the same message under another id");
        assert_eq!(take(Some("00000001-1"), 4, 13), Taken::Next, "another epoch");
        assert_eq!(merge.numbers().collect::<Vec<_>>(), [("A-1/switch", 13)]);
    }

    #[test]
    fn only_every_channels_are_counted() {
        let mut merge = welcome();
        assert_eq!(merge.data(None, &data("level", 1, 7), "n"), Taken::First);
        assert_eq!(merge.data(None, &data("level", 2, 99), "n"), Taken::Newer);
        assert_eq!(merge.data(None, &data("level", 1, 7), "n"), Taken::Known);
        assert_eq!(merge.data(None, "{}", "n"), Taken::Strange);
        assert_eq!(merge.numbers().count(), 0);
    }
}
