//! The simulated corrugated-packaging line: a pure, deterministic model.
//!
//! [`Line`] is a step function of a seed and virtual time. It uses no network, clock or threads. It returns
//! [`Message`]s with route and time; `publish` sends them.
//!
//! In the plant, a corrugator makes board, a slitter-scorer cuts it into sheets, the sheets wait in a buffer,
//! a flexo printer and a die cutter turn them into blanks, and a stacker piles the blanks. The values are
//! those of a mid-size plant, but orders and intervals between faults are short, so that a viewer sees a
//! change within a minute.

mod address;
mod alarm;
mod corrugator;
mod count;
mod delivery;
mod device;
mod die_cutter;
mod drive;
mod finishing;
mod message;
mod model;
mod order;
mod physics;
mod plant;
mod printer;
mod slitter;
mod stacker;
mod steam;

pub use address::{Addresses, Quality, Route};
pub use alarm::{AlarmNotice, Severity};
pub use delivery::{Delivery, Disturbance};
pub use device::{Channel, Device};
pub use message::{Body, Malformed, Message, Reading, WallClock};
pub use model::{Line, LineOptions};

#[cfg(test)]
mod tests;
