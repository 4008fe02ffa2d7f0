//! The report of a fleet, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Totals over all clients. Times are in milliseconds.
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
    /// Number of `hello` events.
    pub welcomes: u64,
    /// Number of `bye` events, by reason.
    pub byes: BTreeMap<String, u64>,
    /// Number of streams that broke or ended without `bye`.
    pub breaks: u64,
    /// Number of failed connections, and of requests without a response.
    pub unreachable: u64,
    /// Number of responses that were not an event stream, by status.
    pub bad_answers: BTreeMap<u16, u64>,
    /// Number of streams that clients closed because they were silent.
    pub silent: u64,
    /// Number of data events.
    pub events: u64,
    /// Number of repeated data events, which merging removed.
    pub merged: u64,
    /// Number of missing messages of `Every` channels, counted between two that arrived.
    pub lost: u64,
    /// Number of messages of `Every` channels that arrived twice or too late and that merging did not
    /// recognize.
    pub wrong: u64,
    /// Number of invalid data events.
    pub strange: u64,
    /// Number of `gap` events, by reason.
    pub gaps: BTreeMap<String, u64>,
    /// The newest number of each `Every` channel that any client has, and how many clients of the channel
    /// have an older one.
    pub newest: BTreeMap<String, Newest>,
    /// For each client the longest time without new data, from its first data event on.
    pub without_data: Spread,
    /// For each client the longest time from the end of a stream to the `hello` of the next.
    pub without_stream: Spread,
    /// The highest number of reconnects of a client.
    pub most_reconnects: u64,
    /// The resident memory of this process in KiB.
    pub memory_kib: u64,
}

/// The newest number of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Newest {
    pub number: u64,
    /// Number of the channel's clients that don't have it yet.
    pub behind: usize,
}

/// The distribution of a time over the clients, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The median.
    pub p50_ms: u64,
    /// The 99th percentile.
    pub p99_ms: u64,
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
