//! The mapping from a cluster: watches the ConfigMaps and the access Secret of a namespace.

use std::future::pending;
use std::time::Duration;

use flutecast_contract::object::{ACCESS_SECRET, MANAGED_BY_SELECTOR};
use flutecast_kube::{Change, Observed, Right, Watch};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::CatalogMetrics;
use super::publisher::{CatalogPublisher, Mapping};
use crate::kubernetes::{Cluster, MANIFEST, watch_config};

mod objects;

use objects::MappingObjects;

pub(crate) const RIGHTS: &[Right] = &[
    Right::new("", &["configmaps"], &["list", "watch"])
        .because("The mapping. Rights can't be limited by label; ConfigMaps of others are not asked for."),
    Right::new("", &["secrets"], &["list", "watch"])
        .named(&[ACCESS_SECRET])
        .because("Who may read: token digests, never tokens. No other Secret can be seen."),
];

/// Further changes are collected for this long: the operator writes several ConfigMaps in a row.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The place of the problem of a broken watch.
const PLACE: &str = "Kubernetes API";

/// Watches the mapping until `stop` is cancelled. While the API server is away, the last mapping is kept.
#[must_use = "the task has to be supervised"]
pub(crate) fn watch_cluster(
    cluster: &Cluster,
    metrics: CatalogMetrics,
    stop: CancellationToken,
) -> (Mapping, JoinHandle<()>) {
    let Cluster { client, namespace } = cluster.clone();
    let no_access = format!("there is no Secret {ACCESS_SECRET} in the namespace {namespace} yet");
    let (publisher, mapping) = CatalogPublisher::new(no_access, metrics);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let secrets = Api::<Secret>::namespaced(client, &namespace);
    let follower = ClusterFollower {
        maps: Watch::new(maps, watch_config().labels(MANAGED_BY_SELECTOR), MANIFEST),
        // A role for one Secret permits watching it only if the request selects it by name.
        secret: Watch::new(
            secrets,
            watch_config().fields(&format!("metadata.name={ACCESS_SECRET}")),
            MANIFEST,
        ),
    };
    let run = follower.run(MappingObjects::default(), publisher);
    let handle = tokio::spawn(async move { stop.run_until_cancelled_owned(run).await.unwrap_or_default() });
    (mapping, handle)
}

#[derive(Debug)]
enum ObservedObject {
    Map(Observed<Change<ConfigMap>>),
    Secret(Observed<Change<Secret>>),
}

struct ClusterFollower {
    maps: Watch<ConfigMap>,
    secret: Watch<Secret>,
}

impl ClusterFollower {
    /// Returns only if parsing panicked, which ends the process.
    async fn run(mut self, mut objects: MappingObjects, mut publisher: CatalogPublisher) {
        loop {
            let observations = self.gather().await;
            let work = spawn_blocking(move || {
                let mut changed = false;
                for one in observations {
                    changed |= match one {
                        ObservedObject::Map(observed) => objects.observe_map(observed),
                        ObservedObject::Secret(observed) => objects.observe_secret(observed),
                    };
                }
                // A repeated fault is no reason to build the catalog again.
                if changed {
                    match objects.snapshot() {
                        Ok(snapshot) => publisher.publish(snapshot),
                        Err(reason) => publisher.unreachable(PLACE, reason),
                    }
                }
                (objects, publisher)
            });
            let Ok(back) = work.await else { return };
            (objects, publisher) = back;
        }
    }

    /// Waits for an observation, and returns it with all that follow within [`DEBOUNCE`].
    async fn gather(&mut self) -> Vec<ObservedObject> {
        let mut observations = Vec::new();
        let mut due = None;
        loop {
            let time_is_up = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = time_is_up => return observations,
                observed = self.maps.next() => observations.push(ObservedObject::Map(observed)),
                observed = self.secret.next() => observations.push(ObservedObject::Secret(observed)),
            }
            due.get_or_insert_with(|| Instant::now() + DEBOUNCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use kube::runtime::watcher::Event;
    use tokio::time::sleep;

    use super::*;

    const STEP: Duration = Duration::from_millis(15);

    /// Twelve changes, 15 ms apart, a second after the start.
    fn maps() -> Watch<ConfigMap> {
        let changes = stream::iter(0..12).then(async |n| {
            sleep(if n == 0 { Duration::from_secs(1) } else { STEP }).await;
            Ok(Event::Apply(ConfigMap::default()))
        });
        Watch::over("ConfigMap", "configmaps", MANIFEST, changes.chain(stream::pending()).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn changes_within_the_debounce_are_one_batch() {
        let mut follower = ClusterFollower {
            maps: maps(),
            secret: Watch::over("Secret", "secrets", MANIFEST, stream::pending().boxed()),
        };
        let start = Instant::now();
        let mut batches = Vec::new();
        while batches.iter().sum::<usize>() < 12 {
            batches.push(follower.gather().await.len());
        }
        // 0, 15, 30 and 45 ms; the change at 60 ms begins the next batch.
        assert_eq!(batches, [4, 4, 4]);
        // No change waits for longer than the debounce.
        assert!(start.elapsed() <= Duration::from_secs(1) + STEP * 8 + DEBOUNCE, "{:?}", start.elapsed());
    }
}
