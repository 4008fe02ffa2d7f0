//! The measurements of `bench/` on real components.

mod fleet;
mod latency;
mod whole_way;
