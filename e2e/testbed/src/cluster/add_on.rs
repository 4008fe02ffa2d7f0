//! Components that not every cluster has, such as Argo CD.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;

use super::supervisor::COMMANDS;
use super::{Cluster, Component, Node, Request, Start, take_down};

/// Components that were added to a cluster. Those that this started are stopped when it is dropped; those
/// that ran before stay.
#[derive(Debug)]
pub struct AddOn {
    node: Node,
    started: Vec<Component>,
}

impl AddOn {
    /// Starts components in this order. One that runs with another command is started again.
    ///
    /// # Errors
    /// On an existing cluster, or if a component can't be started.
    pub(crate) async fn start(cluster: &Cluster, commands: &[(Component, Start)]) -> anyhow::Result<Self> {
        let (dir, node) = (cluster.dir()?, cluster.node()?);
        let _lock = take_down::lock().await?;
        let path = dir.path(COMMANDS);
        let text = fs::read_to_string(&path).context(COMMANDS)?;
        let mut all: BTreeMap<Component, Start> = serde_json::from_str(&text).context(COMMANDS)?;
        let running: Vec<_> = node.request(Request::Status).await?;
        let runs =
            |component| running.iter().any(|status| status.component == component && status.pid.is_some());
        let changed: Vec<_> = commands
            .iter()
            .filter(|(component, start)| all.insert(*component, start.clone()).as_ref() != Some(start))
            .map(|(component, _)| *component)
            .collect();
        // Renamed into place, so that the supervisor never reads half of it.
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_string_pretty(&all)?)?;
        fs::rename(&partial, &path).context(COMMANDS)?;
        let mut this = Self { node: node.clone(), started: Vec::new() };
        for (component, _) in commands {
            if !runs(*component) {
                this.started.push(*component);
            } else if changed.contains(component) {
                node.request(Request::Stop(*component)).await?;
            }
            node.request(Request::Start(*component)).await?;
        }
        Ok(this)
    }

    /// Returns whether this started a component that didn't run before.
    #[must_use]
    pub fn started(&self) -> bool {
        !self.started.is_empty()
    }

    /// Lets all components run until the cluster ends.
    pub fn keep(mut self) {
        self.started.clear();
    }
}

impl Drop for AddOn {
    fn drop(&mut self) {
        for component in self.started.iter().rev() {
            // A request to a local socket. If it fails, the component ends with the cluster.
            let _ = self.node.ask(Request::Stop(*component));
        }
    }
}
