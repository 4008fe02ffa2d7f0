//! The steam system of the corrugator: a header and three consumers, whose steel heats and cools slowly.

use super::physics::{Countdown, Lag, Noise, Recurring, Wander, approach, between};

/// The header's set point, in bar (gauge).
const SET_POINT: f64 = 11.0;
/// The pressure at the double backer below which the board does not bond and the alarm is raised.
const LOW: f64 = 8.5;
/// The pressure above which the alarm is cleared.
const RECOVERED: f64 = 9.2;

/// One consumer of steam: a heated cylinder or plate.
#[derive(Debug, Clone)]
struct Consumer {
    /// The pressure lost in the pipe from the header, in bar.
    loss: f64,
    /// The cooling by the paper, in °C for each m/min.
    cooling: f64,
    pressure_noise: Wander,
    temperature: Lag,
}

impl Consumer {
    fn new(loss: f64, cooling: f64) -> Self {
        Self {
            loss,
            cooling,
            pressure_noise: Wander::new(0.03, 1.0),
            temperature: Lag::new(saturation(SET_POINT - loss), 25.0),
        }
    }

    fn pressure(&self, header: f64) -> f64 {
        header + self.pressure_noise.value() - self.loss
    }
}

/// The header and, in this order, pre-heater 1, pre-heater 2 and double backer.
#[derive(Debug, Clone)]
pub(crate) struct Steam {
    header: f64,
    target: f64,
    dips: Recurring,
    dip: Countdown,
    wander: Wander,
    consumers: [Consumer; 3],
    low: bool,
}

impl Steam {
    pub(crate) fn new(noise: &mut Noise) -> Self {
        Self {
            header: SET_POINT,
            target: SET_POINT,
            dips: Recurring::new((45.0, 75.0), (120.0, 200.0), noise),
            dip: Countdown::default(),
            wander: Wander::new(0.12, 8.0),
            consumers: [Consumer::new(0.2, 0.030), Consumer::new(0.5, 0.035), Consumer::new(0.9, 0.045)],
            low: false,
        }
    }

    pub(crate) fn step(&mut self, speed: f64, dt_s: f64, noise: &mut Noise) {
        if self.dips.step(dt_s, noise) {
            self.target = between(noise, (7.4, 8.4));
            self.dip.set(between(noise, (12.0, 20.0)));
        }
        self.dip.step(dt_s);
        if !self.dip.runs() {
            self.target = SET_POINT;
        }
        self.header = approach(self.header, self.target, 0.35, 0.8, dt_s);
        let header = self.header + self.wander.step(dt_s, noise);
        for consumer in &mut self.consumers {
            consumer.pressure_noise.step(dt_s, noise);
            let warm = saturation(consumer.pressure(header)) - consumer.cooling * speed;
            consumer.temperature.step(warm, dt_s);
        }
        let [_, _, double_backer] = self.pressures();
        self.low = if self.low { double_backer < RECOVERED } else { double_backer < LOW };
    }

    /// Returns the pressures at the consumers, in bar.
    pub(crate) fn pressures(&self) -> [f64; 3] {
        let header = self.header + self.wander.value();
        self.consumers.each_ref().map(|consumer| consumer.pressure(header))
    }

    /// Returns the temperatures of the consumers, in °C.
    pub(crate) fn temperatures(&self) -> [f64; 3] {
        self.consumers.each_ref().map(|consumer| consumer.temperature.value())
    }

    /// Returns whether the steam is insufficient to bond the board at full speed.
    pub(crate) fn low(&self) -> bool {
        self.low
    }
}

/// Returns the temperature of saturated steam in °C at a gauge pressure in bar: about 100 · p^¼ (p absolute),
/// accurate to 2 °C from 1 to 20 bar.
fn saturation(gauge_bar: f64) -> f64 {
    100.0 * (gauge_bar.max(0.0) + 1.0).sqrt().sqrt()
}
