//! Random formats, and messages of devices that are as far from ideal as can be.

use std::fmt::Write as _;

use flutecast_contract::document::{RecordDocument, TimestampDocument, TimestampUnit};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// 2026-11-22T10:00:00Z, in milliseconds.
const START: i64 = 1_795_341_600_000;
/// The longest `minInterval` of a format, in milliseconds. Messages are further apart than that.
pub(super) const INTERVAL: u64 = 200;
const SUBJECT: &str = "iot.acme.A.x";

/// A message as it is tried.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// How much later than the message before it is stored, by the broker's clock.
    pub(super) gap: i64,
    /// How long before it the source's stream captured it, in formats whose source does so.
    waited: i64,
    text: Text,
}

#[derive(Debug, Clone)]
enum Text {
    NoMessage(&'static str),
    /// The same bytes as one of the messages before.
    Again(Index),
    Fields {
        /// Its time, relative to that of its storing.
        offset: i64,
        /// Whether the time is one in whole seconds.
        whole: bool,
        values: [Option<&'static str>; 3],
    },
}

/// What is tried in one case.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) format: FormatDocument,
    captured: bool,
    pub(super) messages: Vec<Shape>,
    /// Behind this message the second pod starts, and its screen comes.
    pub(super) second: Index,
    /// Whether the second pod's first read takes so long that the next message comes meanwhile.
    pub(super) slow: bool,
    /// The pods miss this message when it comes live, as the connection was away.
    pub(super) missed: Option<Index>,
}

fn text() -> impl Strategy<Value = Text> {
    let value = || {
        prop::option::weighted(
            0.7,
            select(&["0", "1", "2", "3", "-1", "1.5", "7", "null", "\"x\"", "NaN"][..]),
        )
    };
    let offset = select(
        &[
            0, 0, 0, 0, -1, -300, -900, -1_000, -1_001, -3_000, -5_500, -20_000, -59_000, -61_000, -70_000,
            -3_600_000, 300, 1_001, 1_500, 3_000, 6_000, 3_600_000,
        ][..],
    );
    let no_message = select(&["online", "", "{\"a\":1", "{\"hb\":1}", "[]", "{\"ts\":\"x\",\"a\":1}"][..]);
    prop_oneof![
        1 => no_message.prop_map(Text::NoMessage),
        1 => any::<Index>().prop_map(Text::Again),
        8 => (offset, prop::bool::weighted(0.2), [value(), value(), value()])
            .prop_map(|(offset, whole, values)| Text::Fields { offset, whole, values }),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let gap = prop_oneof![
        20 => select(&[1_i64, 100, 700, 1_000, 2_000, 9_000, 20_000, 30_000, 59_000, 61_000, 300_000][..]),
        // A new leader, whose clock is another one.
        1 => select(&[-500_i64, -1_500, -10_000, -3_600_000][..]),
    ];
    (gap, select(&[0_i64, 50, 5_000, 100_000][..]), text()).prop_map(|(gap, waited, text)| Shape {
        gap,
        waited,
        text,
    })
}

fn format() -> impl Strategy<Value = FormatDocument> {
    let timestamp = prop::option::weighted(
        0.75,
        (prop::bool::ANY, prop::option::of(Just(30_000)), prop::option::of(Just(5_000))),
    );
    let record = prop::option::weighted(0.3, prop::option::of(select(&[10_000_u64, 60_000, 600_000][..])));
    let delivery = (prop::bool::weighted(0.4), prop::bool::weighted(0.2), record);
    let triggers = select(&[0, 0, 1, 2][..]);
    let rest = (prop::bool::ANY, prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    (timestamp, delivery, triggers, rest).prop_map(build_format)
}

type Timestamps = Option<(bool, Option<u64>, Option<u64>)>;
type Delivery = (bool, bool, Option<Option<u64>>);

fn build_format(
    (timestamp, (every, slow, record), triggers, (when, otherwise, computed)): (
        Timestamps,
        Delivery,
        u8,
        (bool, bool, bool),
    ),
) -> FormatDocument {
    let timestamp = timestamp.map(|(seconds, max_age_ms, max_ahead_ms)| TimestampDocument {
        pointer: "/ts".to_owned(),
        unit: if seconds { TimestampUnit::Seconds } else { TimestampUnit::Milliseconds },
        max_age_ms,
        max_ahead_ms,
    });
    let record = record.map(|expire_fields_ms| RecordDocument { expire_fields_ms });
    let policy = if every && record.is_none() { DeliveryPolicy::Every } else { DeliveryPolicy::Latest };
    let min_interval_ms = (slow && policy == DeliveryPolicy::Latest).then_some(INTERVAL);
    let field = |name: &str, kind| FieldDocument {
        name: name.to_owned(),
        pointer: Some(format!("/{name}")),
        kind: Some(kind),
        on_change: triggers > 0,
        ..FieldDocument::default()
    };
    let mut fields =
        vec![field("a", FieldType::Number), field("b", FieldType::Number), field("st", FieldType::Enum)];
    if triggers == 2 {
        (fields[0].on_change, fields[0].deadband) = (false, Some(2.0));
    }
    fields[2].values =
        [("0", "stopped"), ("1", "running")].map(|(raw, word)| (raw.to_owned(), word.to_owned())).into();
    fields[2].otherwise = otherwise.then(|| "fault".to_owned());
    if computed && triggers == 0 {
        let expression = Some("values.a + values.b".to_owned());
        fields.push(FieldDocument { name: "sum".to_owned(), expression, ..FieldDocument::default() });
    }
    FormatDocument {
        codec: Codec::Json,
        timestamp,
        delivery: DeliveryDocument { policy, min_interval_ms },
        record,
        when: when.then(|| "values.a >= 0".to_owned()),
        fields,
    }
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let missed = prop::option::weighted(0.3, any::<Index>());
    (
        format(),
        prop::bool::weighted(0.2),
        prop::collection::vec(shape(), 1..16),
        any::<Index>(),
        any::<bool>(),
        missed,
    )
        .prop_map(|(format, captured, messages, second, slow, missed)| Case {
            format,
            captured,
            messages,
            second,
            slow,
            missed,
        })
}

impl Case {
    /// Returns the messages as the stream holds them.
    pub(super) fn stored(&self) -> Vec<StoredMessage> {
        let mut clock = START;
        let mut stored = Vec::<StoredMessage>::new();
        for (sequence, Shape { gap, waited, text }) in (1..).zip(&self.messages) {
            clock += gap + INTERVAL as i64;
            let captured = clock - waited;
            let reference = if self.captured { captured } else { clock };
            let payload = match text {
                Text::NoMessage(text) => (*text).to_owned().into(),
                Text::Again(index) if stored.is_empty() => format!("{{\"a\":{}}}", index.index(9)).into(),
                Text::Again(index) => index.get(&stored).payload.clone(),
                Text::Fields { offset, whole, values } => {
                    self.payload(reference + offset, *whole, values).into()
                }
            };
            let time = |millis| jiff::Timestamp::from_millisecond(millis).unwrap();
            stored.push(StoredMessage {
                subject: SUBJECT.to_owned(),
                sequence: Sequence(sequence),
                stored_at: time(clock),
                captured_at: self.captured.then(|| time(captured)),
                origin: None,
                payload,
            });
        }
        stored
    }

    fn payload(&self, millis: i64, whole: bool, values: &[Option<&str>; 3]) -> String {
        let millis = if whole { millis / 1_000 * 1_000 } else { millis };
        let seconds = self.format.timestamp.as_ref().is_some_and(|time| time.unit == TimestampUnit::Seconds);
        let mut text = format!("{{\"ts\":{}", if seconds { millis / 1_000 } else { millis });
        for (name, value) in ["a", "b", "st"].iter().zip(values) {
            if let Some(value) = value {
                write!(text, ",\"{name}\":{value}").unwrap();
            }
        }
        text + "}"
    }

    /// Returns the messages as text, with their times in milliseconds.
    pub(super) fn listing(stored: &[StoredMessage]) -> String {
        let line = |message: &StoredMessage| {
            let text = String::from_utf8_lossy(&message.payload);
            let since = |time: jiff::Timestamp| time.as_millisecond() - START;
            let captured = message.captured_at.map(|time| format!(", captured {}", since(time)));
            let captured = captured.unwrap_or_default();
            format!("  {} at {}{captured}: {text}\n", message.sequence.0, since(message.stored_at))
        };
        stored.iter().map(line).collect()
    }
}
