//! The production orders of the line.

use rand::RngExt;

use super::physics::{Noise, between, noise};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// The order number, without its letter.
    pub(crate) number: u32,
    /// The board it needs, in linear metres. Short, so that a viewer sees orders change.
    pub(crate) metres: f64,
    /// The production speed for this paper, in m/min.
    pub(crate) speed: f64,
    /// Number of sheets side by side on the web.
    pub(crate) outs: u32,
    /// The printer's speed, in sheets/h.
    pub(crate) print_speed: f64,
    /// The thickness of the board, in millimetres.
    pub(crate) thickness: f64,
    /// The width trimmed off each side of the web, in millimetres.
    pub(crate) trim: f64,
}

impl Order {
    /// Returns the order number with its letter.
    pub(crate) fn name(&self) -> String {
        format!("A-{}", self.number)
    }

    /// Returns the number of slitter knives: one between each two adjacent sheets, and one for each trim.
    pub(crate) fn knives(&self) -> u32 {
        self.outs + 1
    }
}

/// Generates orders.
#[derive(Debug, Clone)]
pub(crate) struct OrderBook {
    next_number: u32,
    noise: Noise,
}

impl OrderBook {
    pub(crate) fn new(seed: u64) -> Self {
        let mut noise = noise(seed, 1);
        Self { next_number: 1000 + noise.random_range(0..400), noise }
    }

    /// Returns the next order, with a length from the range `metres`.
    pub(crate) fn next(&mut self, metres: (f64, f64)) -> Order {
        let noise = &mut self.noise;
        let order = Order {
            number: self.next_number,
            metres: between(noise, metres).round(),
            speed: between(noise, (165.0, 255.0)).round(),
            outs: noise.random_range(2..=5),
            print_speed: between(noise, (7200.0, 10_400.0)).round(),
            thickness: between(noise, (2.8, 5.0)),
            trim: between(noise, (12.0, 24.0)),
        };
        self.next_number += noise.random_range(1..=4);
        order
    }
}
