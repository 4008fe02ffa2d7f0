//! Building blocks of the metrics. Each module that counts something has a struct of metrics of its own, with
//! a method `register`; [`mod@crate::run`] collects them.

mod label;
mod queue;

use prometheus_client::metrics::gauge::Gauge;

pub(crate) use self::label::{
    CallResult, ClosedSet, ResultLabels, closed_set, pairs, with_all_labels, with_labels,
};
pub(crate) use self::queue::QueueLength;

/// Sets a gauge to a number of things.
pub(crate) fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
