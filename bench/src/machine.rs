//! The machine on which was measured.

use std::fs::read_to_string;
use std::time::Duration;

use anyhow::Context as _;
use flutecast_testkit::nats_server_program;
use jiff::Timestamp;

/// The machine, for readers who compare numbers.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The date of the measurement.
    pub(crate) date: String,
    /// The processor's name.
    pub(crate) processor: String,
    /// Number of processors that this program may use.
    pub(crate) processors: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: u64,
    /// The operating system's kernel.
    pub(crate) kernel: String,
    /// nats-server's version.
    pub(crate) nats_server: String,
    /// The cargo profile of the programs.
    pub(crate) profile: &'static str,
    /// The load average of the minute before: other programs on the machine.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) async fn read() -> anyhow::Result<Self> {
        let program = tokio::task::spawn_blocking(nats_server_program).await??;
        let version = tokio::process::Command::new(program).arg("--version").output();
        let version = tokio::time::timeout(Duration::from_secs(10), version)
            .await
            .context("nats-server --version")??;
        let word = |path: &str, index: usize| {
            let text = read_to_string(path).unwrap_or_default();
            text.split_ascii_whitespace().nth(index).unwrap_or("unknown").to_owned()
        };
        Ok(Self {
            date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: field("/proc/meminfo", "MemTotal")
                .and_then(|total| total.split(' ').next()?.parse::<u64>().ok())
                .unwrap_or_default()
                .div_ceil(1024 * 1024),
            kernel: format!("Linux {}", word("/proc/sys/kernel/osrelease", 0)),
            nats_server: String::from_utf8_lossy(&version.stdout).trim().replace("nats-server: ", ""),
            profile: if cfg!(debug_assertions) { "debug" } else { "release" },
            load: word("/proc/loadavg", 0),
        })
    }
}

/// The value after `name:` in a file of `/proc`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
