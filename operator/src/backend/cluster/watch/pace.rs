//! How fast a watch that broke off is taken up again.

use std::time::Duration;

use flutecast_process::backoff::Backoff;

/// The first and the longest wait. A server that was away for a minute is noticed within seconds of its
/// return.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The waits of one watch.
#[derive(Debug)]
pub(super) struct Pace(Backoff);

impl Default for Pace {
    fn default() -> Self {
        Self(Backoff::new(RETRY.0, RETRY.1))
    }
}

impl Iterator for Pace {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next_wait())
    }
}

impl kube::runtime::utils::Backoff for Pace {
    fn reset(&mut self) {
        self.0.reset();
    }
}
