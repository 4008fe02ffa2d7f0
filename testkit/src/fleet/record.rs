//! Records the new events of a client, for tests that compare them with the messages that the broker stored.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokio::time::Instant;

use super::merge::parse_id;

/// A new event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The message number.
    pub number: u64,
    /// The message's sequence in the stream, if the event had an id.
    pub sequence: Option<u64>,
    /// When the event arrived.
    pub at: Instant,
}

/// The events of one client by `<device>/<channel>`, in the order of arrival.
pub type Records = BTreeMap<String, Vec<Record>>;

#[derive(Deserialize)]
struct Data<'a> {
    device: String,
    channel: &'a str,
    values: serde_json::Map<String, serde_json::Value>,
}

/// Records a new event. Events without a number are ignored.
pub(super) fn keep(records: &mut Records, id: Option<&str>, data: &str, field: &str, at: Instant) {
    let Ok(Data { device, channel, values }) = serde_json::from_str(data) else { return };
    let Some(number) = values.get(field).and_then(serde_json::Value::as_f64) else { return };
    let sequence = id.and_then(parse_id).map(|(_, sequence)| sequence);
    let record = Record { number: number as u64, sequence, at };
    records.entry(format!("{device}/{channel}")).or_default().push(record);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_kept_in_order() {
        let mut records = Records::new();
        let at = Instant::now();
        for (id, values) in [(None, r#"{"n":1}"#), (Some("5f3a9c01-12"), r#"{"n":2}"#), (None, r#"{"m":3}"#)]
        {
            let data = format!(r#"{{"device":"A-1","channel":"count","time":"","values":{values}}}"#);
            keep(&mut records, id, &data, "n", at);
        }
        keep(&mut records, None, "{}", "n", at);
        let kept = [Record { number: 1, sequence: None, at }, Record { number: 2, sequence: Some(12), at }];
        assert_eq!(records, Records::from([("A-1/count".to_owned(), kept.to_vec())]));
    }
}
