//! From a message to a frame: it is formatted and encoded once, and all clients share the bytes.

mod channel;
mod clock;
mod excerpt;
mod frame;
mod problems;

pub use channel::{ChannelMessage, ChannelPipeline, Formatted, Scratch, Verdict};
pub use clock::{Now, json_time, rfc3339};
pub use excerpt::excerpt;
pub use frame::{DataParts, Frame, FrameWriter, GapReason, NamesPlace, block, gap, id_only};
pub use problems::{ProblemReport, Problems, problem_json};
