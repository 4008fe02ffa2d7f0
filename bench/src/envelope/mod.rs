//! The capacity of an installation: many Devices on a real API server, with the operator, nats-server and a
//! data plane as programs.
//!
//! The result is a table in `docs/generated/operator-capacity.md`, with the machine and the date, so that
//! numbers are never quoted without them.

mod change;
mod load;
mod page;
mod plant;
#[cfg(test)]
mod tests;
mod writes;

use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

pub use self::page::write_section;

use self::change::Changes;
use self::load::Created;
use self::plant::Plant;
use self::writes::Writes;
use crate::machine::Machine;

/// One case takes no longer than this.
const LONGEST: Duration = Duration::from_secs(600);

/// The number of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Devices, all tenants together.
    pub devices: u32,
    /// Tenants; each has as many devices as the others, give or take one.
    pub tenants: u32,
}

impl std::str::FromStr for Size {
    type Err = String;

    /// Reads `10000`, or `10000/20` for 10,000 devices in 20 tenants.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is neither a number of devices (5000) nor devices/tenants (5000/10)");
        let (devices, tenants) = text.split_once('/').unwrap_or((text, "1"));
        let size = Self {
            devices: devices.parse().map_err(|_| wrong())?,
            tenants: tenants.parse().map_err(|_| wrong())?,
        };
        let is_possible = (1..=100_000).contains(&size.devices) && (1..=size.devices).contains(&size.tenants);
        if is_possible { Ok(size) } else { Err(wrong()) }
    }
}

#[derive(Debug, Clone)]
pub struct EnvelopeOptions {
    /// The sizes, one after the other, each on an API server of its own.
    pub sizes: Vec<Size>,
    /// Number of changes that are timed at each size.
    pub changes: u32,
    /// Number of Devices that are created at the same time.
    pub at_once: usize,
    /// The command as it was given, for the page.
    pub command: String,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct EnvelopeReport {
    machine: Machine,
    options: EnvelopeOptions,
    cases: Vec<Case>,
}

/// Measurements of one size. Times count from the first Device's creation, unless said otherwise.
#[derive(Debug)]
struct Case {
    size: Size,
    created: Created,
    /// Until the ConfigMaps held all of them.
    mapped: Duration,
    /// Until all were Ready.
    ready: Duration,
    /// The operator's writes until all were Ready and Silent: the second is written once for each device
    /// too.
    writes: Writes,
    /// The operator's processor time until then.
    cpu: Duration,
    /// The most memory that the operator ever had, in KiB: until all were Ready and changed, and after a
    /// restart.
    peak_kib: [u64; 2],
    changes: Changes,
    /// From the start of a second operator to its first reconcile.
    restart: Duration,
    writes_after_restart: u64,
    /// The data plane's memory at the end, in KiB.
    dataplane_kib: u64,
}

/// Measures all sizes, one after the other.
///
/// # Errors
/// Returns an error if a program isn't built or doesn't start, or something doesn't come about in time.
/// Whatever was started is ended in any case.
pub async fn run(options: &EnvelopeOptions, shutdown: &CancellationToken) -> anyhow::Result<EnvelopeReport> {
    let machine = Machine::read().await?;
    let mut cases = Vec::new();
    for size in &options.sizes {
        let case = Box::pin(tokio::time::timeout(LONGEST, measure(*size, options)));
        let case = shutdown.run_until_cancelled(case).await.context("interrupted")?;
        cases.push(case.with_context(|| format!("{size:?} took longer than {LONGEST:?}"))??);
    }
    Ok(EnvelopeReport { machine, options: options.clone(), cases })
}

async fn measure(size: Size, options: &EnvelopeOptions) -> anyhow::Result<Case> {
    tracing::info!(?size, "starting");
    let mut plant = Plant::start(size).await?;
    let before = plant.writes().await?;
    let begun = tokio::time::Instant::now();
    let created = load::create_devices(&plant, options.at_once).await?;
    tracing::info!(?created, "created");
    plant.wait_until_mapped().await?;
    let mapped = begun.elapsed();
    plant.wait_until_ready().await?;
    let ready = begun.elapsed();
    plant.wait_until_silent().await?;
    let writes = plant.writes().await?.since(&before);
    let cpu = plant.operator_stats()?.cpu;
    tracing::info!(?mapped, ?ready, ?writes, ?cpu, "all are there");
    let changes = change::measure(&plant, options.changes).await?;
    let peak = plant.operator_stats()?.peak_kib;
    tracing::info!(?changes, peak, "changed");
    let before = plant.writes().await?;
    let restart = plant.restart_operator().await?;
    plant.wait_until_idle().await?;
    let writes_after_restart = plant.writes().await?.since(&before).total();
    let peak_kib = [peak, plant.operator_stats()?.peak_kib];
    let dataplane_kib = plant.dataplane_stats()?.rss_kib;
    tracing::info!(?restart, writes_after_restart, ?peak_kib, dataplane_kib, "restarted");
    plant.stop().await?;
    Ok(Case {
        size,
        created,
        mapped,
        ready,
        writes,
        cpu,
        peak_kib,
        changes,
        restart,
        writes_after_restart,
        dataplane_kib,
    })
}
