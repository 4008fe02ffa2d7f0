//! From a message to a frame: it is formatted and encoded once, and all clients share the bytes.

mod channel;
mod clock;
mod excerpt;
mod frame;

pub use channel::{ChannelPipeline, Formatted};
pub use clock::{Now, json_time};
pub use excerpt::excerpt;
pub use frame::{Frame, FrameWriter, GapReason, NamesPlace, block, gap, id_only};
