//! A screen that keeps what it shows, as a page does.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use flutecast_testkit::{Dataplane, SseClient, SseEvent, http_client};
use serde_json::{Value, json};

use crate::factory::SOON;

/// What differs from one place to another by right: who looks, and counts, which are those of a pod.
const OF_A_CHANNEL: [&str; 5] = ["seq", "time", "values", "bad", "at"];

/// A channel as one place shows it: `seq`, `time`, `values`, `bad` and `at`, each `null` where it isn't
/// there, and the `reason` of its problem.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown(pub(super) Value);

impl Shown {
    /// Takes what counts from a data event, or from a channel of the JSON API.
    pub(super) fn new(channel: &Value, problem: &Value) -> Self {
        let mut shown = json!({"reason": problem["reason"]});
        for field in OF_A_CHANNEL {
            shown[field] = channel[field].clone();
        }
        Self(shown)
    }

    /// Returns it without the problem, which ends by itself.
    pub(super) fn without_problem(&self) -> Self {
        let mut shown = self.0.clone();
        shown["reason"] = Value::Null;
        Self(shown)
    }

    /// Checks that it has these members; of those that aren't named, only `seq` and `time` may be there.
    pub(super) fn must_be(&self, expected: &Value) -> Result<(), String> {
        let may_differ = |field: &str| ["seq", "time"].contains(&field) && expected[field].is_null();
        let mut fields = OF_A_CHANNEL.into_iter().chain(["reason"]);
        match fields.find(|field| self.0[field] != expected[field] && !may_differ(field)) {
            Some(field) => Err(format!("{field} of {} is not that of {expected}", self.0)),
            None => Ok(()),
        }
    }
}

/// An event stream of one device, with problems.
pub(super) struct Screen {
    client: SseClient,
    /// The data events so far, by channel.
    events: BTreeMap<String, Vec<Value>>,
    /// What is shown of each channel, and whether the next event replaces it whatever its place.
    shown: BTreeMap<String, (Value, bool)>,
    /// The last problem of each channel, `null` if it has ended.
    problems: BTreeMap<String, Value>,
    /// The names of the other events.
    pub(super) others: Vec<String>,
    /// `true` once a block has carried an id: everything that the screen was owed has come.
    settled: bool,
}

impl Screen {
    /// Opens a stream and waits until it has everything that is there.
    pub(super) async fn open(pod: &Dataplane, tenant: &str, device: &str) -> anyhow::Result<Self> {
        Self::resume(pod, tenant, device, None).await
    }

    /// Opens a stream after the event with this id.
    pub(super) async fn resume(
        pod: &Dataplane,
        tenant: &str,
        device: &str,
        id: Option<&str>,
    ) -> anyhow::Result<Self> {
        let url = format!("{}/v1/{tenant}/events?device={device}&problems=true", pod.url);
        let headers: Vec<_> = id.map(|id| ("last-event-id", id)).into_iter().collect();
        let mut screen = Self {
            client: SseClient::connect(&url, &headers).await?,
            events: BTreeMap::new(),
            shown: BTreeMap::new(),
            problems: BTreeMap::new(),
            others: Vec::new(),
            settled: false,
        };
        screen.read_until("everything that is there", |screen| screen.settled.then_some(())).await?;
        Ok(screen)
    }

    /// Reads events until `found` returns something.
    pub(super) async fn read_until<T>(
        &mut self,
        what: &str,
        found: impl Fn(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + SOON;
        loop {
            if let Some(found) = found(self) {
                return Ok(found);
            }
            let event = self.client.next(end.saturating_duration_since(Instant::now())).await;
            let event = event.with_context(|| format!("{what}; {}", self.newest()))?;
            self.take(&event)?;
        }
    }

    /// Returns the newest events and the problem of each channel, for messages.
    fn newest(&self) -> String {
        let channel = |(channel, events): (&String, &Vec<Value>)| {
            let newest: Vec<_> = events.iter().rev().take(3).map(Value::to_string).collect();
            format!("{channel}: {}, problem {}", newest.join(" behind "), self.problem(channel))
        };
        self.events.iter().map(channel).collect::<Vec<_>>().join("; ")
    }

    fn take(&mut self, event: &SseEvent) -> anyhow::Result<()> {
        self.settled |= event.id.is_some();
        let Some(data) = event.data.as_ref().map(|_| event.json()).transpose()? else { return Ok(()) };
        let channel = data["channel"].as_str().unwrap_or_default().to_owned();
        match event.name() {
            "message" => {
                self.events.entry(channel.clone()).or_default().push(data.clone());
                let (shown, any) = self.shown.entry(channel).or_default();
                if std::mem::take(any) || data["seq"].as_u64() >= shown["seq"].as_u64() {
                    *shown = data;
                }
            }
            "problem" => {
                self.problems.insert(channel, data["problem"].clone());
            }
            name => {
                if ["hello", "devices", "gap"].contains(&name) {
                    // The order begins anew: of the stream, or under another format.
                    self.shown.values_mut().for_each(|(_, any)| *any = true);
                }
                self.others.push(name.to_owned());
            }
        }
        Ok(())
    }

    /// Returns the last event id, with which another screen can go on.
    pub(super) fn last_id(&self) -> Option<String> {
        self.client.last_event_id().map(str::to_owned)
    }

    /// Returns the data events of a channel so far.
    pub(super) fn events(&self, channel: &str) -> &[Value] {
        self.events.get(channel).map_or(&[], Vec::as_slice)
    }

    /// Returns the problem of a channel, `null` if it has none.
    pub(super) fn problem(&self, channel: &str) -> &Value {
        self.problems.get(channel).unwrap_or(&Value::Null)
    }

    /// Returns what the screen shows of a channel: the event that the stream stored last.
    pub(super) fn shows(&self, channel: &str) -> Shown {
        let shown = self.shown.get(channel).map_or(&Value::Null, |(event, _)| event);
        Shown::new(shown, self.problem(channel))
    }
}

/// Returns a channel from the JSON API of a pod.
pub(super) async fn as_json(
    pod: &Dataplane,
    tenant: &str,
    device: &str,
    channel: &str,
) -> anyhow::Result<Shown> {
    let device = http_client::get_json(&format!("{}/v1/{tenant}/devices/{device}", pod.url)).await?;
    let channel = &device["channels"][channel];
    Ok(Shown::new(channel, &channel["problem"]))
}
