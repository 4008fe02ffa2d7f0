//! A machine's main drive, with power, speed ramps and standstill.

use super::physics::approach;

/// The limits of a drive. Speeds are in the machine's own unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DriveLimits {
    /// Acceleration per second.
    pub(crate) up_per_s: f64,
    /// Normal deceleration per second.
    pub(crate) down_per_s: f64,
    /// Deceleration of an emergency stop, per second.
    pub(crate) emergency_per_s: f64,
    /// The standstill after which the drive is switched off, in seconds.
    pub(crate) off_after_s: f64,
    /// The time from switching on to the first movement, in seconds.
    pub(crate) warm_up_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Demand {
    /// Run at this speed.
    Run(f64),
    /// Stop with the normal deceleration.
    Stop,
    /// Stop with the deceleration of an emergency stop.
    EmergencyStop,
}

#[derive(Debug, Clone)]
pub(crate) struct Drive {
    limits: DriveLimits,
    on: bool,
    speed: f64,
    standstill_s: f64,
    warm_up_left_s: f64,
}

impl Drive {
    /// Returns a drive that is on and stands still.
    pub(crate) fn new(limits: DriveLimits) -> Self {
        Self { limits, on: true, speed: 0.0, standstill_s: 0.0, warm_up_left_s: limits.warm_up_s }
    }

    pub(crate) fn on(&self) -> bool {
        self.on
    }

    pub(crate) fn speed(&self) -> f64 {
        self.speed
    }

    pub(crate) fn stands(&self) -> bool {
        self.speed <= 0.0
    }

    pub(crate) fn step(&mut self, demand: Demand, dt_s: f64) {
        let (target, down) = match demand {
            Demand::Run(speed) => (speed, self.limits.down_per_s),
            Demand::Stop => (0.0, self.limits.down_per_s),
            Demand::EmergencyStop => (0.0, self.limits.emergency_per_s),
        };
        if target > 0.0 && !self.on {
            self.on = true;
            self.warm_up_left_s = self.limits.warm_up_s;
        }
        self.warm_up_left_s = (self.warm_up_left_s - dt_s).max(0.0);
        let reachable = if self.on && self.warm_up_left_s <= 0.0 { target } else { 0.0 };
        self.speed = approach(self.speed, reachable, self.limits.up_per_s, down, dt_s);
        if target > 0.0 || self.speed > 0.0 {
            self.standstill_s = 0.0;
        } else {
            self.standstill_s += dt_s;
        }
        if self.standstill_s >= self.limits.off_after_s {
            self.on = false;
        }
    }
}
