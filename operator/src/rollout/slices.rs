//! The data-plane pods that are ready, according to the EndpointSlices of their Service.

use std::collections::BTreeSet;

use flutecast_kube::{Change, Right, ServicePods};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ObjectMeta;

use crate::watch::Event;

/// The rights that knowing the ready pods needs, in the operator's own namespace.
pub(crate) const RIGHTS: &[Right] =
    &[Right::new("discovery.k8s.io", &["endpointslices"], &["list", "watch"])];

/// Why the ready pods are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodsUnknown {
    /// They were not listed completely yet.
    NotListed,
    /// The operator has no right to read EndpointSlices.
    Forbidden,
}

/// The data plane's EndpointSlices, and the ready pods that follow from them.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    pods: ServicePods,
    /// The slices of a list that is not complete yet. Half a list doesn't show what is missing.
    listed: Option<Vec<EndpointSlice>>,
    /// The ready pods, or `None` until the first complete list.
    ready: Option<BTreeSet<String>>,
    forbidden: bool,
}

impl Slices {
    /// Applies an event. Returns `true` if other pods are ready now, or it became known that the operator may
    /// not read the slices.
    pub(crate) fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        let change = match event {
            Event::Restart(_) => {
                self.listed = Some(Vec::new());
                return false;
            }
            Event::Apply(slice) => match &mut self.listed {
                Some(listed) => {
                    listed.push(*slice);
                    return false;
                }
                None => Change::Applied(*slice),
            },
            Event::Complete(..) => {
                self.ready.get_or_insert_default();
                Change::All(self.listed.take().unwrap_or_default())
            }
            Event::Broken(left) => deleted(left.metadata),
            Event::Delete(meta) => deleted(*meta),
            Event::Forbidden => return !std::mem::replace(&mut self.forbidden, true),
        };
        self.pods.apply(change);
        if self.listed.is_some() || self.ready.is_none() {
            return false;
        }
        let was_forbidden = std::mem::take(&mut self.forbidden);
        let ready = Some(self.ready_now());
        let changed = self.ready != ready;
        self.ready = ready;
        changed || was_forbidden
    }

    /// Returns the names of the ready pods, once a list was complete.
    pub(crate) fn ready(&self) -> Result<&BTreeSet<String>, PodsUnknown> {
        let unknown = if self.forbidden { PodsUnknown::Forbidden } else { PodsUnknown::NotListed };
        self.ready.as_ref().ok_or(unknown)
    }

    /// Endpoints that name no pod announce nothing.
    fn ready_now(&self) -> BTreeSet<String> {
        let ready = self.pods.pods().into_iter().filter(|(_, pod)| pod.is_named && pod.ready);
        ready.map(|(name, _)| name).collect()
    }
}

fn deleted(metadata: ObjectMeta) -> Change<EndpointSlice> {
    Change::Deleted(EndpointSlice { metadata, ..EndpointSlice::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, endpoints: &str) -> Event<EndpointSlice> {
        let slice = serde_yaml::from_str(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: {name}}}\nports: []\nendpoints: [{endpoints}]\n"
        ));
        Event::Apply(Box::new(slice.unwrap()))
    }

    fn ready(slices: &Slices) -> Vec<&str> {
        slices.ready().unwrap().iter().map(String::as_str).collect()
    }

    #[test]
    fn pods_are_ready_that_accept_new_clients() {
        let mut slices = Slices::default();
        slices.take(Event::Restart(None));
        let all = "{addresses: [10.0.0.1], targetRef: {name: a}}, \
            {addresses: [10.0.0.2], targetRef: {name: b}, conditions: {ready: false}}, \
            {addresses: [10.0.0.3], targetRef: {name: c}, conditions: {ready: true, terminating: true}}, \
            {addresses: [10.0.0.4]}, \
            {addresses: [10.0.0.5], targetRef: {name: e}, \
            conditions: {ready: true, serving: true, terminating: false}}";
        assert!(!slices.take(slice("one", all)));
        assert_eq!(slices.ready(), Err(PodsUnknown::NotListed));
        assert!(slices.take(Event::Complete(None, 0)));
        assert_eq!(ready(&slices), ["a", "e"]);
        // Neither the same slice again nor another address family changes the ready pods.
        assert!(!slices.take(slice("one", all)));
        assert!(!slices.take(slice("two", "{addresses: ['fd00::1'], targetRef: {name: a}}")));
        assert!(slices.take(slice(
            "two",
            "{addresses: ['fd00::1'], targetRef: {name: a}, conditions: {ready: false}}"
        )));
        assert_eq!(ready(&slices), ["e"]);
        // A list that is not complete changes nothing.
        assert!(!slices.take(Event::Restart(None)));
        assert!(!slices.take(slice("three", "{addresses: [10.0.0.6], targetRef: {name: f}}")));
        assert_eq!(ready(&slices), ["e"]);
        assert!(slices.take(Event::Complete(None, 0)));
        assert_eq!(ready(&slices), ["f"]);
    }

    #[test]
    fn a_missing_right_is_reported_once_and_leaves_the_ready_pods() {
        let mut slices = Slices::default();
        assert!(slices.take(Event::Forbidden));
        assert!(!slices.take(Event::Forbidden));
        assert_eq!(slices.ready(), Err(PodsUnknown::Forbidden));
        slices.take(Event::Restart(None));
        slices.take(slice("one", "{addresses: [10.0.0.1], targetRef: {name: a}}"));
        assert!(slices.take(Event::Complete(None, 0)));
        slices.take(Event::Forbidden);
        assert_eq!(ready(&slices), ["a"]);
    }
}
