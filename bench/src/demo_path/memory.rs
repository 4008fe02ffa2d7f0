//! Memory of the programs at rest and with idle clients.

use std::time::Duration;

use flutecast_contract::name::TenantName;
use tokio::time::sleep;

use super::Plant;
use crate::latency::{SseTarget, Watcher};
use crate::manifests::device_code;
use crate::process_stats::ProcessStats;

/// The pause before memory is read, so that it has settled.
const SETTLE: Duration = Duration::from_secs(2);
/// The numbers of idle clients.
pub(super) const IDLE_CLIENTS: [usize; 2] = [100, 1000];

/// Resident memory in KiB.
#[derive(Debug)]
pub(super) struct MemoryReport {
    /// nats-server, data plane and operator without any client.
    pub(super) at_rest: [u64; 3],
    /// The data plane with [`IDLE_CLIENTS`].
    pub(super) with_clients: [u64; 2],
}

impl MemoryReport {
    /// Returns the memory of one more client in KiB, by the difference between the numbers of clients.
    #[allow(clippy::cast_precision_loss, reason = "kibibytes of a process")]
    pub(super) fn per_client_kib(&self) -> f64 {
        let [few, many] = self.with_clients;
        many.saturating_sub(few) as f64 / (IDLE_CLIENTS[1] - IDLE_CLIENTS[0]) as f64
    }
}

/// Nothing is sent meanwhile: each client watches one device, and all of them are silent.
pub(super) async fn measure(plant: &Plant, tenant: &TenantName) -> anyhow::Result<MemoryReport> {
    sleep(SETTLE).await;
    let [nats, dataplane, operator] = plant.pids;
    let rss = |pid| ProcessStats::read(pid).map(|stats| stats.rss_kib);
    let at_rest = [rss(nats)?, rss(dataplane)?, rss(operator)?];
    let target = SseTarget::some(&plant.dataplane.url, tenant.as_str(), &[device_code(1)?.to_string()])?;
    let mut with_clients = [0; 2];
    let mut idle = Vec::new();
    let mut connected = 0;
    for (clients, kib) in IDLE_CLIENTS.into_iter().zip(&mut with_clients) {
        idle.push(Watcher::idle(&vec![target.clone(); clients - connected]).await?);
        connected = clients;
        sleep(SETTLE).await;
        *kib = rss(dataplane)?;
    }
    Ok(MemoryReport { at_rest, with_clients })
}
