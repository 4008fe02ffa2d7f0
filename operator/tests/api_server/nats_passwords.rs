//! The Secret with the passwords of the bundled NATS: made once by whoever is first, kept whatever is in it,
//! and followed when it changes. NATS is started with what is in the Secret, as its pod is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use flutecast_testkit::{NatsOptions, NatsPorts, NatsServer, free_ports, http_client, wait_until};

use crate::support::{Cluster, OWN, Running, SOON, repository};

const NAME: &str = "flutecast-nats-passwords";
const RIGHTS: &str = "manifests/operator/nats-passwords.yaml";
const MADE: &str = "NATS's passwords are made";
const LOGINS: &str = "
authorization {
  users: [
    {user: operator, password: $OPERATOR_PASSWORD}
    {user: dataplane, password: $DATAPLANE_PASSWORD}
    {user: devices, password: $DEVICES_PASSWORD}
  ]
}
";

/// Returns a cluster whose operators make the Secret, and the ports of the NATS that they log in to.
async fn cluster() -> (Cluster, NatsPorts) {
    let mut cluster = Cluster::start().await;
    cluster.kubectl(&["apply", "--server-side", "-f", &repository(RIGHTS)]).await;
    let [client, mqtt, monitor] = free_ports().unwrap();
    let nats = format!("nats://operator@127.0.0.1:{client}").leak();
    cluster.arguments = vec!["--nats", nats, "--nats-passwords-secret", NAME];
    (cluster, NatsPorts { client, mqtt, monitor })
}

/// Returns what is in the Secret.
async fn passwords(cluster: &Cluster) -> Result<BTreeMap<String, String>, String> {
    let secret = cluster.get("secret", NAME, OWN).await.ok_or("there is no Secret")?;
    let decoded = |value: &serde_json::Value| {
        let bytes = data_encoding::BASE64.decode(value.as_str().unwrap().as_bytes()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    let data = secret["data"].as_object().ok_or("it holds nothing")?;
    Ok(data.iter().map(|(key, value)| (key.clone(), decoded(value))).collect())
}

async fn until_passwords(cluster: &Cluster, operators: &[Running]) -> BTreeMap<String, String> {
    wait_until("the Secret", SOON, async || passwords(cluster).await).await.unwrap_or_else(|error| {
        let logs: Vec<_> = operators.iter().map(|operator| operator.process.tail()).collect();
        panic!("{error:#}\n{}", logs.join("\n---\n"))
    })
}

/// Starts NATS as its pod does: with the passwords in its environment.
async fn nats(ports: NatsPorts, folder: &Path, passwords: &BTreeMap<String, String>) -> NatsServer {
    let variable = |user: &str| OsString::from(format!("{}_PASSWORD", user.to_uppercase()));
    let env = passwords.iter().map(|(user, password)| (variable(user), password.into())).collect();
    let options = NatsOptions {
        ports: Some(ports),
        folder: Some(folder.to_owned()),
        extra: LOGINS.to_owned(),
        env,
        ..NatsOptions::default()
    };
    NatsServer::start_with(options).await.unwrap()
}

async fn until_it_says(operator: &Running, expected: &str) {
    let page = format!("{}/readyz", operator.admin);
    wait_until(&format!("the operator to say {expected:?}"), SOON, async || {
        let said = http_client::get(&page).await.map_err(|error| error.to_string())?.text();
        if said.contains(expected) { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", operator.process.tail()));
}

async fn patch(cluster: &Cluster, data: &str) {
    let patch = format!("{{\"stringData\": {{{data}}}}}");
    cluster.kubectl(&["patch", "secret", NAME, "-n", OWN, "--type=merge", "-p", &patch]).await;
}

/// Asserts that no password is in any line of the logs.
fn assert_silent(operators: &[Running], passwords: &BTreeMap<String, String>) {
    for operator in operators {
        for line in operator.process.output() {
            let quoted = passwords.values().find(|password| line.contains(*password));
            assert!(quoted.is_none(), "{line}");
        }
    }
}

/// Waits until each operator has connected to NATS once more than `before`.
async fn until_connected(operators: &mut [Running], before: &[usize]) {
    for (operator, from) in operators.iter_mut().zip(before) {
        let line = |line: &str| line.contains("connected to NATS") && !line.contains("away");
        operator.process.wait_for_line_from(*from, "a login", SOON, line).await.unwrap();
    }
}

fn line_counts(operators: &[Running]) -> Vec<usize> {
    operators.iter().map(|operator| operator.process.line_count()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_made_once_kept_and_followed() {
    let (cluster, ports) = cluster().await;
    // All at once: none of them waits for the Lease to make the Secret.
    let mut operators = Vec::new();
    for identity in ["a", "b", "c"] {
        operators.push(cluster.spawn_operator(identity).await);
    }
    let first = until_passwords(&cluster, &operators).await;
    let folder = tempfile::tempdir().unwrap();
    let mut server = nats(ports, folder.path(), &first).await;
    until_connected(&mut operators, &[0, 0, 0]).await;
    for operator in &operators {
        operator.wait_until_ready().await;
    }
    let makers = operators.iter().flat_map(|operator| operator.process.output());
    assert_eq!(makers.filter(|line| line.contains(MADE)).count(), 1, "one operator made it");
    assert_eq!(first.keys().collect::<Vec<_>>(), ["dataplane", "devices", "operator"]);
    assert!(first.values().all(|password| password.len() > 40), "{first:?}");
    let secret = cluster.get("secret", NAME, OWN).await.unwrap();
    let labels = serde_json::json!({"app.kubernetes.io/managed-by": "flutecast"});
    assert_eq!(secret["metadata"]["labels"], labels, "none that Argo CD takes for its own");
    assert!(secret["metadata"]["ownerReferences"].is_null(), "{secret:#}");

    // Another password, and NATS started again with it: nobody else is.
    let from = line_counts(&operators);
    patch(&cluster, "\"operator\": \"changed-by-hand\"").await;
    let changed = passwords(&cluster).await.unwrap();
    assert_eq!((&changed["operator"][..], &changed["devices"]), ("changed-by-hand", &first["devices"]));
    server.stop().await.unwrap();
    server = nats(ports, folder.path(), &changed).await;
    until_connected(&mut operators, &from).await;

    // Deleted by mistake: devices know these passwords, so it comes again with them.
    cluster.kubectl(&["delete", "secret", NAME, "-n", OWN]).await;
    server.stop().await.unwrap();
    assert_eq!(until_passwords(&cluster, &operators).await, changed);
    let from = line_counts(&operators);
    let _server = nats(ports, folder.path(), &changed).await;
    until_connected(&mut operators, &from).await;
    assert_silent(&operators, &first);
    assert_silent(&operators, &changed);
}

/// Each wrong Secret is named with what would be right, and never changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_and_a_missing_right_are_named() {
    let (cluster, ports) = cluster().await;
    let rights = ["delete", "-f", &repository(RIGHTS)];
    cluster.kubectl(&rights).await;
    let operators = [cluster.spawn_operator("a").await];
    let operator = &operators[0];
    until_it_says(operator, "a right is missing: secrets \"flutecast-nats-passwords\" is forbidden").await;
    let remedy = "needs get, create and patch on the Secret flutecast-system/flutecast-nats-passwords";
    until_it_says(operator, remedy).await;

    let secret = ["create", "secret", "generic", NAME, "-n", OWN];
    let values = ["--from-literal=operator=own-password", "--from-literal=dataplane=1-digit-first"];
    cluster.kubectl(&[&secret[..], &values].concat()).await;
    let before = cluster.get("secret", NAME, OWN).await;
    cluster.kubectl(&["apply", "--server-side", "-f", &repository(RIGHTS)]).await;
    until_it_says(operator, "nats-server may not read the value of dataplane").await;
    assert_eq!(cluster.get("secret", NAME, OWN).await, before);
    patch(&cluster, "\"dataplane\": \"letter-first\"").await;
    until_it_says(operator, "has no key devices, so nats-server does not start: add it").await;
    patch(&cluster, "\"devices\": \"third_1\"").await;
    until_it_says(operator, "streams were not applied yet; is NATS there?").await;

    let whole = passwords(&cluster).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let _server = nats(ports, folder.path(), &whole).await;
    operator.wait_until_ready().await;
    assert!(operator.process.output().iter().all(|line| !line.contains(MADE)));
    assert_silent(&operators, &whole);
}
