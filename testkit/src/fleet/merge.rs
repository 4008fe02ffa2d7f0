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
    /// A repeat, or one from before what is known, which a page would drop.
    Known,
    /// An event that a page would take for new although its number repeats or goes back.
    Wrong,
    /// Invalid JSON, or fields are missing.
    Strange,
}

#[derive(Debug, Default)]
pub(super) struct Merge {
    /// The incarnation of the tenant's stream, in which the order holds.
    epoch: Option<Box<str>>,
    channels: HashMap<Box<str>, Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    /// True for `Every` channels: no event may be missing.
    every: bool,
    /// True until the first event of an incarnation of the stream.
    sequence_unknown: bool,
    newest: Option<Newest>,
}

#[derive(Debug)]
struct Newest {
    sequence: u64,
    values: serde_json::Map<String, serde_json::Value>,
    number: Option<u64>,
}

#[derive(Deserialize)]
struct Hello<'a> {
    #[serde(borrow)]
    devices: Vec<HelloDevice<'a>>,
    #[serde(rename = "pingMs")]
    ping_ms: u64,
    server: &'a str,
    epoch: Option<&'a str>,
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
    #[serde(rename = "seq")]
    sequence: u64,
    values: serde_json::Map<String, serde_json::Value>,
}

/// The fields of `hello` that concern the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) server: String,
    pub(super) ping_ms: u64,
}

impl Merge {
    /// Reads a `hello`, the first of a connection or `again` on the same one. Returns `None` if it is
    /// invalid.
    pub(super) fn hello(&mut self, data: &str, again: bool) -> Option<Welcome> {
        let Hello { devices, ping_ms, server, epoch } = serde_json::from_str(data).ok()?;
        let other = epoch
            .is_some_and(|epoch| self.epoch.replace(epoch.into()).is_some_and(|before| *before != *epoch));
        if again || other {
            // The stream was made anew, or set back: lower numbers may follow.
            for channel in self.channels.values_mut() {
                channel.sequence_unknown = true;
            }
        }
        for device in devices {
            for HelloChannel { channel, delivery } in device.channels {
                self.channels.entry(key(&device.device, channel)).or_default().every = delivery == "Every";
            }
        }
        Some(Welcome { server: server.to_owned(), ping_ms })
    }

    /// Classifies and keeps a data event by the rules for pages in docs/client.md: the sequence decides.
    /// `field` names the value that increases by one with each message of a channel.
    pub(super) fn data(&mut self, data: &str, field: &str) -> Taken {
        let Ok(Data { device, channel, sequence, values }) = serde_json::from_str(data) else {
            return Taken::Strange;
        };
        let channel = self.channels.entry(key(&device, channel)).or_default();
        let number = values.get(field).and_then(serde_json::Value::as_f64).map(|number| number as u64);
        let new = Newest { sequence, values, number };
        let Some(newest) = &channel.newest else {
            channel.newest = Some(new);
            return Taken::First;
        };
        if !channel.is_newer(newest, &new) {
            return Taken::Known;
        }
        let taken = match (channel.every, newest.number, number) {
            (true, Some(before), Some(now)) if now == before + 1 => Taken::Next,
            (true, Some(before), Some(now)) if now > before => Taken::After(now - before - 1),
            (true, Some(_), Some(_)) => Taken::Wrong,
            _ => Taken::Newer,
        };
        channel.newest = Some(new);
        channel.sequence_unknown = false;
        taken
    }

    /// Returns the newest number of each `Every` channel.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        let every = self.channels.iter().filter(|(_, channel)| channel.every);
        every.filter_map(|(name, channel)| Some((&**name, channel.newest.as_ref()?.number?)))
    }
}

impl Channel {
    /// A message may come again in another form, when its format has changed.
    fn is_newer(&self, newest: &Newest, new: &Newest) -> bool {
        let order = new.sequence.cmp(&newest.sequence);
        self.sequence_unknown || order.is_gt() || order.is_eq() && new.values != newest.values
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

    fn hello(epoch: &str) -> String {
        format!(
            r#"{{"protocol":1,"server":"pod-1","epoch":"{epoch}","pingMs":500,"devices":[{{"device":"A-1",
            "channels":[{{"channel":"switch","delivery":"Every"}},
            {{"channel":"level","delivery":"Latest"}}]}}]}}"#
        )
    }

    fn welcome() -> Merge {
        let mut merge = Merge::default();
        let welcome = Welcome { server: "pod-1".into(), ping_ms: 500 };
        assert_eq!(merge.hello(&hello("5f3a9c01"), false), Some(welcome));
        merge
    }

    fn data(channel: &str, sequence: u64, n: u64) -> String {
        format!(
            r#"{{"device":"A-1","channel":"{channel}","seq":{sequence},"time":"2026-11-22T10:00:00.000Z",
                "values":{{"n":{n}}}}}"#
        )
    }

    #[test]
    fn a_replay_is_merged_and_a_hole_is_seen() {
        let mut merge = welcome();
        let take = |merge: &mut Merge, sequence, n| merge.data(&data("switch", sequence, n), "n");
        assert_eq!(take(&mut merge, 9, 7), Taken::First);
        assert_eq!(take(&mut merge, 10, 8), Taken::Next);
        assert_eq!(take(&mut merge, 10, 8), Taken::Known);
        assert_eq!(take(&mut merge, 9, 7), Taken::Known);
        assert_eq!(take(&mut merge, 14, 12), Taken::After(3));
        assert_eq!(take(&mut merge, 15, 12), Taken::Wrong, "the same message in another place");
        assert!(merge.hello(&hello("5f3a9c01"), false).is_some());
        assert_eq!(take(&mut merge, 14, 12), Taken::Known, "a new connection to the same stream");
        assert!(merge.hello(&hello("00000001"), false).is_some());
        assert_eq!(take(&mut merge, 5, 13), Taken::Next, "another stream");
        assert_eq!(take(&mut merge, 5, 13), Taken::Known);
        assert!(merge.hello(&hello("00000001"), true).is_some());
        assert_eq!(take(&mut merge, 4, 14), Taken::Next, "a stream that was set back");
        assert_eq!(merge.numbers().collect::<Vec<_>>(), [("A-1/switch", 14)]);
    }

    #[test]
    fn only_every_channels_are_counted() {
        let mut merge = welcome();
        assert_eq!(merge.data(&data("level", 1, 7), "n"), Taken::First);
        assert_eq!(merge.data(&data("level", 2, 99), "n"), Taken::Newer);
        assert_eq!(merge.data(&data("level", 2, 99), "n"), Taken::Known);
        assert_eq!(merge.data(&data("level", 2, 98), "n"), Taken::Newer, "in another form");
        assert_eq!(merge.data("{}", "n"), Taken::Strange);
        assert_eq!(merge.numbers().count(), 0);
    }
}
