//! The few laws that the machines share. Only additions, products and square roots, whose results IEEE 754
//! fixes: the same seed gives the same messages on every machine.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The source of randomness.
pub(crate) type Noise = ChaCha8Rng;

/// A generator for one part of the plant. Parts have streams of their own, so that one more draw in one part
/// doesn't change what happens in another.
pub(crate) fn noise(seed: u64, stream: u64) -> Noise {
    let mut noise = ChaCha8Rng::seed_from_u64(seed);
    noise.set_stream(stream);
    noise
}

/// A random number with mean 0 and variance 1 that never leaves ±3.47: the sum of four uniform numbers,
/// shifted and scaled.
pub(crate) fn normal(noise: &mut Noise) -> f64 {
    let sum: f64 = (0..4).map(|_| noise.random::<f64>()).sum();
    (sum - 2.0) * 3f64.sqrt()
}

/// A number drawn evenly from a range.
pub(crate) fn between(noise: &mut Noise, range: (f64, f64)) -> f64 {
    range.0 + (range.1 - range.0) * noise.random::<f64>()
}

/// `value` on its way to `target`, by at most `up` a second upwards and `down` a second downwards.
pub(crate) fn approach(value: f64, target: f64, up: f64, down: f64, dt_s: f64) -> f64 {
    if target > value { (value + up * dt_s).min(target) } else { (value - down * dt_s).max(target) }
}

/// A value that follows another one with a delay, as the temperature of a steel cylinder follows the steam in
/// it.
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

/// Noise with a memory (an Ornstein-Uhlenbeck process): it wanders about zero and is never further than three
/// times `spread`.
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

/// Something that happens again and again, after a random time each.
#[derive(Debug, Clone)]
pub(crate) struct Recurring {
    range_s: (f64, f64),
    left_s: f64,
}

impl Recurring {
    /// The first time after `first_s` seconds (a range too), later ones after `range_s`.
    pub(crate) fn new(first_s: (f64, f64), range_s: (f64, f64), noise: &mut Noise) -> Self {
        Self { range_s, left_s: between(noise, first_s) }
    }

    /// Returns whether it happens now.
    pub(crate) fn step(&mut self, dt_s: f64, noise: &mut Noise) -> bool {
        self.left_s -= dt_s;
        let due = self.left_s <= 0.0;
        if due {
            self.left_s = between(noise, self.range_s);
        }
        due
    }
}

/// A time that runs down once it is set.
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

/// The raw number that a device sends for `value`: a count of `unit`s.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the model's values are far within i64, and `as` saturates"
)]
pub(crate) fn raw(value: f64, unit: f64) -> i64 {
    (value / unit).round() as i64
}

/// A counter as a whole number: what has been completed.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the model's values are far within i64, and `as` saturates"
)]
pub(crate) fn whole(value: f64) -> i64 {
    value.floor() as i64
}
