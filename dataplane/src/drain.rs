//! The drain at shutdown: wait until no proxy chooses this pod, send the clients away a few at a time, and
//! end within the termination grace period.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::fanout::Hubs;
use crate::http::{CloseReason, StreamRegistry};

/// The interval at which clients are sent away.
const STEP: Duration = Duration::from_millis(100);
/// The part of the grace period within which every client is gone; the rest is for the parts to end.
const USED: f64 = 0.8;
/// The part of the grace period for delay and window together; the rest is for clients that came meanwhile
/// and for sockets to end.
const PLANNED: f64 = 0.7;
/// The time over which clients come back that are sent away at once: all clients if there is no window.
const AT_ONCE_SPREAD: Duration = Duration::from_secs(5);
/// The same for clients that came during the window.
const LATE_SPREAD: Duration = Duration::from_secs(1);

/// The schedule after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainTimes {
    /// Time for which clients are served as before, until proxies have learnt that this pod is not ready.
    pub(crate) delay: Duration,
    /// The time over which clients are sent away after that.
    pub(crate) window: Duration,
    /// The time over which the clients come back that are sent away at the window's end.
    pub(crate) spread: Duration,
    /// Time from SIGTERM until the remaining clients are cut off.
    pub(crate) cut: Duration,
}

impl DrainTimes {
    /// The defaults differ in a cluster, where proxies learn late and other pods take the clients.
    pub(crate) fn new(config: &Config) -> Self {
        let (delay, window) = if config.kubernetes {
            (Duration::from_secs(5), Duration::from_secs(10))
        } else {
            (Duration::ZERO, Duration::ZERO)
        };
        let (delay, window) = (config.drain_delay.unwrap_or(delay), config.drain_window.unwrap_or(window));
        Self::fit(delay, window, config.termination_grace)
    }

    /// Shortens delay and window in proportion if they exceed the grace period.
    fn fit(delay: Duration, window: Duration, grace: Duration) -> Self {
        let (wanted, room) = (delay + window, grace.mul_f64(PLANNED));
        let factor = if wanted > room { room.as_secs_f64() / wanted.as_secs_f64() } else { 1.0 };
        if factor < 1.0 {
            tracing::warn!(
                ?delay,
                ?window,
                termination_grace = ?grace,
                "draining would take longer than 70 % of --termination-grace; \
                 --drain-delay and --drain-window are shortened"
            );
        }
        let spread = if window.is_zero() { AT_ONCE_SPREAD } else { LATE_SPREAD };
        Self {
            delay: delay.mul_f64(factor),
            window: window.mul_f64(factor),
            spread,
            cut: grace.mul_f64(USED),
        }
    }
}

/// Sends all clients away, evenly over `window`. Each is served until its turn, and so are new clients: if
/// this is the only pod, clients come back to it. Returns early when no client is left.
pub(crate) async fn send_all_away(window: Duration, hubs: &Hubs, streams: &StreamRegistry) {
    let end = Instant::now() + window;
    let mut rate = DrainRate::default();
    loop {
        let here = hubs.connections();
        let now = Instant::now();
        if here == 0 || now >= end {
            return;
        }
        streams.send_away(rate.next(here, end - now), CloseReason::Draining, None);
        sleep(STEP.min(end - now)).await;
    }
}

/// The rate at which clients are sent away; it spreads few clients as well as many.
#[derive(Debug, Default)]
struct DrainRate {
    /// The part of a client that is due.
    due: f64,
}

impl DrainRate {
    /// Returns how many of `here` to send away now, so that the last one goes when `left` is over.
    fn next(&mut self, here: usize, left: Duration) -> usize {
        let steps = (left.as_secs_f64() / STEP.as_secs_f64()).round().max(1.0);
        self.due += here as f64 / steps;
        let now = self.due.floor();
        self.due -= now;
        now as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(delay: u64, window: u64, grace: u64) -> DrainTimes {
        DrainTimes::fit(Duration::from_secs(delay), Duration::from_secs(window), Duration::from_secs(grace))
    }

    #[test]
    fn drain_fits_into_the_termination_grace_period() {
        let usual = seconds(5, 10, 30);
        assert_eq!((usual.delay.as_secs(), usual.window.as_secs(), usual.cut.as_secs()), (5, 10, 24));
        let short = seconds(20, 20, 30);
        assert_eq!((short.delay.as_millis(), short.window.as_millis()), (10_500, 10_500));
        let none = seconds(0, 0, 30);
        assert_eq!((none.delay, none.window, none.spread), (Duration::ZERO, Duration::ZERO, AT_ONCE_SPREAD));
        for (delay, window, grace) in [(5, 10, 30), (60, 0, 30), (0, 600, 60), (1, 1, 1), (5, 10, 0)] {
            let DrainTimes { delay, window, cut, .. } = seconds(delay, window, grace);
            assert!(
                delay + window <= cut && cut <= Duration::from_secs(grace),
                "{delay:?} {window:?} {cut:?}"
            );
        }
    }

    #[test]
    fn all_clients_are_sent_away_evenly() {
        for clients in [1, 7, 100, 2_000, 20_001] {
            let (mut here, mut left, mut most, mut half) = (clients, Duration::from_secs(10), 0, 0);
            let mut rate = DrainRate::default();
            while left > Duration::ZERO {
                let go = rate.next(here, left);
                most = most.max(go);
                here -= go;
                left -= STEP;
                if left == Duration::from_secs(5) {
                    half = here;
                }
            }
            assert!(here <= 1, "{here} of {clients}: the last one goes with those that came late");
            assert!(most <= clients.div_ceil(100) + 1, "{most} of {clients} at once");
            assert!(
                half.abs_diff(clients / 2) <= clients / 20 + 1,
                "{half} of {clients} after half of the time"
            );
        }
    }
}
