//! `helm uninstall` keeps what the values say and never hangs. A release that is installed again continues
//! with the kept data.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use flutecast_testbed::cluster::{Cluster, ServiceAddress};
use flutecast_testbed::release::{Images, Release};
use flutecast_testkit::{SseClient, in_repository, wait_until};
use serde_json::{Value, json};

use crate::counting::{self, TENANT};

const SOON: Duration = Duration::from_secs(60);
/// One pod and a short drain are enough here.
const VALUES: &str = "dataplane: {replicas: 1, drain: {delay: 0s, window: 1s}}";
/// Objects are protected by the operator's finalizers, and nothing but objects is to be kept.
const NOTHING_STAYS: &str = "
dataplane: {replicas: 1, drain: {delay: 0s, window: 1s}}
protection: finalizer
uninstall: {keepMapping: false}
nats: {bundled: {persistence: {keep: false}}}
";
/// All kinds that a release, its operator and the cluster create in a namespace, except Events.
const KINDS: &str = "deployments,statefulsets,replicasets,pods,jobs,services,endpointslices,configmaps,\
     secrets,serviceaccounts,roles,rolebindings,leases,\
     networkpolicies,poddisruptionbudgets,persistentvolumeclaims,tenants,devices,pushformats";
/// Objects that Kubernetes creates in each namespace.
const OF_KUBERNETES: [&str; 2] = ["configmap/kube-root-ca.crt", "serviceaccount/default"];

/// Waits until the namespace holds only these objects, and asserts that the release has no cluster-wide ones.
async fn wait_until_only_left(factory: &Release<'_>, expected: &[&str]) {
    let expected: BTreeSet<_> =
        expected.iter().chain(&OF_KUBERNETES).map(|name| (*name).to_owned()).collect();
    wait_until("the remaining objects", SOON, async || {
        let names =
            factory.kubectl(&["get", KINDS, "-o", "name"]).await.map_err(|error| format!("{error:#}"))?;
        let names: BTreeSet<String> = names.lines().map(str::to_owned).collect();
        if names == expected {
            return Ok(());
        }
        Err(format!(
            "unexpected: {:?}, missing: {:?}",
            names.difference(&expected),
            expected.difference(&names)
        ))
    })
    .await
    .unwrap();
    let policies = "validatingadmissionpolicies,validatingadmissionpolicybindings";
    let policies = factory.kubectl(&["get", policies, "-o", "name"]).await.unwrap();
    assert!(!policies.contains(factory.namespace()), "{policies}");
}

fn manifests() -> String {
    let tenant = json!({"retention": {"maxAge": "1h"}, "access": {"anonymous": true}});
    let device = counting::device(TENANT, "a", "A-1");
    counting::manifests(&[counting::tenant(TENANT, &tenant), counting::format(), device])
}

async fn iot_id(factory: &Release<'_>) -> String {
    factory.kubectl(&["get", "fd", "a", "-o", "jsonpath={.status.iotId}"]).await.unwrap()
}

async fn publish(factory: &Release<'_>, numbers: &[u64]) {
    let nats = factory.nats().await.unwrap();
    let jetstream = jetstream::new(nats.connect("devices").await.unwrap());
    for n in numbers {
        let (subject, payload) = (counting::subject(TENANT, "A-1"), counting::payload(*n));
        counting::store(&jetstream, "A-1", *n, &subject, &payload).await;
    }
}

/// Opens a stream. The returned address must be kept as long as the stream, because it may hold a
/// port-forward.
async fn watch(factory: &Release<'_>, last: &str) -> (SseClient, ServiceAddress) {
    let reach = factory.dataplane().await.unwrap();
    let url = format!("http://{}/v1/acme/events?device=A-1{last}", reach.address);
    (SseClient::connect(&url, &[]).await.unwrap(), reach)
}

/// Returns the number and id of the next message.
///
/// # Panics
/// If a gap comes first.
async fn next(client: &mut SseClient) -> (Value, Option<String>) {
    let event = client.next_where("data", SOON, |event| {
        assert_ne!(event.event.as_deref(), Some("gap"), "{event:?}");
        event.is_data()
    });
    let event = event.await.unwrap();
    (event.json().unwrap()["values"]["n"].clone(), event.id)
}

const OBJECTS: [&str; 3] =
    ["tenant.flutecast.io/acme", "device.flutecast.io/a", "pushformat.flutecast.io/count"];

async fn passwords(factory: &Release<'_>) -> String {
    let secret = factory.full_name("-nats-passwords");
    factory.kubectl(&["get", "secret", &secret, "-o", "jsonpath={.data}"]).await.unwrap()
}

/// Publishes four messages. Returns the id of the second as a query parameter.
async fn four_messages(factory: &Release<'_>) -> String {
    publish(factory, &[1]).await;
    let (mut client, _reach) = watch(factory, "").await;
    assert_eq!(next(&mut client).await.0, 1);
    // Only live messages have an id; the first one came from the snapshot.
    publish(factory, &[2]).await;
    let (second, last) = next(&mut client).await;
    assert_eq!(second, 2);
    publish(factory, &[3, 4]).await;
    format!("&lastEventId={}", last.unwrap())
}

/// By default an uninstall keeps the user's objects, the operator's generated objects, and the stored data
/// with its passwords.
async fn default_uninstall_keeps_data(factory: &Release<'_>) {
    let made = [
        "configmap/flutecast-acme-0",
        "secret/flutecast-access",
        "lease.coordination.k8s.io/flutecast-operator",
    ];
    let data =
        ["persistentvolumeclaim/data-factory-flutecast-nats-0", "secret/factory-flutecast-nats-passwords"];
    wait_until_only_left(factory, &[&OBJECTS[..], &made, &data].concat()).await;
}

/// With [`NOTHING_STAYS`] only the user's objects are kept, without finalizers. The operator's rights are
/// deleted before it ends, so the clean-up Job has to remove the finalizers.
async fn uninstall_keeps_only_objects(factory: &mut Release<'_>) {
    let held = [
        "wait",
        "ft/acme",
        "fpf/count",
        "--for=jsonpath={.metadata.finalizers[0]}=flutecast.io/in-use",
        "--timeout=60s",
    ];
    factory.kubectl(&held).await.unwrap();
    let begin = Instant::now();
    factory.uninstall().await.unwrap();
    eprintln!("uninstalled, clean-up included, after {:.1?}", begin.elapsed());
    wait_until_only_left(factory, &OBJECTS).await;
    for object in ["ft/acme", "fpf/count"] {
        let held = factory.kubectl(&["get", object, "-o", "jsonpath={.metadata.finalizers}"]).await.unwrap();
        assert_eq!(held, "", "{object}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_keeps_what_the_values_say() {
    let cluster = Cluster::shared().await.unwrap();
    let images = Images::of_workspace().unwrap();
    let namespace = cluster.namespace("uninstall").await.unwrap();
    let mut factory = Release::install(&cluster, &namespace, "factory", &images, VALUES).await.unwrap();
    factory.apply(&manifests()).await.unwrap();
    factory.wait_ready().await.unwrap();
    let id = iot_id(&factory).await;
    let last = four_messages(&factory).await;
    let before = passwords(&factory).await;
    factory.uninstall().await.unwrap();
    default_uninstall_keeps_data(&factory).await;

    // The new release takes over everything: no message has to be sent again, and ids and passwords are the
    // same.
    factory.helm("install", &in_repository("charts/flutecast"), &images, NOTHING_STAYS).await.unwrap();
    factory.wait_ready().await.unwrap();
    assert_eq!(iot_id(&factory).await, id);
    assert_eq!(passwords(&factory).await, before);
    let (mut client, reach) = watch(&factory, &last).await;
    assert_eq!([next(&mut client).await.0, next(&mut client).await.0], [3, 4]);
    uninstall_keeps_only_objects(&mut factory).await;
    drop(reach);
    // The namespace can be deleted without an operator, so no finalizer is left.
    namespace.delete(&cluster).await.unwrap();
}
