//! Whether devices are heard of: `Online`, `Silent` or `Unknown`, for `status.presence`. On an API server
//! only: a folder has nowhere to write it.
//!
//! Nobody subscribes to everything. A device that is Online is looked up when it could have become silent,
//! and not before: once in its `staleAfter`, however many messages it sends. One that is Silent is listened
//! to, which costs nothing while it is silent. What changed is told at a bounded pace, for each device and in
//! all.
//!
//! ```text
//! keeper ──follow, forget──► board ──► task: crowd (pulse of each device, pace) ──looks──► lookup: direct gets of the last messages
//!    ▲                         ▲         │  ▲                                               │
//!    └──────Change::Presence───┴──told───┘  └──────heard──── ears: live subjects of the Silent ◄──┘
//! ```
//! `pulse`, `pace` and `crowd` are pure: the time is handed in, and no wall clock of this machine is read
//! anywhere. Ages are taken between two times of the broker, deadlines are kept on the monotonic clock.

pub mod board;
pub mod crowd;
pub mod ears;
pub mod lookup;
pub mod pace;
pub mod pulse;
pub mod task;

use flutecast_crds::{DeviceStatus, Presence};
use k8s_openapi::jiff::Timestamp;

/// What is said of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Whether it is heard of.
    pub presence: Presence,
    /// Since when, in whole seconds, by the broker's clock; none: it was never anything else.
    pub since: Option<Timestamp>,
}

impl Told {
    /// What a status says.
    #[must_use]
    pub fn by(status: &DeviceStatus) -> Self {
        Self {
            presence: status.presence.unwrap_or(Presence::Unknown),
            since: status.last_transition.as_ref().map(|time| time.0),
        }
    }
}

/// A time without its fraction of a second, as an API server stores it.
#[must_use]
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
