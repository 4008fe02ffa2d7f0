//! A clock that never goes back.

use std::time::{Duration, Instant, SystemTime};

/// Microseconds since 1970-01-01T00:00:00Z by the wall clock of the start, and by the monotonic clock from
/// there: a wall clock that is set meanwhile changes no measurement.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_us: u64,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_us: micros(wall) }
    }

    /// The time, in microseconds.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        self.started_us + micros(self.started.elapsed())
    }
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
