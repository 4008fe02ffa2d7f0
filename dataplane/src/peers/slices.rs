//! The EndpointSlices that there are now: plain state, without I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::kubernetes::Change;

/// The pods of the Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// By the pod's name, or by its address if the endpoint names no pod.
    pub by_name: BTreeMap<String, Peer>,
}

/// One pod, as its endpoint shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its addresses: one, or one of each family.
    pub addresses: Vec<IpAddr>,
    /// Whether new clients are sent there.
    pub ready: bool,
    /// Whether it answers, also while it goes.
    pub serving: bool,
    /// Whether it is going.
    pub terminating: bool,
}

/// The slices by name; a pod may stand in several of them.
#[derive(Debug, Default)]
pub(super) struct Slices {
    by_name: BTreeMap<String, Vec<Endpoint>>,
}

impl Slices {
    pub(super) fn observe(&mut self, change: Change<EndpointSlice>) {
        match change {
            Change::All(slices) => {
                self.by_name.clear();
                slices.into_iter().for_each(|slice| self.insert(slice));
            }
            Change::Applied(slice) => self.insert(slice),
            Change::Deleted(slice) => {
                if let Some(name) = &slice.metadata.name {
                    self.by_name.remove(name);
                }
            }
        }
    }

    fn insert(&mut self, slice: EndpointSlice) {
        if let Some(name) = slice.metadata.name {
            self.by_name.insert(name, slice.endpoints);
        }
    }

    /// All pods. One that stands in two slices (one for each address family, or while it moves) has what
    /// either says, but is ready only if no slice says that it is going.
    pub(super) fn peers(&self) -> Peers {
        let mut peers = Peers::default();
        for endpoint in self.by_name.values().flatten() {
            let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
            let Some(name) = pod.or_else(|| endpoint.addresses.first().cloned()) else { continue };
            let peer = peers.by_name.entry(name).or_default();
            let conditions = endpoint.conditions.as_ref();
            // What is left out means what the API's documentation says it means.
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            peer.ready |= ready;
            peer.serving |= conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            peer.terminating |= conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
            let addresses = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
            peer.addresses.extend(addresses);
        }
        for peer in peers.by_name.values_mut() {
            peer.addresses.sort_unstable();
            peer.addresses.dedup();
            peer.ready &= !peer.terminating;
        }
        peers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, endpoints: &str) -> EndpointSlice {
        serde_yaml::from_str(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {name}}}\nports: []\nendpoints: [{endpoints}]\n"
        ))
        .unwrap()
    }

    fn shown(peers: &Peers) -> Vec<String> {
        let shown = peers.by_name.iter().map(|(name, peer)| {
            let Peer { addresses, ready, serving, terminating } = peer;
            format!("{name} {addresses:?} {ready} {serving} {terminating}")
        });
        shown.collect()
    }

    const A: &str = "{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}, conditions: {ready: true, serving: true, terminating: false}}";
    const A6: &str = "{addresses: ['fd00::1'], targetRef: {kind: Pod, name: a}, conditions: {ready: true}}";
    const B_GOES: &str = "{addresses: [10.0.0.2], targetRef: {kind: Pod, name: b}, conditions: {ready: false, serving: true, terminating: true}}";
    const C_STARTS: &str = "{addresses: [10.0.0.3], conditions: {ready: false}}";

    #[test]
    fn pods_are_told_by_what_their_endpoints_say() {
        let mut slices = Slices::default();
        slices
            .observe(Change::All(vec![slice("s4", &format!("{A}, {B_GOES}, {C_STARTS}")), slice("s6", A6)]));
        assert_eq!(
            shown(&slices.peers()),
            [
                "10.0.0.3 [10.0.0.3] false false false",
                "a [10.0.0.1, fd00::1] true true false",
                "b [10.0.0.2] false true true",
            ]
        );
        // Without conditions an endpoint counts as ready.
        slices.observe(Change::Applied(slice("s4", "{addresses: [10.0.0.3]}")));
        assert_eq!(
            shown(&slices.peers()),
            ["10.0.0.3 [10.0.0.3] true true false", "a [fd00::1] true true false"]
        );
        slices.observe(Change::Deleted(slice("s6", A6)));
        assert_eq!(slices.peers().by_name.len(), 1);
        slices.observe(Change::All(vec![]));
        assert_eq!(slices.peers(), Peers::default());
    }
}
