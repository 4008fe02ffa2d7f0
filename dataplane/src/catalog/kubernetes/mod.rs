//! Follows the mapping ConfigMaps and the access Secret of a namespace and publishes what they say.

use flutecast_kube::Right;
use std::future::pending;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::runtime::watcher::Config;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::publisher::{Mapping, Publisher};
use crate::kubernetes::{Cluster, Observed, Watch};
use crate::metrics::CatalogMetrics;

mod objects;
#[cfg(test)]
mod objects_tests;

use objects::{Objects, State};

/// The rights that following the mapping needs.
pub(crate) const RIGHTS: &[Right] = &[
    Right {
        group: "",
        resources: &["configmaps"],
        names: &[],
        verbs: &["list", "watch"],
        why: "The mapping. Rights can't be limited by label; ConfigMaps of others are not asked for.",
    },
    Right {
        group: "",
        resources: &["secrets"],
        names: &[ACCESS_SECRET],
        verbs: &["list", "watch"],
        why: "Who may read: token digests, never tokens. No other Secret can be seen.",
    },
];

/// The label of everything that the operator writes.
const LABEL: &str = "app.kubernetes.io/managed-by=flutecast";
/// The Secret with the access document.
const ACCESS_SECRET: &str = "flutecast-access";
/// How long more changes are waited for after the first: the operator writes several ConfigMaps one after the
/// other.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// What the problem of a broken watch is filed under.
const PLACE: &str = "Kubernetes API";

/// Follows the mapping in the cluster until `stop`. While the API server is away, what was read last holds
/// on.
#[must_use = "someone has to watch the task"]
pub fn watch_cluster(
    cluster: &Cluster,
    metrics: CatalogMetrics,
    stop: CancellationToken,
) -> (Mapping, JoinHandle<()>) {
    let Cluster { client, namespace } = cluster.clone();
    let no_access = format!("there is no Secret {ACCESS_SECRET} in the namespace {namespace} yet");
    let (publisher, mapping) = Publisher::new(no_access, metrics);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
    let secrets = Api::<Secret>::namespaced(client, &namespace);
    let follower = Follower {
        maps: Watch::new(maps, "configmaps", Config::default().labels(LABEL)),
        // A role that names one Secret allows to watch it only when it is selected by its name.
        secret: Watch::new(
            secrets,
            "secrets",
            Config::default().fields(&format!("metadata.name={ACCESS_SECRET}")),
        ),
    };
    let handle = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.run(Objects::default(), publisher) => {}
        }
    });
    (mapping, handle)
}

/// What one of the two watches told.
#[derive(Debug)]
enum News {
    Map(Observed<ConfigMap>),
    Secret(Observed<Secret>),
}

struct Follower {
    maps: Watch<ConfigMap>,
    secret: Watch<Secret>,
}

impl Follower {
    /// Ends only when reading panicked, which ends the process.
    async fn run(mut self, mut objects: Objects, mut publisher: Publisher) {
        loop {
            let news = self.gather().await;
            let work = spawn_blocking(move || {
                let mut changed = false;
                for one in news {
                    changed |= match one {
                        News::Map(observed) => objects.observe_map(observed),
                        News::Secret(observed) => objects.observe_secret(observed),
                    };
                }
                // The same fault again and again is no reason to build everything anew.
                if !changed {
                    return (objects, publisher);
                }
                let publisher = match objects.state() {
                    State::Incomplete(reason) => {
                        publisher.unreachable(PLACE, reason);
                        publisher
                    }
                    State::Complete(reading) => publisher.publish(reading),
                };
                (objects, publisher)
            });
            let Ok(back) = work.await else { return };
            (objects, publisher) = back;
        }
    }

    /// What happens next, and all that follows within [`DEBOUNCE`].
    async fn gather(&mut self) -> Vec<News> {
        let mut news = Vec::new();
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
                () = time_is_up => return news,
                observed = self.maps.next() => news.push(News::Map(observed)),
                observed = self.secret.next() => news.push(News::Secret(observed)),
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

    /// Twelve changes, one each 15 ms, a second after the start.
    fn maps() -> Watch<ConfigMap> {
        let changes = stream::iter(0..12).then(async |n| {
            sleep(if n == 0 { Duration::from_secs(1) } else { STEP }).await;
            Ok(Event::Apply(ConfigMap::default()))
        });
        Watch::over("configmaps", changes.chain(stream::pending()).boxed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_together_is_one_snapshot() {
        let mut follower =
            Follower { maps: maps(), secret: Watch::over("secrets", stream::pending().boxed()) };
        let start = Instant::now();
        let mut batches = Vec::new();
        while batches.iter().sum::<usize>() < 12 {
            batches.push(follower.gather().await.len());
        }
        // 0, 15, 30 and 45 ms; then what came at 60 ms begins the next.
        assert_eq!(batches, [4, 4, 4]);
        // Nobody waits for longer than the debounce, however much follows.
        assert!(start.elapsed() <= Duration::from_secs(1) + STEP * 8 + DEBOUNCE, "{:?}", start.elapsed());
    }
}
