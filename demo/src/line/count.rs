//! Counts the pieces that a machine makes.

use super::physics::whole;

/// The progress of a machine's order.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    good: f64,
    total: f64,
}

impl Count {
    /// Counts pieces and returns the number of good ones.
    pub(crate) fn add(&mut self, made: f64, waste_share: f64) -> f64 {
        let good = made * (1.0 - waste_share);
        self.total += made;
        self.good += good;
        good
    }

    pub(crate) fn good(self) -> f64 {
        self.good
    }

    pub(crate) fn total(self) -> f64 {
        self.total
    }

    /// Returns the good and total pieces as whole numbers.
    pub(crate) fn pieces(self) -> (i64, i64) {
        (whole(self.good), whole(self.total))
    }
}
