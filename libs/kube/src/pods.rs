//! The pods of a Service, as its EndpointSlices show them. Synchronous state without I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::watch::Change;

/// A pod as its endpoints show it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServicePod {
    /// `true` if the endpoint names the pod. Otherwise it is known by its address.
    pub is_named: bool,
    /// Its addresses: one, or one of each family.
    pub addresses: Vec<IpAddr>,
    /// `true` if it accepts new clients: all its endpoints are ready and none is terminating.
    pub ready: bool,
    /// `true` if it answers, also while it terminates.
    pub serving: bool,
    /// `true` if it terminates.
    pub terminating: bool,
}

/// The EndpointSlices of a Service.
#[derive(Debug, Default)]
pub struct ServicePods {
    /// The endpoints of each slice, by the slice's name.
    slices: BTreeMap<String, Vec<Endpoint>>,
}

impl ServicePods {
    /// Applies a change of the slices.
    pub fn apply(&mut self, change: Change<EndpointSlice>) {
        match change {
            Change::All(slices) => {
                self.slices.clear();
                slices.into_iter().for_each(|slice| self.insert(slice));
            }
            Change::Applied(slice) => self.insert(slice),
            Change::Deleted(slice) => {
                if let Some(name) = &slice.metadata.name {
                    self.slices.remove(name);
                }
            }
        }
    }

    fn insert(&mut self, slice: EndpointSlice) {
        if let Some(name) = slice.metadata.name {
            self.slices.insert(name, slice.endpoints);
        }
    }

    /// Returns all pods, by name or, if an endpoint names no pod, by address. A pod may stand in several
    /// slices: one for each address family, or two while it moves.
    #[must_use]
    pub fn pods(&self) -> BTreeMap<String, ServicePod> {
        let mut pods = BTreeMap::<String, ServicePod>::new();
        for endpoint in self.slices.values().flatten() {
            let name = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
            let is_named = name.is_some();
            let Some(name) = name.or_else(|| endpoint.addresses.first().cloned()) else { continue };
            let conditions = endpoint.conditions.as_ref();
            // A condition that is missing has the value that the API's documentation gives it.
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let pod = pods.entry(name);
            let pod = pod.or_insert_with(|| ServicePod { is_named, ready: true, ..ServicePod::default() });
            pod.ready &= ready;
            pod.serving |= conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            pod.terminating |= conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            pod.addresses.extend(addresses);
        }
        for pod in pods.values_mut() {
            pod.addresses.sort_unstable();
            pod.addresses.dedup();
            pod.ready &= !pod.terminating;
        }
        pods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, endpoints: &str) -> EndpointSlice {
        serde_yaml::from_str(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: {name}}}\nports: []\nendpoints: [{endpoints}]\n"
        ))
        .unwrap()
    }

    fn shown(pods: &ServicePods) -> Vec<String> {
        let shown = pods.pods().into_iter().map(|(name, pod)| {
            let ServicePod { is_named, addresses, ready, serving, terminating } = pod;
            assert_eq!(is_named, !name.starts_with("10."));
            format!("{name} {addresses:?} {ready} {serving} {terminating}")
        });
        shown.collect()
    }

    const A: &str = "{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}, \
        conditions: {ready: true, serving: true, terminating: false}}";
    const A6: &str = "{addresses: ['fd00::1'], targetRef: {kind: Pod, name: a}, conditions: {ready: true}}";
    const B_GOES: &str = "{addresses: [10.0.0.2], targetRef: {kind: Pod, name: b}, \
        conditions: {ready: false, serving: true, terminating: true}}";
    const C_STARTS: &str = "{addresses: [10.0.0.3], conditions: {ready: false}}";

    #[test]
    fn pods_are_what_their_endpoints_say() {
        let mut pods = ServicePods::default();
        pods.apply(Change::All(vec![slice("s4", &format!("{A}, {B_GOES}, {C_STARTS}")), slice("s6", A6)]));
        assert_eq!(
            shown(&pods),
            [
                "10.0.0.3 [10.0.0.3] false false false",
                "a [10.0.0.1, fd00::1] true true false",
                "b [10.0.0.2] false true true",
            ]
        );
        // Without conditions an endpoint is ready.
        pods.apply(Change::Applied(slice("s4", "{addresses: [10.0.0.3]}")));
        assert_eq!(shown(&pods), ["10.0.0.3 [10.0.0.3] true true false", "a [fd00::1] true true false"]);
        pods.apply(Change::Deleted(slice("s6", A6)));
        assert_eq!(pods.pods().len(), 1);
        pods.apply(Change::All(vec![]));
        assert_eq!(pods.pods(), BTreeMap::new());
    }

    #[test]
    fn a_pod_is_ready_only_if_all_its_endpoints_say_so() {
        let mut pods = ServicePods::default();
        pods.apply(Change::All(vec![slice("s4", A), slice("s6", A6)]));
        pods.apply(Change::Applied(slice("s6", &A6.replace("ready: true", "ready: false"))));
        assert_eq!(shown(&pods), ["a [10.0.0.1, fd00::1] false true false"]);
    }
}
