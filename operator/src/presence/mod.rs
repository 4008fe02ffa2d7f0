//! Finds out which devices are `Online`, `Silent` or `Unknown`, for `status.presence`, and reports that
//! together with whether their messages are understood. Only on an API server: a folder has no place to write
//! it.
//!
//! The operator doesn't subscribe to all devices. An Online device is looked up when it could have become
//! silent, and not before: once in its `staleAfter`, however many messages it sends. A Silent device has a
//! subscription, which costs nothing while no message comes. Changes are reported at a bounded rate, for each
//! device and in total.
//!
//! ```text
//!                  judge ──judged──┐
//!                                  ▼
//! controller ──set, remove──► PresenceTable ──► task: Scheduler ──────► lookup: direct gets of last messages
//!     ▲                          ▲                │  ▲                      │
//!     └──────── changed(key) ────┴──── update ────┘  │                      ▼
//!                                                    └── message ── Subscriptions of Silent devices
//! ```
//! The scheduler has a [`device::DevicePresence`] and a [`damping::FlapDamping`] for each device. It tracks
//! the devices without a `staleAfter` too, only for what the judge says of them, and looks none of them up.
//! When a device begins to send, the judge is asked to look at it, and the report waits for what it says.
//!
//! `device`, `damping`, `scheduler` and `understanding` are pure: the time is passed in, and no wall clock of
//! this machine is read anywhere. Ages are differences of two times of the broker; deadlines are on the
//! monotonic clock.

mod damping;
mod device;
mod lookup;
mod metrics;
mod scheduler;
mod subscriptions;
mod table;
mod task;
#[cfg(test)]
mod tests;
mod understanding;

use flutecast_crds::{DeviceStatus, Presence};
use k8s_openapi::jiff::Timestamp;

pub(crate) use self::metrics::PresenceMetrics;
pub(crate) use self::table::{PresenceTable, Target, TargetVersion};
pub(crate) use self::task::PresenceTask;
pub(crate) use self::understanding::{Understanding, Understood};

/// The presence of a device as its status has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PresenceState {
    pub(crate) presence: Presence,
    /// The last transition by the broker's clock, in whole seconds; `None` if there was none.
    pub(crate) since: Option<Timestamp>,
}

impl From<&DeviceStatus> for PresenceState {
    fn from(status: &DeviceStatus) -> Self {
        Self {
            presence: status.presence.unwrap_or(Presence::Unknown),
            since: status.last_transition.as_ref().map(|time| time.0),
        }
    }
}

impl PresenceState {
    /// Returns that the presence is not known from now on, if it is known.
    fn lost(self, now: Timestamp) -> Self {
        if self.presence == Presence::Unknown {
            return self;
        }
        Self { presence: Presence::Unknown, since: Some(whole_seconds(now)) }
    }
}

/// What was observed of a device, as its status has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    pub(crate) presence: PresenceState,
    pub(crate) understanding: Understanding,
}

impl From<&DeviceStatus> for Observation {
    fn from(status: &DeviceStatus) -> Self {
        Self { presence: status.into(), understanding: status.into() }
    }
}

/// Returns the time without its fraction of a second, as an API server stores it.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
