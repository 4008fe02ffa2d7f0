//! The memory and the program of one channel of one device.

use std::sync::Arc;

use flutecast_contract::name::{ChannelName, DeviceCode};
use flutecast_format::program::{ChannelState, Dropped, Message, Program, Timestamp};

use super::frame::{Frame, NamedFrames};
use flutecast_contract::stream_position::Epoch;

/// Turns the messages of one channel of one device into frames.
#[derive(Debug, Clone)]
pub struct ChannelPipeline {
    program: Arc<Program>,
    state: ChannelState,
    /// Writes the frames.
    pub frames: NamedFrames,
}

/// A message that clients get.
#[derive(Debug, Clone)]
pub struct Formatted {
    /// The frame.
    pub frame: Frame,
    /// How many fields were left out.
    pub skipped_fields: u32,
}

impl ChannelPipeline {
    /// A channel of which nothing has been seen.
    #[must_use]
    pub fn new(device: &DeviceCode, channel: &ChannelName, program: Arc<Program>) -> Self {
        Self { program, state: ChannelState::default(), frames: NamedFrames::new(device, channel) }
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Filters, formats and encodes one message. `scratch` is memory to work in; its content doesn't matter.
    ///
    /// # Errors
    /// Why the message reaches no client.
    pub fn apply(
        &mut self,
        epoch: Epoch,
        sequence: u64,
        message: Message<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<Formatted, Dropped> {
        scratch.clear();
        let applied = self.program.apply(message, &mut self.state, scratch)?;
        // JSON on one line holds no control characters. One that got through could end the block and forge
        // another.
        if scratch.iter().any(|&byte| byte < 0x20) {
            return Err(Dropped::Malformed);
        }
        let frame = self.frames.data(epoch, sequence, applied.time, scratch);
        Ok(Formatted { frame, skipped_fields: applied.skipped_fields })
    }

    /// Forgets what was seen.
    pub fn reset(&mut self) {
        self.state = ChannelState::default();
    }

    /// A message as it is when it is read back from the stream: it is judged by the moment at which it
    /// arrived there, so that the last value of a device that has been silent for long is still known (and
    /// told to be stale).
    #[must_use]
    pub fn as_it_arrived(payload: &[u8], stored_at: Timestamp) -> Message<'_> {
        Message { payload, stored_at, now: stored_at }
    }
}
