//! The pods of a release.

use anyhow::Context;
use serde_json::Value;

use super::{Release, SOON};
use flutecast_testkit::wait_until;

/// A pod with one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name, which the data plane also reports in `hello`.
    pub name: String,
    /// Its address; empty if it has none yet.
    pub ip: String,
    /// Whether it is ready and not terminating.
    pub ready: bool,
    /// Number of restarts of its container.
    pub restarts: u64,
    /// The container's id in containerd; empty if there is none yet.
    pub container: String,
}

impl Release<'_> {
    /// Returns the pods of a component (`operator`, `dataplane`, `nats`), sorted by name.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn pods(&self, component: &str) -> anyhow::Result<Vec<Pod>> {
        let list = self.kubectl(&["get", "pods", "-l", &self.selector(component), "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&list)?;
        let items = list["items"].as_array().context("a list of pods")?;
        Ok(items.iter().map(pod).collect())
    }

    /// Waits until a component has exactly `count` pods, all of them ready. Returns them.
    ///
    /// # Errors
    /// If that isn't so after 90 s; the error lists the pods.
    pub async fn wait_for_pods(&self, component: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
        wait_until(&format!("{count} ready pods of the {component}"), SOON, async || {
            match self.pods(component).await {
                Ok(pods) if pods.len() == count && pods.iter().all(|pod| pod.ready) => Ok(pods),
                Ok(pods) => Err(format!("{pods:#?}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Returns the text of a pod's `/metrics`.
    ///
    /// # Errors
    /// If kubectl fails.
    pub async fn metrics(&self, pod: &Pod) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{}/pods/{}:8081/proxy/metrics", self.namespace, pod.name);
        self.kubectl(&["get", "--raw", &path]).await
    }

    /// Kills all processes of a pod's container with SIGKILL, as the kernel does when it runs out of memory;
    /// the kubelet restarts it. On an existing cluster the pod is deleted without grace instead, and
    /// replaced.
    ///
    /// # Errors
    /// If that can't be done.
    pub async fn kill(&self, pod: &Pod) -> anyhow::Result<()> {
        match self.cluster.node() {
            Ok(_) => self.cluster.kill_container(&pod.container).await,
            Err(_) => {
                let args = ["delete", "pod", &pod.name, "--grace-period=0", "--force", "--wait=false"];
                self.kubectl(&args).await.map(drop)
            }
        }
    }
}

fn pod(pod: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (metadata, status) = (&pod["metadata"], &pod["status"]);
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let is_ready = |condition: &&Value| condition["type"] == "Ready" && condition["status"] == "True";
    let container = &status["containerStatuses"][0];
    Pod {
        name: text(&metadata["name"]),
        ip: text(&status["podIP"]),
        ready: metadata["deletionTimestamp"].is_null() && conditions.filter(is_ready).count() == 1,
        restarts: container["restartCount"].as_u64().unwrap_or(0),
        container: text(&container["containerID"]).trim_start_matches("containerd://").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_is_parsed_from_its_object() {
        let mut object = json!({
            "metadata": {"name": "factory-dataplane-1"},
            "status": {
                "podIP": "10.1.2.3",
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized",
                 "status": "True"}],
                "containerStatuses": [{"restartCount": 2, "containerID": "containerd://abc"}],
            },
        });
        let first = pod(&object);
        let [name, ip, container] = ["factory-dataplane-1", "10.1.2.3", "abc"].map(str::to_owned);
        assert_eq!(first, Pod { name, ip, ready: true, restarts: 2, container });
        object["metadata"]["deletionTimestamp"] = json!("2026-11-22T10:00:00Z");
        assert!(!pod(&object).ready, "a terminating pod isn't ready");
        assert!(!pod(&json!({"metadata": {"name": "new"}, "status": {"phase": "Pending"}})).ready);
    }
}
