//! Measures the whole way on one machine: nats-server, operator and data plane as programs, on loopback.
//!
//! The result is the page `docs/performance.md`, with the machine and the date, so that numbers are never
//! quoted without them.

mod memory;
mod page;
mod rates;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use flutecast_contract::name::TenantName;
use flutecast_testkit::{
    Dataplane, DataplaneOptions, NatsOptions, NatsServer, Operator, OperatorOptions, ProcessOptions,
};
use tokio_util::sync::CancellationToken;

use crate::latency::{self, LatencyOptions, LatencyReport};
use crate::machine::Machine;
use crate::manifests;
use memory::MemoryReport;
use rates::RateStep;

/// The whole measurement takes no longer than this.
const LONGEST: Duration = Duration::from_secs(540);
/// The rate at which latency is measured.
const USUAL_RATE: u32 = 1000;
/// The rate at which the cost of many clients is measured; each of them gets all of it.
const FAN_OUT_RATE: u32 = 100;
/// The numbers of clients for that.
const FAN_OUT_CLIENTS: [usize; 3] = [1, 100, 1000];

/// Options of the measurement.
#[derive(Debug, Clone)]
pub struct DemoPathOptions {
    /// Number of devices that send.
    pub devices: u32,
    /// The duration of each measurement of latency.
    pub duration: Duration,
    /// The command as it was given, for the page.
    pub command: String,
}

/// Everything that was measured.
#[derive(Debug)]
pub struct DemoPathReport {
    machine: Machine,
    options: DemoPathOptions,
    memory: MemoryReport,
    usual: LatencyReport,
    fan_out: Vec<LatencyReport>,
    rates: Vec<RateStep>,
}

/// Runs all measurements, one after the other.
///
/// # Errors
/// Returns an error if a program isn't built or doesn't start, or a measurement fails. Whatever was started
/// is ended in any case.
pub async fn run(options: &DemoPathOptions, shutdown: &CancellationToken) -> anyhow::Result<DemoPathReport> {
    tokio::select! {
        report = tokio::time::timeout(LONGEST, measure(options, shutdown)) => {
            report.with_context(|| format!("the measurements took longer than {LONGEST:?}"))?
        }
        () = shutdown.cancelled() => anyhow::bail!("interrupted"),
    }
}

async fn measure(options: &DemoPathOptions, shutdown: &CancellationToken) -> anyhow::Result<DemoPathReport> {
    let tenant = TenantName::new("bench")?;
    let machine = Machine::read().await?;
    let plant = Plant::start(&tenant, options.devices).await?;
    tracing::info!("memory of idle clients");
    let memory = memory::measure(&plant, &tenant).await?;
    tracing::info!("latency at {USUAL_RATE} messages/s");
    let usual = plant.latency(&tenant, options, USUAL_RATE, 1, options.duration, shutdown).await?;
    let mut fan_out = Vec::new();
    for clients in FAN_OUT_CLIENTS {
        tracing::info!("fan-out to {clients} clients");
        let duration = options.duration.min(Duration::from_secs(5));
        fan_out.push(plant.latency(&tenant, options, FAN_OUT_RATE, clients, duration, shutdown).await?);
    }
    let rates = rates::climb(&plant, &tenant, options, shutdown).await?;
    plant.stop().await?;
    Ok(DemoPathReport { machine, options: options.clone(), memory, usual, fan_out, rates })
}

/// The running programs. Dropping it kills them.
struct Plant {
    nats: NatsServer,
    operator: Operator,
    dataplane: Dataplane,
    /// nats-server, data plane and operator.
    pids: [u32; 3],
    _folder: tempfile::TempDir,
}

impl Plant {
    async fn start(tenant: &TenantName, devices: u32) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("flutecast-bench-").tempdir()?;
        let (manifests, mapping) = (folder.path().join("manifests"), folder.path().join("mapping"));
        manifests::write(tenant, devices, &manifests)?;
        std::fs::create_dir(&mapping)?;
        let process =
            ProcessOptions { env: vec![("NO_COLOR".into(), "1".into())], ..ProcessOptions::default() };
        let mut nats = NatsServer::start_with(NatsOptions { mqtt: true, ..NatsOptions::default() }).await?;
        let operator = Operator::start(OperatorOptions {
            manifests,
            mapping: mapping.clone(),
            nats: nats.url(),
            process: process.clone(),
            ..OperatorOptions::default()
        })
        .await?;
        let dataplane = Dataplane::start(DataplaneOptions {
            mapping,
            nats: nats.url(),
            process,
            ..DataplaneOptions::default()
        })
        .await?;
        let pids = [nats.process().pid(), dataplane.process.pid(), operator.process.pid()];
        Ok(Self { nats, operator, dataplane, pids, _folder: folder })
    }

    async fn latency(
        &self,
        tenant: &TenantName,
        options: &DemoPathOptions,
        rate: u32,
        clients: usize,
        duration: Duration,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<LatencyReport> {
        let options = LatencyOptions {
            nats: self.nats.url(),
            http: self.dataplane.url.clone(),
            tenant: tenant.clone(),
            devices: options.devices,
            rate,
            warm_up: Duration::from_secs(1),
            duration,
            clients,
            per_client: None,
            pids: self.pids.to_vec(),
        };
        latency::run(&options, shutdown).await
    }

    async fn stop(self) -> anyhow::Result<()> {
        let Self { mut nats, mut operator, mut dataplane, .. } = self;
        let deadline = Duration::from_secs(15);
        let ended = dataplane.process.terminate(deadline).await.context("ending the data plane")?;
        ensure!(ended.success(), "the data plane ended with {ended}");
        let ended = operator.process.terminate(deadline).await.context("ending the operator")?;
        ensure!(ended.success(), "the operator ended with {ended}");
        nats.stop().await
    }
}
