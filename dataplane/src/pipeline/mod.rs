//! From a message to a frame: format once, encode once, share with everybody.

mod channel;
mod frame;
mod moment;

pub use channel::{ChannelPipeline, Formatted};
pub use frame::{Frame, GapReason, NamedFrames, block, id_only};
pub use moment::{Moment, write_rfc3339};
