//! The program of one channel of one device, and what it remembers between messages.

use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode};
use flutecast_contract::stream_position::{Epoch, EventId, Sequence};
use flutecast_format::program::{ChannelState, DropReason, Message, Program, Timestamp};
use flutecast_nats::{LiveMessage, StoredMessage};

use super::frame::{DataParts, Frame, FrameWriter};
use super::problems::Problems;

/// Buffers to work in.
pub type Scratch = flutecast_format::program::Output;

#[derive(Debug, Clone)]
pub struct ChannelPipeline {
    program: Arc<Program>,
    state: ChannelState,
    /// What is wrong with the messages so far.
    pub problems: Problems,
    pub writer: FrameWriter,
}

/// A message of a channel's subject, whether it came live or was read back: it makes no difference.
#[derive(Debug, Clone, Copy)]
pub struct ChannelMessage<'a> {
    pub sequence: Sequence,
    pub stored_at: Timestamp,
    pub captured_at: Option<Timestamp>,
    pub payload: &'a [u8],
}

#[derive(Debug, Clone)]
pub struct Formatted {
    pub frame: Frame,
    /// Number of fields of the frame that could not be formatted.
    pub skipped_fields: u32,
    /// `true` if the event is marked as late.
    pub late: bool,
}

/// The result of one message.
#[derive(Debug, Clone)]
pub enum Verdict {
    Shown(Formatted),
    Dropped(DropReason),
    /// It can't be decided without the messages before it. It changed nothing.
    NeedsTail,
}

impl Verdict {
    /// Returns whether the message says that the device works as its format expects.
    pub fn is_understood(&self) -> bool {
        match self {
            Self::Shown(_) => true,
            Self::Dropped(reason) => reason.is_understood(),
            Self::NeedsTail => false,
        }
    }

    /// Returns the frame of a message that is shown.
    pub fn into_frame(self) -> Option<Frame> {
        if let Self::Shown(formatted) = self { Some(formatted.frame) } else { None }
    }
}

impl<'a> From<&'a LiveMessage> for ChannelMessage<'a> {
    fn from(message: &'a LiveMessage) -> Self {
        let LiveMessage { sequence, previous: _, stored_at, captured_at, payload } = message;
        let (stored_at, captured_at) = ((*stored_at).into(), captured_at.map(Into::into));
        Self { sequence: *sequence, stored_at, captured_at, payload }
    }
}

impl<'a> From<&'a StoredMessage> for ChannelMessage<'a> {
    /// A kept last value counts as the message of which it is a copy.
    fn from(message: &'a StoredMessage) -> Self {
        let StoredMessage { subject: _, sequence, stored_at, captured_at, origin, payload } = message;
        let (sequence, stored_at) =
            origin.map_or((*sequence, *stored_at), |origin| (origin.sequence, origin.stored_at));
        Self { sequence, stored_at: stored_at.into(), captured_at: captured_at.map(Into::into), payload }
    }
}

impl ChannelPipeline {
    /// Creates the pipeline of a channel of which nothing has been seen.
    pub fn new(device: &DeviceCode, channel: &ChannelName, program: Arc<Program>) -> Self {
        let (state, problems) = (ChannelState::default(), Problems::default());
        Self { program, state, problems, writer: FrameWriter::new(device, channel) }
    }

    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Filters, formats and encodes one message of the stream's incarnation `epoch`. `scratch` is a buffer to
    /// work in.
    pub fn apply(&mut self, epoch: Epoch, message: ChannelMessage<'_>, scratch: &mut Scratch) -> Verdict {
        let ChannelMessage { sequence, stored_at, captured_at, payload } = message;
        let message = Message { payload, stored_at, captured_at };
        let Ok(applied) = self.program.apply(message, &mut self.state, scratch) else {
            return Verdict::NeedsTail;
        };
        self.problems.note(&self.program, &self.state, sequence, message, &applied);
        let event = match applied.verdict {
            Ok(event) => event,
            Err(reason) => return Verdict::Dropped(reason),
        };
        let Scratch { values, bad, at } = scratch;
        // JSON on one line holds no control characters. One that got through could end the block and forge
        // another.
        if [&values, &bad, &at].iter().any(|json| json.iter().any(|&byte| byte < 0x20)) {
            return Verdict::Dropped(DropReason::Malformed);
        }
        let parts = DataParts { time: event.time, values, bad, at, late: event.late };
        let frame = self.writer.write_data(EventId { epoch, sequence }, parts);
        Verdict::Shown(Formatted { frame, skipped_fields: applied.skipped_fields, late: event.late })
    }

    /// Returns the pipeline of the same channel of which nothing has been seen.
    pub fn renewed(&self) -> Self {
        self.with(ChannelState::default())
    }

    /// Returns the pipeline of the same channel before which nothing that can matter was stored.
    pub fn complete(&self) -> Self {
        self.with(ChannelState::complete())
    }

    /// Goes on as if nothing that can matter was stored before the messages so far.
    pub fn assume_complete(&mut self) {
        if !self.state.is_complete() {
            self.state = ChannelState::complete();
        }
    }

    fn with(&self, state: ChannelState) -> Self {
        let (program, writer) = (Arc::clone(&self.program), self.writer.clone());
        Self { program, state, problems: Problems::default(), writer }
    }
}
