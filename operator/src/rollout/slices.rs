//! Which data-plane pods are ready, as the EndpointSlices of their Service say.

use flutecast_kube::Right;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::backend::cluster::watch::Event;

/// The rights that knowing the ready pods needs, in the operator's own namespace.
pub const RIGHTS: &[Right] = &[Right {
    group: "discovery.k8s.io",
    resources: &["endpointslices"],
    names: &[],
    verbs: &["list", "watch"],
    why: "",
}];

/// Why the ready pods are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodsUnknown {
    /// They were not listed completely yet.
    NotListed,
    /// The operator has no right to read EndpointSlices.
    Forbidden,
}

/// The slices that there are.
#[derive(Debug, Default)]
pub struct Slices {
    /// What each slice says, by its name: the pod, and whether it takes new clients.
    slices: BTreeMap<String, Vec<(String, bool)>>,
    /// The slices that were told since a list was begun.
    told: Option<BTreeSet<String>>,
    /// Who is ready; none: that was never told in full.
    ready: Option<BTreeSet<String>>,
    forbidden: bool,
}

impl Slices {
    /// Takes in what happened to a slice. Answers whether other pods are ready now, or it became known that
    /// none can be seen.
    pub fn take(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Apply(slice) => {
                let name = slice.metadata.name.unwrap_or_default();
                if let Some(told) = &mut self.told {
                    told.insert(name.clone());
                }
                self.slices.insert(name, slice.endpoints.into_iter().filter_map(pod).collect());
            }
            Event::Broken { meta, error: _ } => {
                self.slices.remove(&meta.name.unwrap_or_default());
            }
            Event::Delete(meta) => {
                self.slices.remove(&meta.name.unwrap_or_default());
            }
            Event::Restart(_) => {
                self.told = Some(BTreeSet::new());
                return false;
            }
            Event::Complete(..) => {
                let told = self.told.take().unwrap_or_default();
                self.slices.retain(|name, _| told.contains(name));
                self.ready.get_or_insert_default();
            }
            Event::Forbidden => return !std::mem::replace(&mut self.forbidden, true),
        }
        // Half a list says nothing about who is missing from it.
        if self.told.is_some() || self.ready.is_none() {
            return false;
        }
        let was_forbidden = std::mem::take(&mut self.forbidden);
        let ready = Some(self.compute());
        let changed = self.ready != ready;
        self.ready = ready;
        changed || was_forbidden
    }

    /// The names of the pods that are ready.
    ///
    /// # Errors
    /// [`PodsUnknown`] if that was never told.
    pub fn ready(&self) -> Result<&BTreeSet<String>, PodsUnknown> {
        let unknown = if self.forbidden { PodsUnknown::Forbidden } else { PodsUnknown::NotListed };
        self.ready.as_ref().ok_or(unknown)
    }

    /// A pod may stand in several slices, one for each family of addresses or while it moves. It is ready if
    /// all of them say so.
    fn compute(&self) -> BTreeSet<String> {
        let all = || self.slices.values().flatten();
        let not_ready: BTreeSet<&str> =
            all().filter(|(_, ready)| !ready).map(|(name, _)| name.as_str()).collect();
        all().map(|(name, _)| name).filter(|name| !not_ready.contains(name.as_str())).cloned().collect()
    }
}

/// The pod of an endpoint and whether it is ready. Endpoints that are no pods announce nothing.
fn pod(endpoint: Endpoint) -> Option<(String, bool)> {
    let name = endpoint.target_ref?.name?;
    let conditions = endpoint.conditions.unwrap_or_default();
    // What is left out means what the API's documentation says it means.
    let ready = conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false);
    Some((name, ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, endpoints: &str) -> Event<EndpointSlice> {
        let slice = serde_yaml::from_str(&format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {{name: {name}}}\nports: []\nendpoints: [{endpoints}]\n"
        ));
        Event::Apply(Box::new(slice.unwrap()))
    }

    fn ready(slices: &Slices) -> Vec<&str> {
        slices.ready().unwrap().iter().map(String::as_str).collect()
    }

    #[test]
    fn ready_is_who_takes_new_clients() {
        let mut slices = Slices::default();
        slices.take(Event::Restart(None));
        let all = "{addresses: [10.0.0.1], targetRef: {name: a}}, {addresses: [10.0.0.2], targetRef: {name: b}, conditions: {ready: false}}, \
            {addresses: [10.0.0.3], targetRef: {name: c}, conditions: {ready: true, terminating: true}}, {addresses: [10.0.0.4]}, \
            {addresses: [10.0.0.5], targetRef: {name: e}, conditions: {ready: true, serving: true, terminating: false}}";
        assert!(!slices.take(slice("one", all)));
        assert_eq!(slices.ready(), Err(PodsUnknown::NotListed));
        assert!(slices.take(Event::Complete(None, 0)));
        assert_eq!(ready(&slices), ["a", "e"]);
        // The same again, or another family of addresses, is no news.
        assert!(!slices.take(slice("one", all)));
        assert!(!slices.take(slice("two", "{addresses: ['fd00::1'], targetRef: {name: a}}")));
        assert!(slices.take(slice(
            "two",
            "{addresses: ['fd00::1'], targetRef: {name: a}, conditions: {ready: false}}"
        )));
        assert_eq!(ready(&slices), ["e"]);
        // A list that starts over says nothing until it is told in full.
        assert!(!slices.take(Event::Restart(None)));
        assert!(!slices.take(slice("three", "{addresses: [10.0.0.6], targetRef: {name: f}}")));
        assert_eq!(ready(&slices), ["e"]);
        assert!(slices.take(Event::Complete(None, 0)));
        assert_eq!(ready(&slices), ["f"]);
    }

    #[test]
    fn a_right_that_is_missing_is_news_once_and_takes_nothing_back() {
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
