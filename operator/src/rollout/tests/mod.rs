//! The confirmation of Devices, with simulated pods, documents and time.

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::document::ShardDocument;
use flutecast_contract::name::TenantName;
use flutecast_contract::serving::Announcement;
use flutecast_contract::shard::{revision, shard_of};
use flutecast_crds::{Device, PushFormat, Tenant};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::metrics::PodCounts;
use super::pending::MAPPED;
use super::*;
use crate::backend::cluster::unready_devices;
use crate::controller::build::{self, Built};
use crate::controller::dereference::DirtySet;
use crate::index::Index;
use crate::object::Key;
use crate::object::Kind;
use crate::watch::Event;

/// The state of an operator about one tenant `t`, and its pods.
struct Plant {
    index: Index,
    rollout: Rollout,
    built: Built,
    shards: u32,
    version: u64,
    now: Instant,
    states: PodStates,
    scope: DirtySet,
}

fn event<K: DeserializeOwned>(object: Value) -> Event<K> {
    Event::Apply(Box::new(serde_json::from_value(object).unwrap()))
}

fn key(name: &str) -> Key {
    ("default".to_owned(), name.to_owned())
}

fn t() -> TenantName {
    TenantName::new("t").unwrap()
}

impl Plant {
    fn new() -> Self {
        let mut plant = Self {
            index: Index::default(),
            rollout: Rollout::new(Some("dataplane".to_owned())),
            built: Built::default(),
            shards: 1,
            version: 0,
            now: Instant::now(),
            states: PodStates { connected: true, ..PodStates::default() },
            scope: DirtySet::everything(),
        };
        let meta = plant.meta("t", 1, "t");
        plant.index.apply_tenant(event::<Tenant>(
            json!({"apiVersion": "flutecast.io/v1alpha1", "kind": "Tenant", "metadata": meta, "spec": {}}),
        ));
        let meta = plant.meta("on-off", 1, "f");
        let spec = json!({"fields": [{"name": "on", "pointer": "/on", "type": "Bool"}]});
        plant.index.apply_format(event::<PushFormat>(
            json!({"apiVersion": "flutecast.io/v1alpha1", "kind": "PushFormat", "metadata": meta,
            "spec": spec}),
        ));
        plant.ready(&[]);
        plant.store();
        plant
    }

    fn meta(&mut self, name: &str, generation: i64, uid: &str) -> Value {
        self.version += 1;
        json!({"name": name, "namespace": "default", "uid": uid, "generation": generation,
            "resourceVersion": self.version.to_string()})
    }

    /// Sets a device, whose document shows its generation.
    fn device(&mut self, name: &str, generation: i64, line: &str, ready: bool) {
        let mut meta = self.meta(name, generation, name);
        meta["labels"] = json!({"line": line});
        let said = json!([{"type": "Ready", "status": "True", "reason": "Accepted", "message": MAPPED,
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let conditions = if ready { said } else { json!([]) };
        let spec = json!({"tenant": "t", "deviceCode": name, "channels":
            [{"name": "power", "format": "on-off", "staleAfter": format!("{generation}s")}]});
        self.index.apply_device(event::<Device>(
            json!({"apiVersion": "flutecast.io/v1alpha1", "kind": "Device", "metadata": meta,
            "spec": spec, "status": {"conditions": conditions, "observedGeneration": generation}}),
        ));
    }

    fn delete(&mut self, name: &str) {
        let meta = serde_json::from_value(json!({"name": name, "namespace": "default", "uid": name}));
        self.index.apply_device(Event::Delete(Box::new(meta.unwrap())));
    }

    fn build(&mut self) {
        self.scope.merge(std::mem::take(&mut self.index.dirty));
        let objects = self.index.objects(&DirtySet::everything());
        self.built = build::build(crate::controller::validate::validate(&objects), &objects);
        let tenant = self.built.tenants.get_mut(&t()).unwrap();
        tenant.shards = split(&tenant.shards[0], self.shards);
    }

    /// Reconciles: builds, stores, evaluates. Returns the stored documents.
    fn store(&mut self) -> Vec<Arc<ShardDocument>> {
        self.build();
        let shards = self.built.tenants[&t()].shards.clone();
        let stored = shards.iter().map(|shard| Some(shard.revision.as_str()));
        self.rollout.set_stored([(&t(), stored)].into_iter());
        self.look();
        shards
    }

    fn look(&mut self) -> RolloutChanges {
        let scope = std::mem::take(&mut self.scope);
        unready_devices::update(&mut self.rollout, &self.index, &self.built, &scope, self.now);
        let tenants = &self.built.tenants;
        self.rollout.evaluate(|tenant| Some(tenants.get(tenant)?.shards.as_slice()), self.now)
    }

    fn later(&mut self, time: Duration) -> RolloutChanges {
        self.now += time;
        self.look()
    }

    fn ready(&mut self, pods: &[&str]) {
        let endpoints: Vec<Value> =
            pods.iter().map(|pod| json!({"addresses": ["10.0.0.1"], "targetRef": {"name": pod}})).collect();
        self.rollout.apply_slice(Event::Restart(None));
        self.rollout.apply_slice(event::<EndpointSlice>(
            json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints}),
        ));
        self.rollout.apply_slice(Event::Complete(None, 0));
    }

    fn says(&mut self, pod: &str, shards: &[Arc<ShardDocument>]) {
        let revisions = shards.iter().map(|shard| shard.revision.clone()).collect();
        let announced =
            Announcement { server: pod.to_owned(), tenants: [("t".to_owned(), revisions)].into() };
        self.states.pods.insert(pod.to_owned(), Arc::new(announced));
        self.tell();
    }

    fn is_silent(&mut self, pod: &str) {
        self.states.pods.remove(pod);
        self.tell();
    }

    fn tell(&mut self) {
        self.rollout.set_pod_states(Arc::new(self.states.clone()));
    }

    fn is(&self, device: &str) -> String {
        match self.rollout.confirmation(&key(device)) {
            Confirmation::Confirmed(words) if words.contains("every ready data-plane pod") => {
                "served".to_owned()
            }
            Confirmation::Confirmed(words) if words.contains("no data-plane pod") => "nobody".to_owned(),
            Confirmation::Confirmed(words) => words.to_owned(),
            Confirmation::Pending => "wait".to_owned(),
            Confirmation::Late(text) => text.to_string(),
        }
    }
}

/// Splits the devices into this many documents.
fn split(all: &ShardDocument, shards: u32) -> Vec<Arc<ShardDocument>> {
    let part = |shard: u32| {
        let mut part = ShardDocument { shard, shards, ..all.clone() };
        part.devices.retain(|iot_id, _| shard_of(iot_id, shards) == shard);
        part.settings = part.settings.filter(|_| shard == 0);
        part.revision = revision(&part);
        Arc::new(part)
    };
    (0..shards).map(part).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_device_is_served_when_every_ready_pod_has_it_or_something_later() {
    let mut plant = Plant::new();
    plant.ready(&["a", "b"]);
    let before = plant.store();
    plant.says("a", &before);
    plant.says("b", &before);
    plant.device("d", 1, "l1", false);
    let with = plant.store();
    plant.says("a", &with);
    plant.look();
    assert_eq!(plant.is("d"), "wait");
    // Another change, so that no pod announces the revision in which the device came.
    plant.device("e", 1, "l1", false);
    let later = plant.store();
    plant.says("b", &later);
    assert_eq!(plant.look().devices, [key("d")]);
    assert_eq!((plant.is("d"), plant.is("e")), ("served".to_owned(), "wait".to_owned()));
    plant.says("a", &later);
    assert_eq!(plant.look().devices, [key("e")]);
    // Once confirmed, it stays so, whatever the pods do while the status is being written.
    plant.ready(&["a", "b", "c"]);
    plant.is_silent("a");
    assert_eq!(plant.later(60 * SECOND).devices, []);
    assert_eq!(plant.is("d"), "served");
    // When the statuses are stored, nothing is pending.
    plant.device("d", 1, "l1", true);
    plant.device("e", 1, "l1", true);
    plant.store();
    assert_eq!(plant.rollout.count(), 0);
    assert_eq!(plant.is("d"), "wait");
}

#[test]
fn a_new_generation_waits_again_and_a_label_does_not() {
    let mut plant = Plant::new();
    plant.ready(&["a"]);
    plant.device("d", 1, "l1", true);
    let first = plant.store();
    plant.says("a", &first);
    plant.device("d", 1, "l2", true);
    plant.store();
    assert_eq!(plant.rollout.count(), 0, "a label");
    plant.device("d", 2, "l2", false);
    let second = plant.store();
    assert_eq!((plant.rollout.count(), plant.is("d")), (1, "wait".to_owned()));
    plant.says("a", &second);
    plant.look();
    assert_eq!(plant.is("d"), "served");
}

#[test]
fn late_devices_are_reported_once_with_the_pods() {
    let mut plant = Plant::new();
    plant.ready(&["a", "b", "c", "d"]);
    let old = plant.store();
    plant.device("d", 1, "l1", false);
    let new = plant.store();
    plant.says("a", &old);
    plant.says("b", &new);
    let announced = Announcement { server: "d".to_owned(), ..Announcement::default() };
    plant.states.pods.insert("d".to_owned(), Arc::new(announced));
    plant.tell();
    assert_eq!(plant.later(SECOND).devices, []);
    assert_eq!(plant.rollout.next(), Some(plant.now + SECOND));
    assert_eq!(plant.later(SECOND).devices, [key("d")]);
    let revision = &new[0].revision;
    let said = format!(
        "not every ready data-plane pod serves revision {revision} of flutecast-t-0 or a later one: a serves \
         an older one, c is silent, d does not serve the tenant"
    );
    assert_eq!(plant.is("d"), said);
    // Other late pods don't cause another write at once.
    plant.says("c", &new);
    plant.says("d", &new);
    assert_eq!(plant.later(SECOND).devices, []);
    assert_eq!(plant.is("d"), said);
    assert_eq!(plant.later(29 * SECOND).devices, [key("d")]);
    assert!(plant.is("d").ends_with(": a serves an older one"), "{}", plant.is("d"));
    plant.ready(&["b", "c"]);
    assert_eq!(plant.look().devices, [key("d")]);
    assert_eq!(plant.is("d"), "served");
}

#[test]
fn a_new_operator_keeps_messages() {
    let mut plant = Plant::new();
    plant.ready(&["a"]);
    plant.device("was-ready", 1, "l1", true);
    plant.version += 1;
    plant.device("late", 1, "l1", false);
    let text = "not every ready data-plane pod serves it: a is silent";
    let said = json!([{"type": "Ready", "status": "False", "reason": "NotServed", "message": text,
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let mut meta = plant.meta("late", 1, "late");
    meta["labels"] = json!({"line": "l1"});
    let spec =
        json!({"tenant": "t", "deviceCode": "late", "channels": [{"name": "power", "format": "on-off"}]});
    plant.index.apply_device(event::<Device>(
        json!({"apiVersion": "flutecast.io/v1alpha1", "kind": "Device", "metadata": meta,
        "spec": spec, "status": {"conditions": said, "observedGeneration": 1}}),
    ));
    let documents = plant.store();
    assert_eq!((plant.rollout.count(), plant.is("late")), (1, text.to_owned()));
    plant.says("a", &documents);
    assert_eq!(plant.look().devices, [key("late")]);
    assert_eq!(plant.is("late"), "served");
}

#[test]
fn a_mapping_that_is_not_stored_is_not_confirmed() {
    let mut plant = Plant::new();
    plant.ready(&["a"]);
    let old = plant.store();
    plant.says("a", &old);
    plant.device("d", 1, "l1", false);
    plant.build();
    // The API server is away: the mapping stays as it was, for longer than a status is held back.
    plant.rollout.set_stored([(&t(), [None].into_iter())].into_iter());
    plant.look();
    assert_eq!(plant.later(10 * SECOND).devices, []);
    assert_eq!(plant.is("d"), "wait");
    let new = plant.store();
    plant.says("a", &new);
    plant.look();
    assert_eq!(plant.is("d"), "served");
}

#[test]
fn without_pods_the_mapping_decides() {
    let mut plant = Plant::new();
    plant.device("d", 1, "l1", false);
    plant.store();
    assert_eq!(plant.is("d"), "nobody");
    assert_eq!(Rollout::default().confirmation(&key("d")), Confirmation::Confirmed(MAPPED));
    // Unknown pods are not the same as no pods.
    let mut plant = Plant::new();
    plant.rollout = Rollout::new(Some("dataplane".to_owned()));
    plant.tell();
    plant.device("d", 1, "l1", false);
    plant.store();
    assert_eq!(plant.is("d"), "wait");
    plant.rollout.apply_slice(Event::Forbidden);
    plant.later(2 * SECOND);
    assert!(plant.is("d").contains("may not see which data-plane pods are ready"), "{}", plant.is("d"));
    for said in [message_before(MAPPED), message_before("something older")] {
        assert_eq!(said, MAPPED);
    }
    plant.ready(&[]);
    plant.look();
    let Confirmation::Confirmed(words) = plant.rollout.confirmation(&key("d")) else { panic!() };
    assert_eq!(message_before(words), words);
}

#[test]
fn without_nats_no_device_is_late() {
    let mut plant = Plant::new();
    plant.ready(&["a"]);
    plant.states.connected = false;
    plant.tell();
    plant.device("d", 1, "l1", false);
    let documents = plant.store();
    assert_eq!(plant.later(60 * SECOND).devices, []);
    assert_eq!((plant.is("d"), plant.rollout.tenant_message(&t(), None)), ("wait".to_owned(), None));
    // When it is back, the pods get their time.
    plant.states.connected = true;
    plant.tell();
    assert_eq!(plant.later(SECOND).devices, []);
    plant.says("a", &documents);
    plant.look();
    assert_eq!(plant.is("d"), "served");
}

#[test]
fn a_pod_without_progress_is_reported_on_the_tenant() {
    let mut plant = Plant::new();
    plant.ready(&["a", "b"]);
    let old = plant.store();
    plant.says("a", &old);
    plant.says("b", &old);
    assert_eq!(plant.look().pods, PodCounts { confirmed: 2, lagging: 0, silent: 0 });
    plant.device("d", 1, "l1", true);
    let second = plant.store();
    plant.says("a", &second);
    assert_eq!(plant.look().pods, PodCounts { confirmed: 1, lagging: 1, silent: 0 });
    assert_eq!(plant.rollout.next(), Some(plant.now + 10 * SECOND));
    // It is always a step behind, but makes progress.
    plant.later(9 * SECOND);
    plant.device("e", 1, "l1", true);
    let third = plant.store();
    plant.says("a", &third);
    plant.says("b", &second);
    assert_eq!(plant.later(SECOND).tenants, BTreeSet::new());
    assert_eq!(plant.later(10 * SECOND).tenants, BTreeSet::from([t()]));
    let message = plant.rollout.tenant_message(&t(), None).unwrap();
    assert!(
        message.starts_with(
            "1 of 2 ready data-plane pods does not serve the mapping as it is: b serves an older one;"
        ),
        "{message}"
    );
    assert_eq!(plant.look().tenants, BTreeSet::new());
    // That it falls silent changes the message, and is no progress.
    plant.is_silent("b");
    let news = plant.look();
    assert_eq!(news.pods, PodCounts { confirmed: 1, lagging: 0, silent: 1 });
    assert_eq!(news.tenants, BTreeSet::from([t()]));
    assert!(plant.rollout.tenant_message(&t(), None).unwrap().contains("b is silent"));
    // Another operator doesn't know how long it has lagged; the message stays until it is over.
    let text = plant.rollout.tenant_message(&t(), None).unwrap().to_owned();
    plant.rollout.stop();
    plant.look();
    assert_eq!(plant.rollout.tenant_message(&t(), None), None);
    assert_eq!(plant.rollout.tenant_message(&t(), Some(&text)).unwrap(), text);
    plant.later(10 * SECOND);
    assert_eq!(plant.rollout.tenant_message(&t(), None).unwrap(), text);
    plant.ready(&["a"]);
    assert_eq!(plant.look().tenants, BTreeSet::from([t()]));
    assert_eq!(plant.rollout.tenant_message(&t(), Some(&text)), None);
    assert_eq!(plant.rollout.tenant_message(&t(), None), None);
    plant.rollout.stop();
    assert_eq!(plant.rollout.next(), None);
}

#[test]
fn a_deleted_device_is_not_pending() {
    let mut plant = Plant::new();
    plant.ready(&["a"]);
    plant.device("d", 1, "l1", false);
    plant.store();
    assert_eq!(plant.rollout.count(), 1);
    plant.delete("d");
    plant.scope.touch(Kind::Device, &key("d"));
    plant.store();
    assert_eq!(plant.rollout.count(), 0);
}
