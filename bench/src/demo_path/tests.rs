//! Verdicts on rates, and the page, from numbers that are known.

use std::time::Duration;

use super::rates::Verdict;
use super::{DemoPathOptions, DemoPathReport, Machine, MemoryReport, RateStep};
use crate::latency::{LatencyReport, PathReport, ProcessReport};

fn path(expected: u64, received: u64, p99_us: u64) -> PathReport {
    PathReport { clients: 1, expected, received, median_us: 500, p90_us: 700, p99_us, max_us: p99_us }
}

fn process(name: &str, cpu_s: f64) -> ProcessReport {
    ProcessReport { pid: 7, name: name.to_owned(), rss_kib: 10 * 1024, cpu_s }
}

fn report(rate: u32) -> LatencyReport {
    let sent = u64::from(rate);
    LatencyReport {
        rate,
        sent_rate: f64::from(rate),
        sender_behind_us: 1500,
        devices: 100,
        sse: path(sent, sent, 2000),
        broker: PathReport { median_us: 250, ..path(sent, sent, 1000) },
        strange_events: 0,
        processes: vec![
            process("nats-server", 0.5),
            process("flutecast-dataplane", 0.02),
            process("operator", 0.0),
        ],
    }
}

fn step(report: LatencyReport) -> RateStep {
    let verdict = Verdict::of(&report);
    RateStep { report, verdict }
}

#[test]
fn a_rate_is_sustained_when_everything_arrives_soon() {
    assert_eq!(Verdict::of(&report(1000)), Verdict::Sustained);
    let late = LatencyReport { sse: path(1000, 1000, 50_001), ..report(1000) };
    assert_eq!(Verdict::of(&late), Verdict::Queues);
    let missing = LatencyReport { sse: path(1000, 999, 2000), ..report(1000) };
    assert_eq!(Verdict::of(&missing), Verdict::ClientMisses);
    // What the broker never had is not the client's loss.
    let dropped = LatencyReport { broker: path(1000, 998, 1000), sse: path(1000, 998, 2000), ..report(1000) };
    assert_eq!(Verdict::of(&dropped), Verdict::BrokerLoses);
    let weak = LatencyReport { sent_rate: 960.0, sse: path(1000, 900, 2000), ..report(1000) };
    assert_eq!(Verdict::of(&weak), Verdict::SenderTooSlow);
}

fn page(rates: Vec<RateStep>) -> String {
    let machine = Machine {
        date: "2026-11-23".to_owned(),
        processor: "Abacus".to_owned(),
        processors: 4,
        memory_gib: 16,
        kernel: "Linux 6".to_owned(),
        nats_server: "v2.15.2".to_owned(),
        profile: "release",
        load: "0.10".to_owned(),
    };
    let options =
        DemoPathOptions { devices: 100, duration: Duration::from_secs(1), command: "make bench".to_owned() };
    let memory = MemoryReport { at_rest: [16 * 1024, 10 * 1024, 15 * 1024], with_clients: [12_000, 30_000] };
    DemoPathReport { machine, options, memory, usual: report(1000), fan_out: vec![report(100)], rates }
        .to_string()
}

#[test]
fn the_page_says_what_was_measured() {
    let missing = LatencyReport { sse: path(5000, 4000, 2000), ..report(5000) };
    let page = page(vec![step(report(2000)), step(missing)]);
    for expected in [
        "| machine | Abacus, 4 processors, 16 GiB, Linux 6 |",
        "| device → SSE client | 1000 | 0.50 ms | 0.70 ms | 2.00 ms | 2.00 ms |",
        "The median is 2.00 times that of the broker alone. No message was lost.",
        "One idle client costs the data plane 20.0 KiB",
        "| 1 | 100 | 0 | 0.50 ms | 2.00 ms | 200.0 µs | 10.0 MiB |",
        "| 2000 | 0.50 ms | 2.00 ms | 1.00 ms | 10 µs | sustained |",
        "| 5000 | 0.50 ms | 2.00 ms | 1.00 ms | 5 µs | messages are missing at the client |",
        "The highest rate that was sustained is 2000 messages/s.",
    ] {
        assert!(page.contains(expected), "{expected:?} is not in the page:\n{page}");
    }
}

#[test]
fn a_rate_that_was_not_exceeded_is_no_limit() {
    assert!(page(vec![step(report(2000))]).contains("2000 messages/s; higher ones were not tried."));
}
