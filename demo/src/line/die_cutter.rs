//! DIE-01: the die cutter, which follows the printer's speed.

use super::count::Count;
use super::drive::{Demand, Drive, DriveLimits};
use super::physics::{Noise, Wander, noise, raw};

/// Speeds in strokes/min.
const LIMITS: DriveLimits = DriveLimits {
    up_per_s: 32.0,
    down_per_s: 55.0,
    emergency_per_s: 110.0,
    off_after_s: 3.0,
    warm_up_s: 0.8,
};

#[derive(Debug, Clone)]
pub(crate) struct DieCutter {
    noise: Noise,
    drive: Drive,
    count: Count,
    pressure: Wander,
}

impl DieCutter {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            noise: noise(seed, 5),
            drive: Drive::new(LIMITS),
            count: Count::default(),
            pressure: Wander::new(1.6, 2.0),
        }
    }

    /// Advances the machine, cuts up to `printed` good sheets and returns the good blanks of this step.
    pub(crate) fn step(&mut self, demand: Demand, printed: f64, dt_s: f64) -> f64 {
        self.pressure.step(dt_s, &mut self.noise);
        self.drive.step(demand, dt_s);
        let ready = (printed - self.count.total()).max(0.0);
        let fed = ready.min(self.drive.speed() / 60.0 * dt_s);
        self.count.add(fed, 0.006)
    }

    pub(crate) fn start_order(&mut self) {
        self.count = Count::default();
    }

    pub(crate) fn on(&self) -> bool {
        self.drive.on()
    }

    pub(crate) fn stands(&self) -> bool {
        self.drive.stands()
    }

    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Returns the values of a telemetry message.
    pub(crate) fn telemetry(&self) -> Vec<(&'static str, i64)> {
        let stands = self.drive.stands();
        let pressure = if stands { 0.0 } else { 165.0 + 0.12 * self.drive.speed() + self.pressure.value() };
        vec![
            ("strokes", raw(self.drive.speed(), 1.0)),
            ("pressure", raw(pressure, 0.1)),
            ("st", i64::from(!stands)),
        ]
    }
}
