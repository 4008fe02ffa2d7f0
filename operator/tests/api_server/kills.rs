//! An operator that is killed at random moments of a sequence of creates, changes and deletes comes to the
//! same end as one that is not: streams, ConfigMaps, the access Secret, statuses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_nats::JetStreamApi;
use flutecast_testkit::wait_until;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use regex::Regex;
use serde_json::Value;

use crate::manifests::{device, format, tenant};
use crate::support::mapping_of;
use crate::support::{Cluster, OWN, SOON};

/// The seed of the sequence, unless FLUTECAST_SEED is set. The moments of the kills follow from it too, as
/// far as the speed of the machine allows.
const SEED: u64 = 20_261_123;
const STEPS: usize = 36;

/// One step of a user.
#[derive(Debug, Clone)]
enum Step {
    Apply(String),
    Delete(&'static str, String),
}

impl Step {
    async fn take(&self, cluster: &Cluster) {
        match self {
            Self::Apply(yaml) => cluster.apply(yaml).await,
            Self::Delete(kind, name) => drop(cluster.kubectl(&["delete", kind, name]).await),
        }
    }
}

/// A sequence of steps, and the objects at its end.
fn run_of(seed: u64) -> (Vec<Step>, Vec<String>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut there: BTreeMap<(&'static str, String), String> = BTreeMap::new();
    let mut steps = Vec::new();
    let apply = |there: &mut BTreeMap<_, _>, steps: &mut Vec<Step>, kind, name: String, yaml: String| {
        there.insert((kind, name), yaml.clone());
        steps.push(Step::Apply(yaml));
    };
    let keep = "retention: {maxAge: 2h}";
    let delete = "retention: {onDelete: Delete}";
    for (kind, name, yaml) in [
        ("ft", "t1", tenant("t1", delete)),
        ("ft", "t2", tenant("t2", keep)),
        ("fpf", "on-off", format("on-off")),
        ("fpf", "other", format("other")),
    ] {
        apply(&mut there, &mut steps, kind, name.to_owned(), yaml);
    }
    for at in 0..STEPS {
        let number = rng.random_range(0..12);
        let name = format!("d{number}");
        let is_there = there.contains_key(&("fd", name.clone()));
        match rng.random_range(0..10) {
            0 => {
                // Sources and their streams come and go.
                let subject = format!("plant{at}.*.power");
                let source = format!(
                    "sources: [{{name: gw, subject: {subject}, channel: power, iotId: {{subjectToken: 2}}}}]"
                );
                let spec = ["displayName: Two", &source].choose(&mut rng).unwrap().to_string();
                apply(&mut there, &mut steps, "ft", "t2".to_owned(), tenant("t2", &spec));
            }
            1 => {
                let changed = format("other").replace("/on", &format!("/on{at}"));
                apply(&mut there, &mut steps, "fpf", "other".to_owned(), changed);
            }
            2..=4 if is_there => {
                there.remove(&("fd", name.clone()));
                steps.push(Step::Delete("fd", name));
            }
            _ => {
                let owner = if number % 2 == 0 { "t1" } else { "t2" };
                let used = ["on-off", "other"].choose(&mut rng).unwrap();
                let yaml = device(&name, owner, &format!("C-{number}"), used);
                apply(&mut there, &mut steps, "fd", name, yaml);
            }
        }
        if at == STEPS / 2 {
            // A Tenant goes before its devices, and some of them come back with it.
            there.remove(&("ft", "t1".to_owned()));
            steps.push(Step::Delete("ft", "t1".to_owned()));
        }
        if at == STEPS * 3 / 4 {
            apply(&mut there, &mut steps, "ft", "t1".to_owned(), tenant("t1", delete));
        }
    }
    // The last change needs the operator's work too.
    apply(&mut there, &mut steps, "fd", "last".to_owned(), device("last", "t1", "C-99", "on-off"));
    (steps, there.into_values().collect())
}

/// Returns all objects that the operator writes, without times and uids.
async fn state(cluster: &Cluster) -> BTreeMap<String, Value> {
    let mut state = BTreeMap::new();
    let mut uids = BTreeSet::new();
    let objects = cluster.list("tenants,devices,pushformats", "default").await;
    let own = cluster.list("configmaps,secrets", OWN).await;
    for object in objects.iter().chain(&own) {
        uids.insert(object["metadata"]["uid"].as_str().unwrap().to_owned());
    }
    let name = |object: &Value| {
        format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    for object in &objects {
        state.insert(name(object), object["status"].clone());
    }
    for object in &own {
        let meta = &object["metadata"];
        let (labels, annotations) = (&meta["labels"], &meta["annotations"]);
        let what = serde_json::json!({"data": object["data"], "labels": labels, "annotations": annotations});
        state.insert(name(object), what);
    }
    let api = JetStreamApi::new(cluster.nats.client().await.unwrap());
    for stream in api.streams().await.unwrap() {
        state.insert(
            format!("Stream/{}", stream.config["name"].as_str().unwrap()),
            Value::Object(stream.config),
        );
    }
    state.into_iter().map(|(name, value)| (name, normal(&value, &uids))).collect()
}

fn normal(value: &Value, uids: &BTreeSet<String>) -> Value {
    let mut text = value.to_string();
    for uid in uids {
        text = text.replace(uid, "<uid>");
    }
    let time = Regex::new(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z").unwrap();
    let text = time.replace_all(&text, "<time>");
    // The start of the reading of a source: the time when it began, in microseconds.
    let began = Regex::new(r"\b1\d{15}\b").unwrap();
    serde_json::from_str(&began.replace_all(&text, "0")).unwrap()
}

/// Returns the differences in words.
fn differences(one: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>) -> String {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ = names.into_iter().filter(|name| one.get(*name) != other.get(*name));
    let told = differ.map(|name| format!("{name}:\n  {:?}\n  {:?}", one.get(name), other.get(name)));
    told.collect::<Vec<_>>().join("\n")
}

/// Checks that the mapping is that of the folder mode, and that all objects are Ready in their newest
/// generation.
async fn until_settled(cluster: &Cluster, manifests: &[String]) {
    let expected = mapping_of(manifests).await;
    wait_until("the run to be done", SOON * 2, async || {
        cluster.is_mapped(&expected).await?;
        cluster.are_all_ready().await
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", cluster.operator_log()));
}

async fn without_a_death(steps: &[Step], end: &[String]) -> BTreeMap<String, Value> {
    let cluster = Cluster::with_operator().await;
    for step in steps {
        step.take(&cluster).await;
    }
    until_settled(&cluster, end).await;
    // Orphaned streams are deleted in a separate pass.
    let mut before = state(&cluster).await;
    wait_until("nothing to change any more", SOON, async || {
        let now = state(&cluster).await;
        let moved = differences(&before, &now);
        let gw_is_right =
            now.contains_key("Stream/SRC_t2_gw") == end.iter().any(|yaml| yaml.contains("name: gw"));
        before = now;
        if moved.is_empty() && gw_is_right { Ok(()) } else { Err(moved) }
    })
    .await
    .unwrap();
    before
}

/// Runs the same with an operator that is killed again and again, and is missing during some steps.
async fn with_deaths(
    steps: &[Step],
    end: &[String],
    seed: u64,
    expected: impl Future<Output = BTreeMap<String, Value>>,
) {
    let run = async {
        let mut rng = StdRng::seed_from_u64(seed ^ 0xdead);
        let mut cluster = Cluster::with_operator().await;
        let (mut deaths, mut away) = (0, 0);
        for step in steps {
            if cluster.operator.is_none() {
                if away == 0 {
                    // It need not be ready before the next step, nor before it is killed again.
                    cluster.operator = Some(cluster.spawn_operator("operator-of-a-test").await);
                } else {
                    away -= 1;
                }
            }
            step.take(&cluster).await;
            if rng.random_bool(0.4)
                && let Some(mut operator) = cluster.operator.take()
            {
                // Between immediately and after everything is written.
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
                operator.process.kill().await.unwrap();
                deaths += 1;
                away = rng.random_range(0..3);
            }
        }
        if cluster.operator.is_none() {
            cluster.start_operator().await;
        }
        assert!(deaths > 5, "only {deaths} deaths");
        until_settled(&cluster, end).await;
        cluster
    };
    let (cluster, expected) = tokio::join!(run, expected);
    wait_until("the state of a run without deaths", SOON, async || {
        let differ = differences(&expected, &state(&cluster).await);
        if differ.is_empty() { Ok(()) } else { Err(differ) }
    })
    .await
    .unwrap_or_else(|error| panic!("seed {seed}: {error:#}\n{}", cluster.operator_log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lead_to_the_same_end() {
    let seed = std::env::var("FLUTECAST_SEED").ok().map_or(SEED, |seed| seed.parse().unwrap());
    eprintln!("FLUTECAST_SEED={seed}");
    let (steps, end) = run_of(seed);
    let expected = Box::pin(without_a_death(&steps, &end));
    Box::pin(with_deaths(&steps, &end, seed, expected)).await;
}
