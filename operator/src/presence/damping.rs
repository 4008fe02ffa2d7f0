//! Limits the reports of changes. Does no I/O.

use std::time::Duration;

use tokio::time::Instant;

use crate::rate_limit::Rate;

/// The shortest time between two reported changes of one device.
pub(super) const MIN_HOLD: Duration = Duration::from_secs(10);
/// The longest hold. A device that was stable for this long after its hold begins with [`MIN_HOLD`] again.
pub(super) const MAX_HOLD: Duration = Duration::from_secs(600);
/// Reported changes of all devices.
pub(super) const CHANGES: Rate = Rate::per_second(100, 200);
/// Events about presence.
pub(super) const EVENTS: Rate = Rate { interval: Duration::from_secs(2), burst: 50 };

/// Damps the reports of one device that flaps: each reported change doubles the hold until the next one.
#[derive(Debug, Clone, Default)]
pub(super) struct FlapDamping(Option<(Instant, Duration)>);

impl FlapDamping {
    /// Returns when the next change may be reported; `None` if at any time.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.0.map(|(reported, hold)| reported + hold)
    }

    /// Notes that a change is reported now.
    pub(super) fn reported(&mut self, now: Instant) {
        let hold = match self.0 {
            Some((reported, hold)) if now < reported + hold + MAX_HOLD => (hold * 2).min(MAX_HOLD),
            Some(_) | None => MIN_HOLD,
        };
        self.0 = Some((now, hold));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_device_is_reported_ever_more_seldom() {
        let start = Instant::now();
        let mut damping = FlapDamping::default();
        let mut now = start;
        let mut reported = Vec::new();
        while now < start + Duration::from_secs(3600) {
            if damping.held_until().is_none_or(|earliest| earliest <= now) {
                damping.reported(now);
                reported.push((now - start).as_secs());
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(reported, [0, 10, 30, 70, 150, 310, 630, 1230, 1830, 2430, 3030]);
    }
}
