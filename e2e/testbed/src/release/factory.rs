//! `make factory`: a release to try Flutecast with.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use flutecast_testkit::in_repository;

use super::{Images, ROLLOUT, SOON, base_values, install_crds, nats};
use crate::cluster::Cluster;

/// The name of the release and of its namespace.
const NAME: &str = "factory";

/// Loads the images, installs or upgrades both charts, and waits until all pods are ready. Writes helm's
/// notes and the addresses for this machine to `out`.
///
/// # Errors
/// If the images aren't built, or helm or kubectl fails.
pub async fn install_factory(cluster: &Cluster, out: &mut impl Write) -> anyhow::Result<()> {
    let images = Images::of_workspace()?;
    writeln!(out, "loading the images of operator, data plane and NATS (a few seconds)")?;
    images.load(cluster).await?;
    writeln!(out, "installing the charts and waiting for their pods (about half a minute)")?;
    install_crds(cluster, &in_repository("charts/flutecast-crds")).await?;
    let folder = tempfile::Builder::new().prefix("flutecast-values-").tempdir()?;
    let values = folder.path().join("values.yaml");
    std::fs::write(&values, base_values(cluster, &images))?;
    let text = |path: &Path| path.display().to_string();
    let (chart, values) = (text(&in_repository("charts/flutecast")), text(&values));
    let timeout = format!("{}s", ROLLOUT.as_secs());
    let install = ["upgrade", "--install", NAME, &chart, "--namespace", NAME, "--create-namespace"];
    let options = ["--values", &values, "--wait", "--timeout", &timeout];
    let said = cluster.helm(&[&install[..], &options].concat(), ROLLOUT + SOON).await?;
    writeln!(out, "\n{}\n\n{}", said.trim_end(), reached(cluster).await?)?;
    Ok(())
}

/// Returns a text with the addresses of the release for this machine.
async fn reached(cluster: &Cluster) -> anyhow::Result<String> {
    let full_name = format!("{NAME}-flutecast");
    let http = cluster.reach(NAME, &full_name, super::HTTP).await?;
    let nats = nats::reach(cluster, NAME, &full_name).await.context("the bundled NATS")?;
    Ok(format!(
        "From this machine, whose route to the cluster needs no port-forward:

  export KUBECONFIG={kubeconfig}
  kubectl     {kubectl}
  dashboard   http://{http}/, as soon as the demo's Tenant is there (kubectl apply, above)
  NATS        {nats_url}
  MQTT        {mqtt_url}
  the line    cargo run -p flutecast-demo -- line --nats '{nats_url}' --mqtt '{mqtt}'

`make cluster-down` takes all of it away.",
        kubeconfig = cluster.kubeconfig().display(),
        kubectl = cluster.program().display(),
        http = http.address,
        nats_url = nats.url("devices"),
        mqtt_url = nats.mqtt_url("devices"),
        mqtt = nats.mqtt_url("devices").trim_start_matches("mqtt://"),
    ))
}
