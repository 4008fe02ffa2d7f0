//! Whatever happens, a Device counts as served only if every ready pod really has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::document::ShardDocument;
use proptest::prelude::*;

use super::{Confirmation, Plant, SECOND, key};

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    Change(usize),
    Label(usize, u8),
    Delete(usize),
    Shards(u32),
    /// A pod takes up what was stored so many reconciles ago.
    Announce(usize, usize),
    Silence(usize),
    Ready(u8),
    /// The status of a device that is served is written.
    Write(usize),
    Time(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..4usize;
    let pod = 0..3usize;
    prop_oneof![
        2 => device.clone().prop_map(Step::Create),
        1 => device.clone().prop_map(Step::Change),
        1 => (device.clone(), 0..3u8).prop_map(|(device, line)| Step::Label(device, line)),
        1 => device.clone().prop_map(Step::Delete),
        1 => prop_oneof![Just(1), Just(2), Just(4)].prop_map(Step::Shards),
        4 => (pod.clone(), 0..3usize).prop_map(|(pod, back)| Step::Announce(pod, back)),
        1 => pod.prop_map(Step::Silence),
        2 => (0..8u8).prop_map(Step::Ready),
        2 => device.prop_map(Step::Write),
        1 => (0..4u32).prop_map(Step::Time),
    ]
}

/// What a device is: its generation, its label, whether its status says Ready.
type Known = (i64, u8, bool);

/// Checks after each step what is said against what the pods really have in their hands.
fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    const PODS: [&str; 3] = ["a", "b", "c"];
    let name = |device: usize| format!("d{device}");
    let mut plant = Plant::new();
    let mut devices: BTreeMap<usize, Known> = BTreeMap::new();
    let mut lives = 0;
    let mut ready: Vec<&str> = Vec::new();
    let mut history = vec![plant.store()];
    let mut has: BTreeMap<&str, Vec<Arc<ShardDocument>>> = BTreeMap::new();
    let mut was_served: BTreeMap<usize, i64> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Create(device) if !devices.contains_key(device) => {
                // Generations are never used twice here, so that one tells which life of the name a document
                // holds.
                lives += 100;
                devices.insert(*device, (lives, 0, false));
            }
            Step::Change(device) => {
                if let Some((generation, _, ready)) = devices.get_mut(device) {
                    *generation += 1;
                    *ready = false;
                    was_served.remove(device);
                }
            }
            Step::Label(device, line) => {
                if let Some(known) = devices.get_mut(device) {
                    known.1 = *line;
                }
            }
            Step::Delete(device) => {
                if devices.remove(device).is_some() {
                    plant.delete(&name(*device));
                    was_served.remove(device);
                }
            }
            Step::Shards(shards) => plant.shards = *shards,
            Step::Announce(pod, back) => {
                let documents = &history[history.len().saturating_sub(1 + back)];
                has.insert(PODS[*pod], documents.clone());
                plant.says(PODS[*pod], documents);
            }
            Step::Silence(pod) => {
                has.remove(PODS[*pod]);
                plant.is_silent(PODS[*pod]);
            }
            Step::Ready(bits) => {
                ready = (0..3).filter(|pod| bits & (1 << pod) != 0).map(|pod| PODS[pod]).collect();
                plant.ready(&ready);
            }
            Step::Write(device) => {
                if let Some(known) = devices.get_mut(device)
                    && matches!(plant.rollout.confirmation(&key(&name(*device))), Confirmation::Confirmed(_))
                {
                    known.2 = true;
                }
            }
            Step::Time(seconds) => plant.now += SECOND * *seconds,
            Step::Create(_) => {}
        }
        for (device, (generation, line, ready)) in &devices {
            plant.device(&name(*device), *generation, &format!("l{line}"), *ready);
        }
        plant.scope.all = true;
        history.push(plant.store());
        let newest = history.last().unwrap();
        for (device, (generation, _, is_ready)) in &devices {
            let holds = |documents: &Vec<Arc<ShardDocument>>| {
                let mut all = documents.iter().flat_map(|document| document.devices.values());
                let held = all.find(|held| held.name == name(*device));
                held.is_some_and(|held| {
                    let stale_after =
                        held.channels.values().next().and_then(|channel| channel.stale_after_ms);
                    stale_after == Some(u64::try_from(*generation).unwrap() * 1000)
                })
            };
            let all_hold = ready.iter().all(|pod| has.get(pod).is_some_and(holds));
            let all_new = ready.iter().all(|pod| has.get(pod).is_some_and(|documents| documents == newest));
            let answer = plant.is(&name(*device));
            if *is_ready {
                continue;
            }
            if was_served.get(device) == Some(generation) {
                prop_assert!(["served", "nobody"].contains(&answer.as_str()), "taken back: {answer}");
            } else if ["served", "nobody"].contains(&answer.as_str()) {
                prop_assert!(all_hold, "{device} is {answer}, but not every pod of {ready:?} holds it");
                prop_assert_eq!(answer == "nobody", ready.is_empty());
                was_served.insert(*device, *generation);
            } else {
                prop_assert!(!all_new, "{device} is {answer}, but every pod of {ready:?} has the newest");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn served_means_that_every_ready_pod_has_it(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps)?;
    }
}
