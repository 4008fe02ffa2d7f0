//! Reads the last messages of a channel, and judges them as a screen would be shown them.

use std::collections::VecDeque;

use flutecast_contract::name::{ChannelName, DeviceCode, IotId, TenantName};
use flutecast_contract::stream_position::Sequence;
use flutecast_contract::{subject, tail};
use flutecast_format::program::{ChannelState, Message, Output, Program, Timestamp};
use flutecast_nats::stream::StreamState;
use flutecast_nats::{RequestError, StoredMessage, StreamReader};
use serde::Serialize;
use serde_json::Value;

use crate::catalog::{Channel, Device, TenantCatalog};
use crate::pipeline::{ChannelMessage, Problems, excerpt, problem_json, rfc3339};

/// How many messages of a channel are shown.
const SHOWN: usize = 20;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceMessages {
    tenant: TenantName,
    device: DeviceCode,
    iot_id: IotId,
    stream: String,
    broker_time: String,
    pub(super) channels: Vec<ChannelMessages>,
}

#[derive(Debug, Serialize)]
pub(super) struct ChannelMessages {
    channel: ChannelName,
    subject: String,
    /// What the JSON API says.
    problem: Option<Value>,
    /// The newest first.
    messages: VecDeque<JudgedMessage>,
}

#[derive(Debug, Serialize)]
struct JudgedMessage {
    seq: u64,
    /// `true` if it is a kept last value, which the tenant's stream no longer holds.
    #[serde(skip_serializing_if = "is_false")]
    kept: bool,
    stored: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured: Option<String>,
    /// The time that a screen shows.
    time: Option<String>,
    bytes: usize,
    payload: String,
    /// `Shown`, or the reason why not.
    step: &'static str,
    values: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    bad: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Value>,
    #[serde(skip_serializing_if = "is_false")]
    late: bool,
    problems: Vec<Value>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl DeviceMessages {
    pub(super) fn new(tenant: &TenantCatalog, device: &Device, now: Timestamp) -> Self {
        Self {
            tenant: tenant.name.clone(),
            device: device.code.clone(),
            iot_id: device.iot_id.clone(),
            stream: tenant.settings.stream.clone(),
            broker_time: rfc3339(now),
            channels: Vec::new(),
        }
    }

    /// Names and texts can always be written as JSON.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }
}

/// Reads the tail of a channel, and what was kept of it if nothing in the tail is shown. `state` is that of
/// the stream.
pub(super) async fn read(
    reader: &StreamReader,
    state: &StreamState,
    tenant: &TenantCatalog,
    device: &Device,
    channel: &Channel,
) -> Result<ChannelMessages, RequestError> {
    let subject = subject::stored(&tenant.name, &device.iot_id, &channel.name);
    let mut judge = TailJudge::new(&channel.program);
    reader.tail(&subject, tail::MESSAGES).await?.iter().for_each(|message| judge.add(message));
    let problem = judge.problems.json(state.time.into()).and_then(|problem| json(problem.as_bytes()));
    let mut messages = judge.newest;
    if !judge.shown {
        let mut judge = TailJudge::new(&channel.program);
        let kept = kept(reader, tenant, device, channel).await?;
        let of_this_stream = |m: &&StoredMessage| m.origin.is_some_and(|origin| origin.epoch == state.epoch);
        kept.iter().filter(of_this_stream).for_each(|message| judge.add(message));
        messages.extend(judge.newest);
    }
    Ok(ChannelMessages { channel: channel.name.clone(), subject, problem, messages })
}

/// Returns what was kept of a channel. An older operator keeps nothing, and makes no stream for it.
async fn kept(
    reader: &StreamReader,
    tenant: &TenantCatalog,
    device: &Device,
    channel: &Channel,
) -> Result<Vec<StoredMessage>, RequestError> {
    let reader = StreamReader::new(reader.client().clone(), subject::kept_stream(&tenant.name));
    let subject = subject::kept(&tenant.name, &device.iot_id, &channel.name);
    match reader.page(&subject, Sequence::START.next()).await {
        Ok(page) => Ok(page.messages),
        Err(RequestError::NoStream) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Applies the messages of a tail in their order. Keeps what became of the newest ones.
struct TailJudge<'a> {
    program: &'a Program,
    state: ChannelState,
    output: Output,
    problems: Problems,
    /// `true` if some message is shown.
    shown: bool,
    newest: VecDeque<JudgedMessage>,
}

impl<'a> TailJudge<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            state: ChannelState::complete(),
            output: Output::default(),
            problems: Problems::default(),
            shown: false,
            newest: VecDeque::with_capacity(SHOWN),
        }
    }

    fn add(&mut self, stored: &StoredMessage) {
        let ChannelMessage { sequence, stored_at, captured_at, payload } = stored.into();
        let message = Message { payload, stored_at, captured_at };
        // A state of which everything is known needs no tail.
        let Ok(applied) = self.program.apply(message, &mut self.state, &mut self.output) else { return };
        self.problems.note(self.program, &self.state, sequence, message, &applied);
        let problems = match applied.problem {
            Some(_) => self.program.explain(message, applied.verdict.err(), &self.state),
            None => Vec::new(),
        };
        let shown = applied.verdict.ok();
        self.shown |= shown.is_some();
        let Output { values, bad, at } = &self.output;
        self.newest.push_front(JudgedMessage {
            seq: sequence.0,
            kept: stored.origin.is_some(),
            stored: rfc3339(stored_at),
            captured: captured_at.map(rfc3339),
            time: shown.map(|event| rfc3339(event.time)),
            bytes: payload.len(),
            payload: excerpt(payload),
            step: applied.verdict.map_or_else(|dropped| dropped.as_str(), |_| "Shown"),
            values: json(values).unwrap_or(Value::Null),
            bad: json(bad),
            at: json(at),
            late: shown.is_some_and(|event| event.late),
            problems: problems.iter().filter_map(|problem| json(problem_json(problem).as_bytes())).collect(),
        });
        self.newest.truncate(SHOWN);
    }
}

/// `None` without any bytes.
fn json(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}
