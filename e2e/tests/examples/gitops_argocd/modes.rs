//! The ways in which Argo CD compares, each for a while with devices that send.

use std::fmt::Write as _;
use std::fs;
use std::str::FromStr;
use std::time::Duration;

use flutecast_testbed::cluster::Cluster;
use flutecast_testbed::gitops::GitRepository;

use crate::gitops::make_bare;
use crate::plant_1::{Plant, Seen};

/// What stands before the rows.
const HEAD: &str = "\
## Comparing in each way, with devices that send

Twenty devices send twice a second, with ingress, httpRoute, persistence, monitoring and protection on,
orphaned resources monitored, self-heal and prune on.
Halfway a Device comes that isn't in git.

| mode | for | healthy after | messages | comparisons | asked for by an object | syncs | other states |
| --- | --- | --- | --- | --- | --- | --- | --- |
";
/// The chart with the factory's Applications.
const TEMPLATES: &str = "manifests/argocd/factory/templates";

/// A way in which Argo CD compares what is in git with what is there, and applies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiffMode {
    /// As shipped: each Application has its own way.
    Shipped,
    /// By the annotation that `kubectl apply` leaves.
    Legacy,
    /// By the fields that Argo CD owns.
    StructuredMerge,
    /// By a dry run on the API server.
    ServerSide,
}

impl DiffMode {
    fn name(self) -> &'static str {
        match self {
            Self::Shipped => "as shipped",
            Self::Legacy => "legacy",
            Self::StructuredMerge => "structured-merge",
            Self::ServerSide => "server-side",
        }
    }

    /// Changes the factory's Applications so that all of them are compared in this way.
    fn change(self, repository: &GitRepository) {
        if self == Self::Shipped {
            return;
        }
        for entry in fs::read_dir(repository.path(TEMPLATES)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let text = text.replace(", ServerSideApply=true", "").replace("ServerSideApply=true, ", "");
            let text = match self {
                Self::StructuredMerge => {
                    text.replace("syncOptions: [", "syncOptions: [ServerSideApply=true, ")
                }
                Self::ServerSide => text.replace("ServerSideDiff=false", "ServerSideDiff=true"),
                _ => text,
            };
            fs::write(&path, text).unwrap();
        }
    }
}

impl FromStr for DiffMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let all = [Self::Shipped, Self::Legacy, Self::StructuredMerge, Self::ServerSide];
        let found = all.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| anyhow::anyhow!("no diff mode: {text}"))
    }
}

/// Returns a table with a row for each mode.
pub(crate) async fn measure(cluster: &Cluster, modes: &[DiffMode], time: Duration) -> String {
    let mut table = HEAD.to_owned();
    for mode in modes {
        let server_side = (*mode == DiffMode::ServerSide).to_string();
        let parameters = [("controller.diff.server.side", server_side.as_str())];
        let plant = Plant::bring_up(cluster, &parameters, |repository| mode.change(repository)).await;
        plant.add_everything().await;
        let seen = plant.send_for(time).await;
        eprintln!("{}: {seen:#?}", mode.name());
        writeln!(table, "{}", row(*mode, time, plant.took, &seen)).unwrap();
        plant.delete().await;
    }
    make_bare(cluster).await;
    table
}

fn row(mode: DiffMode, time: Duration, took: Duration, seen: &Seen) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join("; ") };
    let reasons = seen.refreshes.by_reason.iter().map(|(why, times)| format!("{times} {why}")).collect();
    let objects =
        seen.refreshes.by_object.iter().map(|(object, times)| format!("{times} {object}")).collect();
    let others = seen.states.iter().filter(|(state, _)| !state.ends_with(" Synced Healthy"));
    let others = others.map(|(state, times)| format!("{times} {state}")).collect();
    format!(
        "| {} | {} min | {:.0} s | {} | {} | {} | {} | {} |",
        mode.name(),
        time.as_secs() / 60,
        took.as_secs_f64(),
        seen.sent,
        list(reasons),
        list(objects),
        seen.refreshes.syncs,
        list(others),
    )
}
