//! SLIT-01: the slitter-scorer, which runs at the speed of the corrugator's web.

use super::corrugator::Corrugator;
use super::drive::{Demand, Drive, DriveLimits};
use super::physics::{Noise, Wander, noise, raw};

const LIMITS: DriveLimits = DriveLimits {
    // Faster than any speed change of the web, so that the slitter can follow it.
    up_per_s: 80.0,
    down_per_s: 80.0,
    emergency_per_s: 80.0,
    off_after_s: 5.0,
    warm_up_s: 0.4,
};

#[derive(Debug, Clone)]
pub(crate) struct Slitter {
    noise: Noise,
    drive: Drive,
    speed_noise: Wander,
    edge: Wander,
    knives: u32,
    trim: f64,
    state: i64,
}

impl Slitter {
    pub(crate) fn new(seed: u64, corrugator: &Corrugator) -> Self {
        Self {
            noise: noise(seed, 3),
            drive: Drive::new(LIMITS),
            speed_noise: Wander::new(0.2, 1.0),
            edge: Wander::new(1.1, 6.0),
            knives: corrugator.order().knives(),
            trim: corrugator.order().trim,
            state: corrugator.state(),
        }
    }

    pub(crate) fn on(&self) -> bool {
        self.drive.on()
    }

    pub(crate) fn step(&mut self, corrugator: &Corrugator, dt_s: f64) {
        let web = corrugator.speed();
        self.speed_noise.step(dt_s, &mut self.noise);
        self.edge.step(dt_s, &mut self.noise);
        self.drive.step(if web > 0.0 { Demand::Run(web) } else { Demand::Stop }, dt_s);
        self.knives = corrugator.order().knives();
        self.trim = corrugator.order().trim;
        self.state = corrugator.state();
    }

    /// Returns the values of a telemetry message. The web drifts sideways: one trim gains as much as the
    /// other loses.
    pub(crate) fn telemetry(&self) -> Vec<(&'static str, i64)> {
        let stands = self.drive.stands();
        let speed = if stands { 0.0 } else { (self.drive.speed() + self.speed_noise.value()).max(0.0) };
        let edge = if stands { 0.0 } else { self.edge.value() };
        vec![
            ("speed", raw(speed, 0.1)),
            ("knives", i64::from(self.knives)),
            ("trimLeft", raw(self.trim + edge, 0.1)),
            ("trimRight", raw(self.trim - edge, 0.1)),
            ("st", self.state),
        ]
    }
}
