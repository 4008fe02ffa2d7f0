//! STACK-01: the stacker, whose pile grows until it is removed.

use super::alarm::{Alarm, AlarmNotice, AlarmPanel};
use super::count::Count;
use super::physics::{Countdown, Noise, Recurring, between, noise, raw};

/// The height at which a pile is removed, in millimetres.
const PILE_HEIGHT: f64 = 480.0;
/// The time without blanks after which the stacker is switched off, in seconds.
const OFF_AFTER_S: f64 = 9.0;

#[derive(Debug, Clone)]
pub(crate) struct Stacker {
    noise: Noise,
    count: Count,
    /// In millimetres.
    height: f64,
    piles: i64,
    runs: bool,
    idle_s: f64,
    jams: Recurring,
    jam: Countdown,
    panel: AlarmPanel,
}

impl Stacker {
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = noise(seed, 6);
        Self {
            count: Count::default(),
            height: 0.0,
            piles: 0,
            runs: false,
            idle_s: 0.0,
            jams: Recurring::new((75.0, 105.0), (80.0, 150.0), &mut noise),
            jam: Countdown::default(),
            panel: AlarmPanel::default(),
            noise,
        }
    }

    /// Piles blanks of this thickness (in mm). `fed` is true while the die cutter runs.
    pub(crate) fn step(&mut self, blanks: f64, thickness: f64, fed: bool, dt_s: f64) {
        self.jam.step(dt_s);
        if fed && self.jams.step(dt_s, &mut self.noise) {
            self.jam.set(between(&mut self.noise, (8.0, 14.0)));
        }
        self.runs = fed && !self.jam.runs();
        self.idle_s = if fed || self.jam.runs() { 0.0 } else { self.idle_s + dt_s };
        self.height += self.count.add(blanks, 0.001) * thickness;
        if self.height >= PILE_HEIGHT {
            self.take_pile_away();
        }
    }

    /// Returns the alarm raised or cleared in this step.
    pub(crate) fn alarms(&mut self) -> Option<AlarmNotice> {
        self.panel.update(Alarm::PileJam, self.jam.runs())
    }

    pub(crate) fn start_order(&mut self) {
        self.count = Count::default();
        self.take_pile_away();
    }

    fn take_pile_away(&mut self) {
        if self.height > 0.0 {
            self.piles += 1;
        }
        self.height = 0.0;
    }

    /// Returns whether a jam prevents piling.
    pub(crate) fn jammed(&self) -> bool {
        self.jam.runs()
    }

    pub(crate) fn on(&self) -> bool {
        self.idle_s < OFF_AFTER_S
    }

    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Returns the values of a telemetry message.
    pub(crate) fn telemetry(&self) -> Vec<(&'static str, i64)> {
        vec![("height", raw(self.height, 1.0)), ("pileCount", self.piles), ("st", i64::from(self.runs))]
    }
}
