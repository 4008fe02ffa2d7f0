//! The measurements of `bench/`, on real parts.

mod fleet;
mod latency;
mod whole_way;
