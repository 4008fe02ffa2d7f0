//! The output that users see: Events, the columns and descriptions of kubectl, and the transcripts of these
//! in docs/generated/transcripts.md, which are written from here. Also that the operator uses each of its
//! rights.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_operator::rights;
use flutecast_testkit::wait_until;
use regex::Regex;
use serde_json::Value;

use crate::manifests::{device, format, tenant};
use crate::messages::LOOKED_AT;
use crate::support::{Cluster, SOON, repository};

const PAGE: &str = "docs/generated/transcripts.md";
/// The marks around the transcripts in the page.
const PRESENCE: &str = "<!-- transcript of presence: written by `make transcripts` -->\n";
const DEMO: &str = "<!-- transcript of the demo: written by `make transcripts` -->\n";
const END: &str = "<!-- end of the transcript -->\n";
/// The namespace of the devices whose presence is shown.
const HALL: &str = "hall";
const TWICE: &str = "apiVersion: flutecast.io/v1alpha1\nkind: Device\nmetadata: {name: corrugator-2}\nspec: \
                     {tenant: demo, deviceCode: CORR-01, channels: [{name: power, format: on-off}]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_and_events_show_what_is_documented() {
    let mut cluster = Cluster::start().await;
    // There are no pods, so it waits for none.
    cluster.arguments = vec!["--service", "flutecast-dataplane"];
    cluster.start_operator().await;
    cluster
        .kubectl(&["apply", "--server-side", "-f", &repository("manifests/operator/protection.yaml")])
        .await;
    let demo = repository("manifests/demo");
    cluster.kubectl(&["apply", "--server-side", "--recursive", "-f", &demo]).await;
    let wait = ["wait", "--for=condition=Ready", "--timeout=30s", "--all", "ft,fd,fpf"];
    let waited = cluster.api.kubectl(&wait, "").await;
    waited.unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
    cluster.apply(TWICE).await;
    cluster.until("device", "corrugator-2", "Ready=False DuplicateDeviceCode Stalled=True").await;

    an_event_is_about_its_object(&cluster).await;
    the_columns_are_filled(&cluster).await;
    the_page_is_what_kubectl_shows(&cluster).await;
    presence_is_what_the_page_shows(&cluster).await;
    the_same_again_counts_up(&cluster).await;
    each_right_is_used(&cluster).await;
}

/// Returns the Events about an object.
async fn events(cluster: &Cluster, name: &str) -> Vec<Value> {
    let all = cluster.list("events.events.k8s.io", "default").await;
    all.into_iter().filter(|event| event["regarding"]["name"] == name).collect()
}

async fn until_events(cluster: &Cluster, name: &str, expected: &[(&str, &str, u64)]) -> Vec<Value> {
    wait_until(&format!("the events of {name} to be {expected:?}"), SOON, async || {
        let events = events(cluster, name).await;
        let mut told: Vec<(&str, &str, u64)> = events
            .iter()
            .map(|event| {
                let word = |field: &str| event[field].as_str().unwrap();
                (word("type"), word("reason"), event["series"]["count"].as_u64().unwrap_or(1))
            })
            .collect();
        told.sort_unstable();
        if told == expected { Ok(events.clone()) } else { Err(format!("{told:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()))
}

async fn an_event_is_about_its_object(cluster: &Cluster) {
    let event =
        until_events(cluster, "corrugator-2", &[("Warning", "DuplicateDeviceCode", 1)]).await.remove(0);
    let device = cluster.get("device", "corrugator-2", "default").await.unwrap();
    let regarding = &event["regarding"];
    assert_eq!(regarding["kind"], "Device");
    assert_eq!(regarding["apiVersion"], "flutecast.io/v1alpha1");
    assert_eq!(regarding["namespace"], "default");
    assert_eq!(regarding["uid"], device["metadata"]["uid"]);
    assert_eq!(event["reportingController"], "flutecast.io/flutecast-operator");
    assert_eq!(event["reportingInstance"], "operator-of-a-test");
    assert_eq!(event["action"], "Reconcile");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("is taken by Device/corrugator-1") && note.contains("give this device another code"),
        "{note}"
    );
    // An object that is Ready from the start has no Event.
    assert!(events(cluster, "corrugator-1").await.iter().all(|event| event["type"] == "Normal"));
}

/// An object becomes Ready and broken again within some minutes: one Event for each of the two, with a count.
async fn the_same_again_counts_up(cluster: &Cluster) {
    let well = format("bent");
    let broken = well.replace("pointer: /on, type: Bool", "expression: \"values.running >\"");
    for count in 1..=2 {
        cluster.apply(&broken).await;
        cluster.until("fpf", "bent", "Ready=False FormatInvalid Stalled=True").await;
        cluster.apply(&well).await;
        cluster.until("fpf", "bent", "Ready=True Accepted").await;
        until_events(cluster, "bent", &[("Normal", "Accepted", count), ("Warning", "FormatInvalid", count)])
            .await;
    }
}

/// Parses a table of kubectl into rows with the names of the columns.
fn table(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.lines();
    let head = lines.next().unwrap();
    let starts: Vec<usize> = Regex::new(r"\S+").unwrap().find_iter(head).map(|name| name.start()).collect();
    let cell = |line: &str, at: usize| -> String {
        let end = starts.get(at + 1).copied().unwrap_or(usize::MAX);
        line.chars().skip(starts[at]).take(end - starts[at]).collect::<String>().trim().to_owned()
    };
    lines.map(|line| (0..starts.len()).map(|at| (cell(head, at), cell(line, at))).collect()).collect()
}

/// Checks cells of a row, and that the columns with times are filled.
fn check_row(row: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    let age = Regex::new(r"^\d+[smh](\d+s)?$").unwrap();
    for (column, value) in expected {
        let shown = row.get(*column).unwrap_or_else(|| panic!("no {column} in {row:?}"));
        assert_eq!(shown, value, "{column} in {row:?}");
    }
    for column in ["SINCE", "AGE"] {
        assert!(age.is_match(&row[column]), "{column} in {row:?}");
    }
}

/// Returns the row of an object in a table of kubectl.
async fn row(cluster: &Cluster, args: &[&str], name: &str) -> BTreeMap<String, String> {
    let rows = table(&cluster.kubectl(args).await);
    let row = rows.into_iter().find(|row| row["NAME"].ends_with(name));
    row.unwrap_or_else(|| panic!("{args:?} shows no {name}"))
}

async fn the_columns_are_filled(cluster: &Cluster) {
    // Two columns are called NAME: the object's name, and the display name, which is the later one.
    let tenants = cluster.kubectl(&["get", "ft", "demo", "-o", "wide"]).await;
    let demo = "Demo plant, line 1";
    let words = ["demo ", demo, " IOT_demo ", " 5 ", " True ", " Accepted ", "its streams and its mapping"];
    assert!(words.iter().all(|word| tenants.contains(word)), "{tenants}");
    let id = cluster.get("fd", "corrugator-1", "default").await.unwrap()["status"]["iotId"].clone();
    let id = id.as_str().unwrap();
    let first = row(cluster, &["get", "fd"], "corrugator-1").await;
    let accepted = ("REASON", "Accepted");
    let expected = [("TENANT", "demo"), ("CODE", "CORR-01"), ("IOTID", id), ("READY", "True"), accepted];
    check_row(&first, &expected);
    assert!(["Silent", "Unknown"].contains(&first["PRESENCE"].as_str()), "{first:?}");
    let second = row(cluster, &["get", "fd", "-o", "wide"], "corrugator-2").await;
    let taken = "spec.deviceCode: \"CORR-01\" is taken by Device/corrugator-1, which is older; give this \
                 device another code";
    let reason = ("REASON", "DuplicateDeviceCode");
    check_row(&second, &[("IOTID", ""), ("READY", "False"), reason, ("MESSAGE", taken)]);
    let on_off = row(cluster, &["get", "fpf", "-o", "wide"], "on-off").await;
    let (delivery, compiles) = (("DELIVERY", "Every"), ("MESSAGE", "it compiles"));
    check_row(&on_off, &[("CODEC", "JSON"), delivery, ("CHANNELS", "6"), ("READY", "True"), compiles]);
    // All three kinds at once, by their category.
    let all = cluster.kubectl(&["get", "flutecast", "-o", "name"]).await;
    assert_eq!(all.lines().count(), 1 + 6 + 9, "{all}");
    let wait = ["wait", "fd", "corrugator-2", "--for=condition=Ready", "--timeout=1s"];
    let failed = cluster.api.kubectl(&wait, "").await;
    assert!(failed.unwrap_err().to_string().contains("timed out"), "kubectl wait reports what isn't ready");
    cluster.kubectl(&["wait", "fd", "corrugator-2", "--for=condition=Stalled", "--timeout=5s"]).await;
}

/// One device is Online, one fell Silent, and one has no staleAfter.
async fn presence_is_what_the_page_shows(cluster: &Cluster) {
    cluster.kubectl(&["create", "namespace", HALL]).await;
    let watched = |name: &str, code: &str, stale_after: &str| {
        let more = format!("format: on-off, staleAfter: {stale_after}}}");
        device(name, HALL, code, "on-off").replace("format: on-off}", &more)
    };
    let apply = ["apply", "--server-side", "-n", HALL, "-f", "-"];
    let wait = |kind| ["wait", kind, "--all", "-n", HALL, "--for=condition=Ready", "--timeout=30s"];
    cluster.api.kubectl(&apply, &format!("{}---\n{}", tenant(HALL, ""), format("on-off"))).await.unwrap();
    cluster.kubectl(&wait("ft")).await;
    // They publish before the first lookup, so each changes at most once.
    let client = cluster.nats.client().await.unwrap();
    for code in ["OVEN-01", "PRESS-01"] {
        let id = flutecast_contract::iot_id::generate(&HALL.parse().unwrap(), &code.parse().unwrap());
        client.publish(format!("iot.{HALL}.{id}.power"), r#"{"on":true}"#.into()).await.unwrap();
    }
    client.flush().await.unwrap();
    // Wait until the oven's message is older than its staleAfter: the report of a flapping device is delayed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let devices = [
        watched("oven", "OVEN-01", "1s"),
        watched("press", "PRESS-01", "10m"),
        device("scale", HALL, "SCALE-01", "on-off"),
    ];
    cluster.api.kubectl(&apply, &devices.join("---\n")).await.unwrap();
    cluster.kubectl(&wait("fd")).await;
    let shown = wait_until("what is known of each device", LOOKED_AT + SOON, async || {
        let text = cluster.kubectl(&["get", "fd", "-n", HALL]).await;
        let rows = table(&text);
        let known = |row: &BTreeMap<String, String>| format!("{} {}", row["PRESENCE"], row["MESSAGES"]);
        let known: Vec<String> = rows.iter().map(known).collect();
        let expected = ["Silent Understood", "Online Understood", "Unknown NoMessages"];
        if known == expected { Ok(text) } else { Err(text) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
    let for_how_long: Vec<bool> = table(&shown).iter().map(|row| !row["FOR"].is_empty()).collect();
    assert_eq!(for_how_long, [true, true, false], "{shown}");
    let now = format!("```\n$ kubectl get fd -n {HALL}\n{shown}```\n");
    the_page_has(PRESENCE, &now, |text| {
        // Ages, and the widths of columns that follow from them.
        let ages = Regex::new(r"\b\d+[smh](\d+s)?(\s|$)").unwrap().replace_all(text, "<age> ");
        Regex::new(" +").unwrap().replace_all(&ages, " ").into_owned()
    });
}

/// Returns the current transcript.
async fn transcript(cluster: &Cluster) -> String {
    let mut text = "```\n$ kubectl apply --server-side --recursive -f manifests/demo\n$ kubectl wait \
                    --for=condition=Ready --timeout=30s --all ft,fd,fpf\n"
        .to_owned();
    let all = cluster.kubectl(&["get", "ft,fd,fpf"]).await;
    text.push_str(&format!("$ kubectl get ft,fd,fpf\n{all}\n"));
    let page = cluster.kubectl(&["describe", "fd", "corrugator-2"]).await;
    // The part above is the manifest.
    let status = page.split_once("\nStatus:\n").unwrap().1;
    text.push_str(&format!("$ kubectl describe fd corrugator-2\n…\nStatus:\n{status}\n"));
    let refused = cluster.api.kubectl(&["delete", "fpf", "on-off"], "").await.unwrap_err().to_string();
    // The harness puts the command before the output of kubectl.
    let refused = refused.split_once("on-off: ").unwrap().1;
    text.push_str(&format!("$ kubectl delete fpf on-off\n{refused}\n```\n"));
    text
}

/// Returns a text without ages, times, and the widths of columns that follow from them.
fn normal(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, with) in [
        (r"\d{4}-\d\d-\d\dT[0-9:]+Z", "<time>"),
        (r"\b\d+[smh](\d+s)?( \(x\d+ over \d+[smh]\))?(\s|$)", "<age> "),
        (r"-{3,}", "---"),
        // Depends on whether a device that never published was looked up already.
        (r"(Silent|Unknown)( +<age>)?", "<presence>"),
        (r"(?m)^  Last Transition: .*\n", ""),
        // Any of its users may be named.
        (r"used by Device \S+ \(\S+\), channel \S+;", "used by <user>;"),
        (r" +", " "),
        (r"(?m) +$", ""),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

async fn the_page_is_what_kubectl_shows(cluster: &Cluster) {
    wait_until("the policy to be in force", SOON, async || {
        match cluster.api.kubectl(&["delete", "fpf", "on-off", "--dry-run=server"], "").await {
            Err(error) if error.to_string().contains("is used by Device") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    the_page_has(DEMO, &transcript(cluster).await, normal);
}

/// Checks that the page has this text between its marks, after `normal` of both; or writes it, if
/// FLUTECAST_WRITE_TRANSCRIPTS is set.
fn the_page_has(mark: &str, now: &str, normal: impl Fn(&str) -> String) {
    let page = std::fs::read_to_string(repository(PAGE)).unwrap();
    let (head, rest) =
        page.split_once(mark).unwrap_or_else(|| panic!("{PAGE} has no place for the transcript: {mark}"));
    let (written, tail) = rest.split_once(END).unwrap();
    if std::env::var_os("FLUTECAST_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(repository(PAGE), format!("{head}{mark}{now}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(normal(written), normal(now), "{PAGE} isn't what kubectl shows; run: make transcripts");
}

/// Checks that the operator used each rule of the manifest, by verb and resource, in this test.
async fn each_right_is_used(cluster: &Cluster) {
    // A device that enrolls, and a Tenant that goes.
    let template = "template: {channels: [{name: power, format: on-off}]}";
    cluster.apply(&tenant("auto", &format!("enrollment: {{policy: Automatic, {template}}}"))).await;
    cluster.until("tenant", "auto", "Ready=True Accepted").await;
    let client = cluster.nats.client().await.unwrap();
    wait_until("a device to enroll", SOON, async || {
        let asked = client.request("flutecast.auto.enroll", "NEW-1".into()).await;
        let answer = asked.map_err(|error| error.to_string())?;
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        if answer.contains("\"iotId\"") { Ok(()) } else { Err(answer) }
    })
    .await
    .unwrap();
    cluster.kubectl(&["delete", "fd", "--all"]).await;
    wait_until("the Tenant to go", SOON, async || {
        cluster.api.kubectl(&["delete", "ft", "auto"], "").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    // The access Secret is repaired.
    cluster
        .kubectl(&[
            "patch",
            "secret",
            "flutecast-access",
            "-n",
            crate::support::OWN,
            "--type=merge",
            "-p",
            "{\"data\":{\"access.yaml\":\"\"}}",
        ])
        .await;

    let mut stated = BTreeSet::new();
    for right in rights::AMONG_TENANTS.iter().chain(rights::AT_HOME).copied().flatten() {
        for resource in right.resources {
            for verb in right.verbs {
                stated.insert(format!("{verb} {}/{resource}", right.group));
            }
        }
    }
    wait_until("each right to be used", SOON, async || {
        let used = used(cluster);
        let idle: Vec<&String> = stated.iter().filter(|right| !used.contains(*right)).collect();
        if idle.is_empty() { Ok(()) } else { Err(format!("not used: {idle:?}")) }
    })
    .await
    .unwrap_or_else(|error| {
        panic!("{error:#}\nremove the right where it is stated, or have this test use it")
    });
}

/// Returns the requests of the operator that were granted.
fn used(cluster: &Cluster) -> BTreeSet<String> {
    let account = format!("system:serviceaccount:{}:flutecast-operator", crate::support::OWN);
    let requests = cluster.api.audit().unwrap();
    let granted = requests.iter().filter(|request| {
        request["user"]["username"] == account && request["responseStatus"]["code"].as_u64() != Some(403)
    });
    granted
        .flat_map(|request| {
            let object = &request["objectRef"];
            let group = object["apiGroup"].as_str().unwrap_or_default();
            let resource = object["resource"].as_str().unwrap_or_default();
            let below = object["subresource"].as_str().map(|below| format!("/{below}")).unwrap_or_default();
            let verb = request["verb"].as_str().unwrap();
            // A server-side apply that creates an object is a patch that needs the right to create.
            let is_made = verb == "patch" && request["responseStatus"]["code"] == 201;
            let verbs = [Some(verb), is_made.then_some("create")];
            verbs
                .into_iter()
                .flatten()
                .map(move |verb| format!("{verb} {group}/{resource}{below}"))
                .collect::<Vec<_>>()
        })
        .collect()
}
