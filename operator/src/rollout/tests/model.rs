//! Whatever happens, a Device is confirmed only if every ready pod really has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use flutecast_contract::document::ShardDocument;
use proptest::prelude::*;

use super::{Confirmation, Plant, SECOND, key};

#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    Change(usize),
    Label(usize, u8),
    Delete(usize),
    Shards(u32),
    /// A pod applies and announces the documents of so many reconciles ago.
    Announce(usize, usize),
    Silence(usize),
    Ready(u8),
    /// The status of a confirmed device is written.
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

const PODS: [&str; 3] = ["a", "b", "c"];

fn name(device: usize) -> String {
    format!("d{device}")
}

struct Device {
    /// Never used twice here, so that one can tell which object of the name a document holds.
    generation: i64,
    label: u8,
    /// `true` if its status has Ready=True.
    is_ready: bool,
}

struct Model {
    plant: Plant,
    devices: BTreeMap<usize, Device>,
    next_generation: i64,
    ready: Vec<&'static str>,
    /// The documents of each reconcile.
    history: Vec<Vec<Arc<ShardDocument>>>,
    /// The documents that each pod has.
    pods: BTreeMap<&'static str, Vec<Arc<ShardDocument>>>,
    /// The generations that were confirmed.
    confirmed: BTreeMap<usize, i64>,
}

impl Model {
    fn new() -> Self {
        let mut plant = Plant::new();
        let history = vec![plant.store()];
        Self {
            plant,
            devices: BTreeMap::new(),
            next_generation: 0,
            ready: Vec::new(),
            history,
            pods: BTreeMap::new(),
            confirmed: BTreeMap::new(),
        }
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(device) => {
                if !self.devices.contains_key(device) {
                    self.next_generation += 100;
                    let new = Device { generation: self.next_generation, label: 0, is_ready: false };
                    self.devices.insert(*device, new);
                }
            }
            Step::Change(device) => {
                if let Some(known) = self.devices.get_mut(device) {
                    known.generation += 1;
                    known.is_ready = false;
                    self.confirmed.remove(device);
                }
            }
            Step::Label(device, label) => {
                if let Some(known) = self.devices.get_mut(device) {
                    known.label = *label;
                }
            }
            Step::Delete(device) => {
                if self.devices.remove(device).is_some() {
                    self.plant.delete(&name(*device));
                    self.confirmed.remove(device);
                }
            }
            Step::Shards(shards) => self.plant.shards = *shards,
            Step::Announce(pod, back) => {
                let documents = &self.history[self.history.len().saturating_sub(1 + back)];
                self.pods.insert(PODS[*pod], documents.clone());
                self.plant.says(PODS[*pod], documents);
            }
            Step::Silence(pod) => {
                self.pods.remove(PODS[*pod]);
                self.plant.is_silent(PODS[*pod]);
            }
            Step::Ready(bits) => {
                self.ready = (0..3).filter(|pod| bits & (1 << pod) != 0).map(|pod| PODS[pod]).collect();
                self.plant.ready(&self.ready);
            }
            Step::Write(device) => {
                if let Some(known) = self.devices.get_mut(device)
                    && let Confirmation::Confirmed(_) = self.plant.rollout.confirmation(&key(&name(*device)))
                {
                    known.is_ready = true;
                }
            }
            Step::Time(seconds) => self.plant.now += SECOND * *seconds,
        }
    }

    fn reconcile(&mut self) {
        for (device, Device { generation, label, is_ready }) in &self.devices {
            self.plant.device(&name(*device), *generation, &format!("l{label}"), *is_ready);
        }
        self.plant.scope.all = true;
        let documents = self.plant.store();
        self.history.push(documents);
    }

    /// Compares what is confirmed with the documents that the pods really have.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let newest = self.history.last().unwrap();
        for (device, known) in self.devices.iter().filter(|(_, known)| !known.is_ready) {
            let holds =
                |pod: &&str| self.pods.get(pod).is_some_and(|all| holds(all, *device, known.generation));
            let all_hold = self.ready.iter().all(holds);
            let all_new = self.ready.iter().all(|pod| self.pods.get(pod).is_some_and(|all| all == newest));
            let answer = self.plant.is(&name(*device));
            let is_confirmed = ["served", "nobody"].contains(&answer.as_str());
            if self.confirmed.get(device) == Some(&known.generation) {
                prop_assert!(is_confirmed, "taken back: {answer}");
            } else if is_confirmed {
                let ready = &self.ready;
                prop_assert!(all_hold, "{device} is {answer}, but not every pod of {ready:?} holds it");
                prop_assert_eq!(answer == "nobody", ready.is_empty());
                self.confirmed.insert(*device, known.generation);
            } else {
                let ready = &self.ready;
                prop_assert!(!all_new, "{device} is {answer}, but every pod of {ready:?} has the newest");
            }
        }
        Ok(())
    }
}

/// Returns whether the documents hold this generation of a device.
fn holds(documents: &[Arc<ShardDocument>], device: usize, generation: i64) -> bool {
    let mut all = documents.iter().flat_map(|document| document.devices.values());
    all.find(|held| held.name == name(device)).is_some_and(|held| {
        let stale_after = held.channels.values().next().and_then(|channel| channel.stale_after_ms);
        stale_after == Some(u64::try_from(generation).unwrap() * 1000)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn confirmed_means_that_every_ready_pod_has_it(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in &steps {
            model.apply(step);
            model.reconcile();
            model.check()?;
        }
    }
}
