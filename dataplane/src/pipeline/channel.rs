//! The program of one channel of one device, and what it remembers between messages.

use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode};
use flutecast_contract::stream_position::EventId;
use flutecast_format::program::{ChannelState, DropReason, Message, Program, Timestamp};

use super::frame::{Frame, FrameWriter};

#[derive(Debug, Clone)]
pub struct ChannelPipeline {
    program: Arc<Program>,
    state: ChannelState,
    pub writer: FrameWriter,
}

#[derive(Debug, Clone)]
pub struct Formatted {
    pub frame: Frame,
    /// Number of fields that the frame lacks because they could not be formatted.
    pub skipped_fields: u32,
}

impl ChannelPipeline {
    /// Creates the pipeline of a channel of which nothing has been seen.
    pub fn new(device: &DeviceCode, channel: &ChannelName, program: Arc<Program>) -> Self {
        Self { program, state: ChannelState::default(), writer: FrameWriter::new(device, channel) }
    }

    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Filters, formats and encodes one message. `scratch` is a buffer to work in.
    ///
    /// # Errors
    /// Returns why the message reaches no client.
    pub fn apply(
        &mut self,
        id: EventId,
        message: Message<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Formatted, DropReason> {
        scratch.clear();
        let applied = self.program.apply(message, &mut self.state, scratch)?;
        // JSON on one line holds no control characters. One that got through could end the block and forge
        // another.
        if scratch.iter().any(|&byte| byte < 0x20) {
            return Err(DropReason::Malformed);
        }
        let frame = self.writer.write_data(id, applied.time, scratch);
        Ok(Formatted { frame, skipped_fields: applied.skipped_fields })
    }

    pub fn reset(&mut self) {
        self.state = ChannelState::default();
    }

    /// Returns a message that is read back from the stream. It is judged by the time at which it was stored,
    /// so that the last value of a device that has long been silent is still shown (and marked as stale).
    pub fn read_back(payload: &[u8], stored_at: Timestamp) -> Message<'_> {
        Message { payload, stored_at, now: stored_at }
    }
}
