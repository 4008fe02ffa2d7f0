//! The section of `docs/generated/operator-capacity.md`.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::{Case, EnvelopeReport};

/// The lines before and after the section in the page.
const MARKERS: [&str; 2] = ["<!-- envelope: begin -->\n", "<!-- envelope: end -->\n"];
/// The promise, in the words of the page.
const TARGETS: &str = "Promised for 10,000 devices on two processors: mapped within 60 s of the first one's \
 creation, with at most \
2.2 writes for each device, a change served within 1 s (p99), and at most 150 MB of memory.";

/// Replaces the section in a page.
///
/// # Errors
/// Returns an error if the page can't be read or written, or has no markers.
pub fn write_section(page: &Path, section: &str) -> anyhow::Result<()> {
    let name = || page.display().to_string();
    let text = std::fs::read_to_string(page).with_context(name)?;
    let text = replaced(&text, section).with_context(|| format!("{} has no place for it", name()))?;
    std::fs::write(page, text).with_context(name)
}

fn replaced(page: &str, section: &str) -> Option<String> {
    let [begin, end] = MARKERS;
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}{section}{end}{after}"))
}

impl fmt::Display for EnvelopeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, options, cases } = self;
        writeln!(
            f,
            "\
Numbers of one machine at one time, written by a program: `make envelope` measures again and writes this \
section. {TARGETS}

| | |
| --- | --- |
| date | {date} |
| command | `{command}` |
| machine | {processor}, {memory} GiB, {kernel} |
| processors for everything below | {processors} |
| build | {profile} |
| load average before | {load} |

etcd (without fsync), kube-apiserver, nats-server ({nats}), operator, data plane and the sender share these \
processors. The sender
creates the Devices, {at_once} at once, each with two channels. They never send anything, so each status is \
written twice: that the Device is Ready
(the data plane confirms it), and after its `staleAfter` that it is Silent. Then the sender changes \
{changes} of them, one after the other.
",
            date = machine.date,
            command = options.command,
            processor = machine.processor,
            memory = machine.memory_gib,
            kernel = machine.kernel,
            processors = machine.processors,
            profile = machine.profile,
            load = machine.load,
            nats = machine.nats_server,
            at_once = options.at_once,
            changes = options.changes,
        )?;
        for (name, cell) in rows() {
            write!(f, "| {name} |")?;
            for case in cases {
                write!(f, " {} |", cell(case))?;
            }
            writeln!(f)?;
            if name == rows()[0].0 {
                writeln!(f, "| --- |{}", " ---: |".repeat(cases.len()))?;
            }
        }
        Ok(())
    }
}

type Cell = fn(&Case) -> String;

/// The lines of the table: one for each number, one column for each size.
fn rows() -> [(&'static str, Cell); 12] {
    [
        ("devices (tenants)", |case| format!("{} ({})", case.size.devices, case.size.tenants)),
        ("created by the sender after", |case| {
            format!("{}, {:.0}/s", seconds(case.created.took), case.created.rate())
        }),
        ("all in the mapping after", |case| seconds(case.mapped)),
        ("… after the last one's creation", |case| seconds(case.mapped.saturating_sub(case.created.took))),
        ("all Ready after", |case| seconds(case.ready)),
        ("writes for each device", |case| {
            let each = |what| ratio(case.writes.of(what), case.size.devices);
            format!(
                "{:.2} (its status {:.2}, other statuses {:.2}, mapping {:.2}, events {:.2})",
                ratio(case.writes.total(), case.size.devices),
                each("device status"),
                each("other status"),
                each("mapping"),
                each("events"),
            )
        }),
        ("operator's processor time until all were Ready and Silent", |case| seconds(case.cpu)),
        ("operator's memory at most", |case| megabytes(case.peak_kib[0])),
        ("… after a restart", |case| megabytes(case.peak_kib[1])),
        ("a change until the data plane serves it: median, p99, longest", |case| {
            let changes = &case.changes;
            [changes.median(), changes.p99(), changes.longest()].map(millis).join(", ")
        }),
        ("restart until the first reconcile; writes after it", |case| {
            format!("{}; {}", seconds(case.restart), case.writes_after_restart)
        }),
        ("data plane's memory", |case| megabytes(case.dataplane_kib)),
    ]
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// In the unit of the promise: a million bytes.
#[allow(clippy::cast_precision_loss, reason = "kibibytes of a process")]
fn megabytes(kib: u64) -> String {
    format!("{:.0} MB", kib as f64 * 1024.0 / 1e6)
}

#[allow(clippy::cast_precision_loss, reason = "a count of writes")]
fn ratio(count: u64, devices: u32) -> f64 {
    count as f64 / f64::from(devices)
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn only_the_section_is_replaced() {
        let page = "# a\n<!-- envelope: begin -->\nold\n<!-- envelope: end -->\nb\n";
        let new = replaced(page, "new\n").unwrap();
        assert_eq!(new, "# a\n<!-- envelope: begin -->\nnew\n<!-- envelope: end -->\nb\n");
        assert_eq!(replaced(&new, "old\n").unwrap(), page);
        assert_eq!(replaced("# a\n", "new\n"), None);
    }
}
