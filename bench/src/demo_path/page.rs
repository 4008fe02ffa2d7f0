//! The page `docs/performance.md`.

use std::fmt;

use super::memory::IDLE_CLIENTS;
use super::rates::Verdict;
use super::{DemoPathReport, FAN_OUT_RATE, USUAL_RATE};
use crate::latency::{LatencyReport, PathReport, millis};

impl fmt::Display for DemoPathReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, options, memory, usual, fan_out, rates } = self;
        writeln!(
            f,
            "\
# Performance

Numbers of one machine at one time, written by a program: `make bench` measures again and writes this page.

| | |
| --- | --- |
| date | {date} |
| command | `{command}` |
| machine | {processor}, {processors} processors, {memory} GiB, {kernel} |
| nats-server | {nats}, JetStream on file storage |
| build | {profile} |
| load average before | {load} |

Everything runs on this one machine and talks over loopback: nats-server, operator, data plane, the sender \
and all clients. So the
numbers are no promise for a network, and at high rates sender and clients take processor time from what is \
measured.",
            date = machine.date,
            command = options.command,
            processor = machine.processor,
            processors = machine.processors,
            memory = machine.memory_gib,
            kernel = machine.kernel,
            nats = machine.nats_server,
            profile = machine.profile,
            load = machine.load,
        )?;
        writeln!(
            f,
            "
## Latency at {USUAL_RATE} messages/s

{devices} devices send {USUAL_RATE} messages/s over NATS; one SSE client watches them all. A message is \
published, stored by JetStream,
republished, formatted (seven fields) and pushed. A plain NATS subscriber to the republished subjects sees \
the same messages: that is
what the broker alone costs. All numbers are from one process with one clock, publish to receipt.
",
            devices = options.devices,
        )?;
        latency_table(f, usual)?;
        let lost = if usual.complete() { "No message was lost." } else { "Messages were lost." };
        writeln!(
            f,
            "\nThe median is {:.2} times that of the broker alone. {lost} The sender was late by {} at most.",
            usual.median_ratio(),
            millis(usual.sender_behind_us)
        )?;
        self.memory_section(f, usual, memory)?;
        fan_out_section(f, fan_out)?;
        self.rates_section(f, rates)
    }
}

impl DemoPathReport {
    fn memory_section(
        &self,
        f: &mut fmt::Formatter<'_>,
        usual: &LatencyReport,
        memory: &super::MemoryReport,
    ) -> fmt::Result {
        let [nats, dataplane, operator] = memory.at_rest;
        let [few, many] = memory.with_clients;
        let after: Vec<String> = usual.processes.iter().map(|process| mib(process.rss_kib)).collect();
        writeln!(
            f,
            "
## Memory

Resident memory ({devices} devices). Each idle client watches one silent device.

| process | at rest | {few_clients} idle clients | {many_clients} idle clients | after {USUAL_RATE} \
messages/s |
| --- | ---: | ---: | ---: | ---: |
| nats-server | {nats} | | | {nats_after} |
| data plane | {dataplane} | {few} | {many} | {dataplane_after} |
| operator | {operator} | | | {operator_after} |

One idle client costs the data plane {per_client:.1} KiB (the difference between {few_clients} and \
{many_clients} clients), without the kernel's
socket buffers.",
            devices = self.options.devices,
            few_clients = IDLE_CLIENTS[0],
            many_clients = IDLE_CLIENTS[1],
            nats = mib(nats),
            dataplane = mib(dataplane),
            operator = mib(operator),
            few = mib(few),
            many = mib(many),
            nats_after = after.first().map_or("", String::as_str),
            dataplane_after = after.get(1).map_or("", String::as_str),
            operator_after = after.get(2).map_or("", String::as_str),
            per_client = memory.per_client_kib(),
        )
    }

    fn rates_section(&self, f: &mut fmt::Formatter<'_>, rates: &[super::RateStep]) -> fmt::Result {
        writeln!(
            f,
            "
## Higher rates

One client on all {devices} devices gets every message; the rate climbs until messages are missing or the \
99th percentile is above 50 ms.

| messages/s | median | p99 | broker alone, p99 | data plane, processor time a message | |
| ---: | ---: | ---: | ---: | ---: | --- |",
            devices = self.options.devices,
        )?;
        for super::RateStep { report, verdict } in rates {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} |",
                report.rate,
                millis(report.sse.median_us),
                millis(report.sse.p99_us),
                millis(report.broker.p99_us),
                dataplane_cpu_us(report).map_or_else(String::new, |us| format!("{us:.0} µs")),
                verdict.words()
            )?;
        }
        if let Some(step) = rates.iter().rfind(|step| step.verdict == Verdict::Sustained) {
            let more = if step.report.rate == rates.last().map_or(0, |last| last.report.rate) {
                "; higher ones were not tried"
            } else {
                ""
            };
            writeln!(f, "\nThe highest rate that was sustained is {} messages/s{more}.", step.report.rate)?;
        }
        Ok(())
    }
}

fn latency_table(f: &mut fmt::Formatter<'_>, report: &LatencyReport) -> fmt::Result {
    writeln!(f, "| path | messages | median | p90 | p99 | max |")?;
    writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
    for (name, path) in [("device → SSE client", &report.sse), ("device → NATS subscriber", &report.broker)]
    {
        let PathReport { received, median_us, p90_us, p99_us, max_us, .. } = path;
        let times = [median_us, p90_us, p99_us, max_us].map(|us| millis(*us)).join(" | ");
        writeln!(f, "| {name} | {received} | {times} |")?;
    }
    Ok(())
}

fn fan_out_section(f: &mut fmt::Formatter<'_>, reports: &[LatencyReport]) -> fmt::Result {
    writeln!(
        f,
        "
## Many clients

{FAN_OUT_RATE} messages/s; each client watches all devices, so the data plane delivers {FAN_OUT_RATE} \
events/s to each of them. The kernel counts
processor time in steps of 10 ms, so the first line is rough.

| clients | events/s | missing | median | p99 | data plane, processor time an event | data plane, memory |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    )?;
    for report in reports {
        let sse = &report.sse;
        writeln!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} |",
            sse.clients,
            u64::from(report.rate) * sse.clients as u64,
            sse.expected - sse.received.min(sse.expected),
            millis(sse.median_us),
            millis(sse.p99_us),
            dataplane_cpu_us(report).map_or_else(String::new, |us| format!("{us:.1} µs")),
            report.processes.get(1).map_or_else(String::new, |process| mib(process.rss_kib))
        )?;
    }
    Ok(())
}

/// The data plane's processor time for each event that it delivered.
#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn dataplane_cpu_us(report: &LatencyReport) -> Option<f64> {
    let process = report.processes.get(1)?;
    let events = report.sse.received as f64;
    (events > 0.0).then(|| process.cpu_s * 1e6 / events)
}

#[allow(clippy::cast_precision_loss, reason = "kibibytes of a process")]
fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
