//! Physics shared by the machines. Only additions, products and square roots are used: IEEE 754 defines their
//! results exactly, so the same seed gives the same messages on every computer.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The source of randomness.
pub(crate) type Noise = ChaCha8Rng;

/// Returns the generator for one part of the plant. Each part has its own stream, so that one more draw in
/// one part does not change another.
pub(crate) fn noise(seed: u64, stream: u64) -> Noise {
    let mut noise = ChaCha8Rng::seed_from_u64(seed);
    noise.set_stream(stream);
    noise
}

/// Returns a random number with mean 0 and variance 1, within ±3.47: the sum of four uniform numbers, shifted
/// and scaled.
pub(crate) fn normal(noise: &mut Noise) -> f64 {
    let sum: f64 = (0..4).map(|_| noise.random::<f64>()).sum();
    (sum - 2.0) * 3f64.sqrt()
}

/// Returns a uniformly distributed number from a range.
pub(crate) fn between(noise: &mut Noise, range: (f64, f64)) -> f64 {
    range.0 + (range.1 - range.0) * noise.random::<f64>()
}

/// Moves `value` towards `target` by at most `up` per second upwards and `down` per second downwards, and
/// returns the result.
pub(crate) fn approach(value: f64, target: f64, up: f64, down: f64, dt_s: f64) -> f64 {
    if target > value { (value + up * dt_s).min(target) } else { (value - down * dt_s).max(target) }
}

/// A value that follows another one with a delay (first-order lag), as the temperature of a steel cylinder
/// follows its steam.
#[derive(Debug, Clone)]
pub(crate) struct Lag {
    value: f64,
    tau_s: f64,
}

impl Lag {
    pub(crate) fn new(value: f64, tau_s: f64) -> Self {
        Self { value, tau_s }
    }

    pub(crate) fn step(&mut self, target: f64, dt_s: f64) -> f64 {
        self.value += (target - self.value) * (dt_s / self.tau_s).min(1.0);
        self.value
    }

    pub(crate) fn value(&self) -> f64 {
        self.value
    }
}

/// Correlated noise (an Ornstein-Uhlenbeck process) around zero, limited to three times `spread`.
#[derive(Debug, Clone)]
pub(crate) struct Wander {
    value: f64,
    spread: f64,
    tau_s: f64,
}

impl Wander {
    pub(crate) fn new(spread: f64, tau_s: f64) -> Self {
        Self { value: 0.0, spread, tau_s }
    }

    pub(crate) fn step(&mut self, dt_s: f64, noise: &mut Noise) -> f64 {
        let share = (dt_s / self.tau_s).min(1.0);
        let push = self.spread * (2.0 * share).sqrt() * normal(noise);
        let bound = 3.0 * self.spread;
        self.value = (self.value * (1.0 - share) + push).clamp(-bound, bound);
        self.value
    }

    pub(crate) fn value(&self) -> f64 {
        self.value
    }
}

/// An event that recurs at random intervals.
#[derive(Debug, Clone)]
pub(crate) struct Recurring {
    range_s: (f64, f64),
    left_s: f64,
}

impl Recurring {
    /// The first interval is drawn from `first_s`, later ones from `range_s`, both in seconds.
    pub(crate) fn new(first_s: (f64, f64), range_s: (f64, f64), noise: &mut Noise) -> Self {
        Self { range_s, left_s: between(noise, first_s) }
    }

    /// Advances the time, and returns whether the event occurs now.
    pub(crate) fn step(&mut self, dt_s: f64, noise: &mut Noise) -> bool {
        self.left_s -= dt_s;
        let due = self.left_s <= 0.0;
        if due {
            self.left_s = between(noise, self.range_s);
        }
        due
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Countdown {
    left_s: f64,
}

impl Countdown {
    pub(crate) fn set(&mut self, seconds: f64) {
        self.left_s = seconds;
    }

    pub(crate) fn step(&mut self, dt_s: f64) {
        self.left_s = (self.left_s - dt_s).max(0.0);
    }

    pub(crate) fn runs(&self) -> bool {
        self.left_s > 0.0
    }

    pub(crate) fn left_s(&self) -> f64 {
        self.left_s
    }
}

/// Returns the raw number that a device sends for `value`, in multiples of `unit`.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the model's values are far within i64, and `as` saturates"
)]
pub(crate) fn raw(value: f64, unit: f64) -> i64 {
    (value / unit).round() as i64
}

/// Returns a counter rounded down to completed pieces.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the model's values are far within i64, and `as` saturates"
)]
pub(crate) fn whole(value: f64) -> i64 {
    value.floor() as i64
}
