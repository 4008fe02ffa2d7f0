//! Volumes: a fixed number of folders of the node, created in advance.

use std::fs;

use anyhow::Context;
use serde_json::{Value, json};

use super::ClusterDir;

/// Maximum number of claims that can be bound at a time. No test has needed more than two.
const VOLUMES: u8 = 12;
/// Claims for more aren't bound. The actual size isn't limited.
const CAPACITY: &str = "10Gi";

fn folder(number: u8) -> String {
    format!("volumes/{number}")
}

pub(super) fn make_folders(dir: &ClusterDir) -> anyhow::Result<()> {
    for number in 0..VOLUMES {
        fs::create_dir_all(dir.path(&folder(number))).with_context(|| dir.text(&folder(number)))?;
    }
    Ok(())
}

/// Empties the released volume `name`, so that it can be claimed again.
///
/// # Errors
/// If it can't be emptied.
pub(super) fn empty(dir: &ClusterDir, name: &str) -> anyhow::Result<()> {
    let number: u8 = name.trim_start_matches("volume-").parse().with_context(|| format!("volume {name}"))?;
    let folder = dir.path(&folder(number));
    fs::remove_dir_all(&folder)
        .and_then(|()| fs::create_dir(&folder))
        .with_context(|| format!("{}", folder.display()))
}

/// Returns the default storage class and its volumes. They are of type `local`, because Kubernetes applies a
/// pod's `fsGroup` only to these.
pub(super) fn manifest(dir: &ClusterDir) -> String {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard",
         "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let volumes = (0..VOLUMES).map(|number| volume(dir, number));
    let items: Vec<_> = std::iter::once(class).chain(volumes).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn volume(dir: &ClusterDir, number: u8) -> Value {
    let node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [dir.node_name()]});
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": format!("volume-{number}")},
        "spec": {
            "capacity": {"storage": CAPACITY},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "local": {"path": dir.text(&folder(number))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [node]}]}},
        },
    })
}
