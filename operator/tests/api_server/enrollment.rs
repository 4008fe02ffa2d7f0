//! Devices that enroll: on a real API server, with the rights of manifests/operator/rbac.yaml.

use std::time::{Duration, Instant};

use async_nats::Client;
use flutecast_nats::JetStreamApi;
use flutecast_testkit::wait_until;
use futures_util::StreamExt;
use serde_json::Value;

use crate::manifests::{device, format, tenant};
use crate::support::{Cluster, SOON};

fn automatic(name: &str, more: &str) -> String {
    let template =
        "template: {labels: {line: l1}, channels: [{name: power, format: on-off, staleAfter: 10s}]}";
    tenant(
        name,
        &format!("enrollment: {{policy: Automatic, codePattern: '[A-Z]+-[0-9]+', {template}}}{more}"),
    )
}

async fn ask(client: &Client, tenant: &str, code: &str) -> Result<Value, String> {
    let asked = client.request(format!("flutecast.{tenant}.enroll"), code.to_owned().into());
    let message = tokio::time::timeout(SOON, asked).await.map_err(|_| "no answer")?;
    serde_json::from_slice(&message.map_err(|error| error.to_string())?.payload)
        .map_err(|error| error.to_string())
}

async fn until(
    cluster: &Cluster,
    client: &Client,
    (tenant, code): (&str, &str),
    pointer: &str,
    expected: &str,
) -> Value {
    wait_until(&format!("{pointer} of {tenant}/{code} to be {expected}"), SOON, async || {
        let answer = ask(client, tenant, code).await?;
        if answer.pointer(pointer).and_then(Value::as_str) == Some(expected) {
            Ok(answer)
        } else {
            Err(answer.to_string())
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()))
}

/// Returns the Devices of a tenant, by code.
async fn codes(cluster: &Cluster, tenant: &str) -> Vec<String> {
    let devices = cluster.list("devices", "default").await;
    let ours = devices.iter().filter(|device| device["spec"]["tenant"] == tenant);
    let mut codes: Vec<String> =
        ours.map(|device| device["spec"]["deviceCode"].as_str().unwrap().to_owned()).collect();
    codes.sort();
    codes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_an_object_enrolls() {
    let mut cluster = Cluster::with_operator().await;
    let client = cluster.nats.client().await.unwrap();
    cluster.apply(&automatic("acme", "")).await;
    cluster.apply(&device("known", "acme", "KNOWN-1", "on-off")).await;
    // Without the format a Device can't be Ready.
    cluster.until("tenant", "acme", "Ready=False FormatMissing Reconciling=True").await;
    until(&cluster, &client, ("acme", "CORR-01"), "/error/reason", "Unavailable").await;
    cluster.apply(&format("on-off")).await;
    cluster.until("tenant", "acme", "Ready=True Accepted").await;
    until(&cluster, &client, ("acme", "KNOWN-1"), "/deviceCode", "KNOWN-1").await;

    let answers = many_ask_at_once(&cluster, &client).await;
    what_was_created_is_a_device_like_others(&cluster, &client, &answers[0]).await;
    nothing_that_exists_is_changed(&cluster, &client).await;
    the_quota_holds(&cluster, &client).await;
    two_operators_give_one_answer(&mut cluster, &client).await;
    without_the_right_nothing_is_created(&cluster, &client).await;
    a_tenant_that_goes_gets_no_more(&cluster, &client).await;
}

/// Several requests for one code create one Device, and each gets a reply.
async fn many_ask_at_once(cluster: &Cluster, client: &Client) -> Vec<Value> {
    let began = Instant::now();
    let answers = futures_util::future::join_all((0..4).map(|_| ask(client, "acme", "CORR-01"))).await;
    let answers: Vec<Value> = answers.into_iter().map(Result::unwrap).collect();
    assert!(answers.iter().all(|answer| answer["iotId"].is_string() && *answer == answers[0]), "{answers:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(codes(cluster, "acme").await, ["CORR-01", "KNOWN-1"]);
    let created = ["kind=\"Device\"", "verb=\"Create\""];
    assert_eq!(cluster.operator.as_ref().unwrap().api_writes(&created).await, 1.0);
    answers
}

async fn what_was_created_is_a_device_like_others(cluster: &Cluster, client: &Client, answer: &Value) {
    let iot_id = answer["iotId"].as_str().unwrap();
    let name = format!("corr-01-{iot_id}");
    let device = cluster.get("device", &name, "default").await.unwrap();
    assert_eq!(
        device["metadata"]["labels"],
        serde_json::json!({"line": "l1", "flutecast.io/enrolled": "true"})
    );
    assert!(device["metadata"].get("ownerReferences").is_none());
    // A message on the subject of the reply is stored.
    let subject = answer["subjects"]["power"].as_str().unwrap().to_owned();
    client.publish(subject.clone(), r#"{"on":true}"#.into()).await.unwrap();
    let api = JetStreamApi::new(client.clone());
    wait_until("the message in the stream", SOON, async || {
        api.last_sequence_on("IOT_acme", &subject).await.unwrap().ok_or("not there")
    })
    .await
    .unwrap();
    cluster.until("device", &name, "Ready=True Accepted").await;
    let device = cluster.get("device", &name, "default").await.unwrap();
    assert_eq!(device["status"]["subjects"][0], subject);
    let refused = ask(client, "acme", "corr-01").await.unwrap();
    assert_eq!(refused["error"]["reason"], "CodeNotAllowed", "{refused}");
}

/// An existing object with the name of the Device is not changed, and the device gets a refusal at once.
async fn nothing_that_exists_is_changed(cluster: &Cluster, client: &Client) {
    let id = flutecast_contract::iot_id::generate(&"acme".parse().unwrap(), &"FLEX-7".parse().unwrap());
    let name = format!("flex-7-{id}");
    cluster.apply(&device(&name, "acme", "OTHER-1", "on-off")).await;
    cluster.until("device", &name, "Ready=True Accepted").await;
    let began = Instant::now();
    let answer = ask(client, "acme", "FLEX-7").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "nothing is waited for: {:?}", began.elapsed());
    assert_eq!(answer["error"]["reason"], "NameTaken", "{answer}");
    let said = answer["error"]["message"].as_str().unwrap();
    for told in [
        format!("metadata.name: \"{name}\""),
        "is taken by a Device with spec.deviceCode \"OTHER-1\"; rename or delete that one, or apply a Device"
            .to_owned(),
        "spec.tenant \"acme\" and spec.deviceCode \"FLEX-7\" under another name".to_owned(),
    ] {
        assert!(said.contains(&told), "{said}");
    }
    // As the message says, another name works.
    let other_name = device("flexo-7", "acme", "FLEX-7", "on-off");
    cluster.apply(&other_name).await;
    until(cluster, client, ("acme", "FLEX-7"), "/deviceCode", "FLEX-7").await;
    cluster.kubectl(&["delete", "fd", "flexo-7"]).await;
    another_tenants_device_is_not_told_of(cluster, client).await;
    let device = cluster.get("device", &name, "default").await.unwrap();
    assert_eq!(device["spec"]["deviceCode"], "OTHER-1");
    assert_eq!(device["metadata"]["generation"], 1);
}

/// Replies say nothing about Devices of other tenants, though both are in one namespace.
async fn another_tenants_device_is_not_told_of(cluster: &Cluster, client: &Client) {
    let id = flutecast_contract::iot_id::generate(&"acme".parse().unwrap(), &"FLEX-8".parse().unwrap());
    let name = format!("flex-8-{id}");
    cluster.apply(&device(&name, "elsewhere", "SECRET-1", "on-off")).await;
    let answer = ask(client, "acme", "FLEX-8").await.unwrap();
    assert_eq!(answer["error"]["reason"], "NameTaken", "{answer}");
    let said = answer["error"]["message"].as_str().unwrap();
    assert!(said.contains("is taken by a Device of another tenant") && !said.contains("SECRET"), "{said}");
    assert!(!said.contains("elsewhere"), "{said}");
    cluster.kubectl(&["delete", "fd", &name]).await;
}

async fn the_quota_holds(cluster: &Cluster, client: &Client) {
    cluster.apply(&automatic("small", "\n  quota: {maxDevices: 2}")).await;
    cluster.until("tenant", "small", "Ready=True Accepted").await;
    let wanted: Vec<String> = (0..6).map(|n| format!("C-{n}")).collect();
    let answers = futures_util::future::join_all(wanted.iter().map(|code| ask(client, "small", code))).await;
    let answers: Vec<Value> = answers.into_iter().map(Result::unwrap).collect();
    let refused = answers.iter().filter(|answer| answer["error"]["reason"] == "QuotaExceeded").count();
    assert_eq!((answers.len() - refused, refused), (2, 4), "{answers:#?}");
    assert_eq!(codes(cluster, "small").await.len(), 2);
}

/// Of two operators one replies, once; and the other one takes over.
async fn two_operators_give_one_answer(cluster: &mut Cluster, client: &Client) {
    let other = cluster.spawn_operator("the-other-operator").await;
    other.wait_until_ready().await;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    for code in ["KNOWN-1", "TWO-1"] {
        client.publish_with_reply("flutecast.acme.enroll", inbox.clone(), code.into()).await.unwrap();
        let answer = tokio::time::timeout(SOON, answers.next()).await.unwrap().unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["deviceCode"], code);
    }
    // A later request with a reply shows that no other operator replied to the first ones.
    client.publish_with_reply("flutecast.acme.enroll", inbox.clone(), "CORR-01".into()).await.unwrap();
    let answer = tokio::time::timeout(SOON, answers.next()).await.unwrap().unwrap();
    assert!(answer.payload.windows(7).any(|window| window == b"CORR-01"), "{answer:?}");
    let mut first = cluster.operator.replace(other).unwrap();
    first.process.terminate(SOON).await.unwrap();
    until(cluster, client, ("acme", "THREE-1"), "/deviceCode", "THREE-1").await;
    assert_eq!(codes(cluster, "acme").await, ["CORR-01", "KNOWN-1", "OTHER-1", "THREE-1", "TWO-1"]);
}

async fn without_the_right_nothing_is_created(cluster: &Cluster, client: &Client) {
    crate::support::may_create_devices(cluster, false).await;
    until(cluster, client, ("acme", "FOUR-1"), "/error/reason", "Unavailable").await;
    let message = cluster.until("tenant", "acme", "Ready=False EnrollmentUnavailable Stalled=True").await;
    assert!(message.contains("--verb=create"), "{message}");
    until(cluster, client, ("acme", "CORR-01"), "/deviceCode", "CORR-01").await;
    crate::support::may_create_devices(cluster, true).await;
    cluster.until("tenant", "acme", "Ready=True Accepted").await;
    until(cluster, client, ("acme", "FOUR-1"), "/deviceCode", "FOUR-1").await;
}

/// Otherwise the Tenant would never be without Devices.
async fn a_tenant_that_goes_gets_no_more(cluster: &Cluster, client: &Client) {
    let held =
        automatic("goes", "").replace("{name: goes}", "{name: goes, finalizers: [test.example.com/held]}");
    cluster.apply(&held).await;
    cluster.until("tenant", "goes", "Ready=True Accepted").await;
    until(cluster, client, ("goes", "ONE-1"), "/deviceCode", "ONE-1").await;
    cluster.kubectl(&["delete", "tenant", "goes", "--wait=false"]).await;
    cluster.until("tenant", "goes", "Ready=False InUse Reconciling=True").await;
    // As the message says; and the device repeats its request.
    let name = cluster.list("devices", "default").await;
    let name =
        name.iter().find(|device| device["spec"]["tenant"] == "goes").unwrap()["metadata"]["name"].clone();
    cluster.kubectl(&["delete", "device", name.as_str().unwrap()]).await;
    until(cluster, client, ("goes", "ONE-1"), "/error/reason", "Unavailable").await;
    assert!(codes(cluster, "goes").await.is_empty());
    cluster
        .kubectl(&["patch", "tenant", "goes", "--type=merge", "--patch={\"metadata\":{\"finalizers\":null}}"])
        .await;
    cluster.until_gone("tenant", "goes").await;
}
