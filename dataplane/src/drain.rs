//! The orderly end: stop being chosen, send the clients away a few at a time, and be gone before Kubernetes
//! loses patience.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::fanout::Hubs;
use crate::http::{End, OpenStreams};

/// How often some clients are sent away.
const STEP: Duration = Duration::from_millis(100);
/// Which part of the time that Kubernetes gives is used at most, until every client is gone; the rest is for
/// the parts to end.
const USED: f64 = 0.8;
/// Which part of it the delay and the window may take together; the rest is for clients that came meanwhile
/// and for sockets to end.
const PLANNED: f64 = 0.7;
/// Over what time those who are told at once come back: all, where there is no window, else those who came
/// during it.
const AT_ONCE_SPREAD: Duration = Duration::from_secs(5);
const LATE_SPREAD: Duration = Duration::from_secs(1);

/// What happens when after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DrainTimes {
    /// How long everything goes on as before, until proxies have learnt that this pod goes.
    pub(crate) delay: Duration,
    /// Over what time clients are sent away then.
    pub(crate) window: Duration,
    /// Over what time those come back who are told at the window's end.
    pub(crate) spread: Duration,
    /// When, counted from SIGTERM, whoever is still here is cut off.
    pub(crate) cut: Duration,
}

impl DrainTimes {
    /// In a cluster there are proxies that learn late and other pods that take the clients; a single process
    /// has neither.
    pub(crate) fn new(config: &Config) -> Self {
        let (delay, window) = if config.kubernetes {
            (Duration::from_secs(5), Duration::from_secs(10))
        } else {
            (Duration::ZERO, Duration::ZERO)
        };
        let (delay, window) = (config.drain_delay.unwrap_or(delay), config.drain_window.unwrap_or(window));
        Self::fit(delay, window, config.termination_grace)
    }

    /// Both times shortened alike if they don't fit into what Kubernetes gives.
    fn fit(delay: Duration, window: Duration, grace: Duration) -> Self {
        let (wanted, room) = (delay + window, grace.mul_f64(PLANNED));
        let factor = if wanted > room { room.as_secs_f64() / wanted.as_secs_f64() } else { 1.0 };
        if factor < 1.0 {
            tracing::warn!(
                ?delay,
                ?window,
                termination_grace = ?grace,
                "draining would take longer than 70 % of --termination-grace; --drain-delay and --drain-window are shortened"
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

/// Sends all clients away, evenly over `window`. Until its turn comes each is served, and so is whoever comes
/// meanwhile: where this is the only pod, clients come back to it. Ends early when nobody is left.
pub(crate) async fn send_all_away(window: Duration, hubs: &Hubs, open: &OpenStreams) {
    let end = Instant::now() + window;
    let mut pace = Pace::default();
    loop {
        let here = hubs.connections();
        let now = Instant::now();
        if here == 0 || now >= end {
            return;
        }
        open.send_away(pace.next(here, end - now), End::Draining, None);
        sleep(STEP.min(end - now)).await;
    }
}

/// How many go at each step, so that few clients are spread as well as many.
#[derive(Debug, Default)]
struct Pace {
    /// The part of a client whose turn has come.
    due: f64,
}

impl Pace {
    /// How many of `here` go now, so that the last goes when `left` is over.
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
    fn a_drain_fits_into_what_kubernetes_gives() {
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
    fn clients_go_evenly_and_all_of_them() {
        for clients in [1, 7, 100, 2_000, 20_001] {
            let (mut here, mut left, mut most, mut half) = (clients, Duration::from_secs(10), 0, 0);
            let mut pace = Pace::default();
            while left > Duration::ZERO {
                let go = pace.next(here, left);
                most = most.max(go);
                here -= go;
                left -= STEP;
                if left == Duration::from_secs(5) {
                    half = here;
                }
            }
            assert!(here <= 1, "{here} of {clients}: whoever is left goes with those who came late");
            assert!(most <= clients.div_ceil(100) + 1, "{most} of {clients} at once");
            assert!(
                half.abs_diff(clients / 2) <= clients / 20 + 1,
                "{half} of {clients} after half of the time"
            );
        }
    }
}
