//! Memory and processor time of a process, from `/proc`.

use std::time::Duration;

use anyhow::Context as _;

/// The clock ticks of `/proc/<pid>/stat` in a second. Linux shows user space this number on every
/// architecture that Rust knows (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Memory and processor time of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStats {
    /// Its name.
    pub name: String,
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// The most resident memory that it ever had, in KiB.
    pub peak_kib: u64,
    /// Processor time, in user space and in the kernel.
    pub cpu: Duration,
}

impl ProcessStats {
    /// Reads them.
    ///
    /// # Errors
    /// Returns an error if there is no such process, or no `/proc`.
    pub fn read(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            std::fs::read_to_string(&path).with_context(|| path)
        };
        let status = read("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim).with_context(|| format!("no {name} in the status of {pid}"))
        };
        let kib = |name: &str| {
            let kib = field(name)?.trim_end_matches(" kB").trim().parse::<u64>();
            kib.with_context(|| name.to_owned())
        };
        Ok(Self {
            name: field("Name")?.to_owned(),
            rss_kib: kib("VmRSS")?,
            peak_kib: kib("VmHWM")?,
            cpu: cpu(&read("stat")?)?,
        })
    }
}

/// The processor time in a line of `/proc/<pid>/stat`.
fn cpu(stat: &str) -> anyhow::Result<Duration> {
    // The name, in parentheses, may hold anything; fields are counted from behind it. utime and stime are the
    // 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().context("processor time"))
        .sum::<anyhow::Result<u64>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let stats = ProcessStats::read(std::process::id()).unwrap();
        assert!(stats.rss_kib > 500 && stats.peak_kib >= stats.rss_kib / 2, "{stats:?}");
        assert!(!stats.name.is_empty());
    }

    #[test]
    fn processor_time_is_found_whatever_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu(stat).unwrap(), Duration::from_secs(3));
        assert!(cpu("7 (short)").is_ok_and(|time| time.is_zero()));
        assert!(cpu("nonsense").is_err());
    }
}
