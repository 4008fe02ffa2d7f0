//! The report of a fleet, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The sums over all clients. Times are in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FleetReport {
    pub clients: usize,
    /// Number of clients that have a stream with a `hello` now.
    pub connected: usize,
    /// Number of connected clients by server, as named in `hello`.
    pub servers: BTreeMap<String, usize>,
    /// Number of clients that gave up, as an `EventSource` does after a response that is no event stream.
    pub failed: usize,
    /// Number of times that a stream began with `hello`, all clients together.
    pub welcomes: u64,
    /// Number of times that the server ended a stream, by the reason of its `bye`.
    pub byes: BTreeMap<String, u64>,
    /// Number of times that a stream broke off or ended without `bye`.
    pub breaks: u64,
    /// Number of times that no connection could be made, or no answer came.
    pub unreachable: u64,
    /// Returns that were no event stream, by status.
    pub bad_answers: BTreeMap<u16, u64>,
    /// Number of times that a client gave a silent stream up.
    pub silent: u64,
    /// Data events.
    pub events: u64,
    /// Data events that were there before and were merged away.
    pub merged: u64,
    /// Messages of `Every` channels that are missing between two that came.
    pub lost: u64,
    /// Messages of `Every` channels that came twice or too late, and that merging did not find.
    pub wrong: u64,
    /// Data events that could not be understood.
    pub strange: u64,
    /// `gap` events, by reason.
    pub gaps: BTreeMap<String, u64>,
    /// The newest number of each `Every` channel that any client has, and how many clients of the channel
    /// have an older one.
    pub newest: BTreeMap<String, Newest>,
    /// The longest time without new data of each client, from its first data on.
    pub without_data: Spread,
    /// The longest time without a stream of each client, from the end of one to the `hello` of the next.
    pub without_stream: Spread,
    /// Number of reconnects of the client that had most.
    pub most_reconnects: u64,
    /// The resident memory of this process in KiB.
    pub memory_kib: u64,
}

/// The newest number of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Newest {
    /// The number.
    pub number: u64,
    /// Number of the channel's clients that don't have it yet.
    pub behind: usize,
}

/// The distribution of a time over the clients, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Half of the clients had at most this.
    pub p50_ms: u64,
    /// 99 % of the clients had at most this.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Spread {
    pub(super) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).copied().unwrap_or(0)
        };
        Self { p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_read_from_the_sorted_times() {
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        assert_eq!(Spread::of((1..=200).rev().collect()), Spread { p50_ms: 100, p99_ms: 198, max_ms: 200 });
        assert_eq!(Spread::of(vec![7]), Spread { p50_ms: 7, p99_ms: 7, max_ms: 7 });
    }
}
