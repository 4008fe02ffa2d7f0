//! Which Devices wait for the pods, and what is said of those that wait long. Pure: the time is handed in.
//!
//! Only Devices that are not yet Ready for their generation are remembered. One that became Ready stays so: a
//! pod that lags later is told on the Tenant, since ten thousand writes would tell nobody more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flutecast_contract::name::TenantName;
use flutecast_contract::shard::{MAX_SHARDS, file_name, shard_of};
use flutecast_crds::condition::Condition;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::time::Instant;

use super::announcement::Heard;
use super::behind::Behind;
use super::floors::{Floors, shard};
use super::ledger::{Ledger, Numbered};
use super::slices::Slices;
use crate::controller::build::Built;
use crate::backend::cluster::index::{Entry, Index, Key, Scope};
use crate::controller::status::conditions::{is_ready, ready};
use crate::backend::cluster::watch::Event;
use crate::metrics::PodCounts;
use crate::verdict::{Finding, Kind, ObjectRef, Reason};

/// What is said of a Device that is Ready, when nobody looks at pods.
pub const MAPPED: &str = "it is in the mapping, and its tenant's stream takes its messages";
/// The same when all ready pods have confirmed.
const SERVED: &str =
    "it is in the mapping, its tenant's stream takes its messages, and every ready data-plane pod serves it";
/// The same when there was no ready pod to confirm.
const NOBODY: &str = "it is in the mapping, and its tenant's stream takes its messages; no data-plane pod was ready to confirm that it serves it";

/// For how long a Device's status waits for the pods before it says that it waits. Pods confirm within some
/// 200 ms, so that the first status of a Device is normally that it is Ready, and costs one write.
const HOLD: Duration = Duration::from_secs(2);
/// How long what is said of a Device that waits stays, at least, when other pods are late by then.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Whether a Device is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is, in these words.
    Ready(&'static str),
    /// That isn't known yet; nothing is to be said.
    Wait,
    /// It is waited for, for longer than it should take; in these words.
    Late(Arc<str>),
}

/// What is known of the pods and of the Devices that wait for them.
#[derive(Debug, Default)]
pub struct Served {
    /// The data plane's Service; none: nobody looks at pods.
    service: Option<String>,
    slices: Slices,
    heard: Arc<Heard>,
    ledger: Ledger,
    waiting: BTreeMap<Key, Waiting>,
    behind: Behind,
    next: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    uid: String,
    generation: i64,
    tenant: TenantName,
    /// Where it is among the tenant's shards.
    place: u32,
    /// What holds it; none: it isn't stored yet.
    needs: Option<Numbered>,
    since: Instant,
    /// Once all pods have confirmed, they have, whatever becomes of them while the status is being written.
    confirmed: Option<&'static str>,
    said: Option<(Instant, Arc<str>)>,
}

/// What changed with a look.
#[derive(Debug, Default)]
pub struct News {
    /// The Devices of which something else is to be said.
    pub devices: Vec<Key>,
    /// The tenants of which something else is to be said.
    pub tenants: BTreeSet<TenantName>,
    /// How it stands with the ready pods.
    pub pods: PodCounts,
}

impl Served {
    /// Looks at the pods of this Service; none: at no pods.
    #[must_use]
    pub fn new(service: Option<String>) -> Self {
        Self { service, ..Self::default() }
    }

    /// Takes in what happened to an EndpointSlice. Answers whether that is news.
    pub fn slice(&mut self, event: Event<EndpointSlice>) -> bool {
        let had_right = self.slices.ready() != Err(true);
        let is_news = self.slices.take(event);
        if had_right && self.slices.ready() == Err(true) {
            tracing::warn!(
                "the operator may not see EndpointSlices in its namespace, so no new Device becomes Ready; see manifests/operator/rbac.yaml"
            );
        }
        is_news
    }

    /// Takes in what the pods announce.
    pub fn hear(&mut self, heard: Arc<Heard>) {
        self.heard = heard;
    }

    /// Another operator's turn: what waits is forgotten.
    pub fn stop(&mut self) {
        self.waiting.clear();
        self.behind = Behind::default();
        self.next = None;
    }

    /// When [`Self::look`] has something to say even if nothing happens.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// How many Devices wait for pods.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waiting.values().filter(|waiting| waiting.confirmed.is_none()).count()
    }

    /// Takes in what the API server holds of the mapping: of each tenant, by shard, the revision if it is
    /// stored.
    pub fn stored<'a, S>(&mut self, tenants: impl Iterator<Item = (&'a TenantName, S)>)
    where
        S: ExactSizeIterator<Item = Option<&'a str>>,
    {
        if self.service.is_none() {
            return;
        }
        let mut mapped = BTreeSet::new();
        for (tenant, revisions) in tenants {
            self.ledger.note(tenant, revisions);
            mapped.insert(tenant.clone());
        }
        self.ledger.retain(|tenant| mapped.contains(tenant));
    }

    /// Takes in the Devices of `scope`: those that are in the mapping and not yet Ready wait from now on.
    pub fn expect(&mut self, index: &Index, built: &Built, scope: &Scope, now: Instant) {
        if self.service.is_none() {
            return;
        }
        if scope.all {
            self.waiting.retain(|key, _| index.devices.get(key).is_some());
            index.devices.iter().for_each(|(key, entry)| self.expect_one(key, Some(entry), built, now));
            return;
        }
        let touched = scope.touched.iter().filter(|(kind, _)| *kind == Kind::Device).map(|(_, key)| key);
        for key in touched {
            self.expect_one(key, index.devices.get(key), built, now);
        }
    }

    fn expect_one(
        &mut self,
        key: &Key,
        entry: Option<&Entry<flutecast_crds::Device>>,
        built: &Built,
        now: Instant,
    ) {
        let due = entry.filter(|entry| !is_ready(&entry.status.conditions, entry.generation));
        let Some((entry, tenant, place)) = due.and_then(|entry| {
            let device = entry.object.as_ref().ok()?;
            let tenant = TenantName::new(&device.spec.tenant).ok()?;
            let iot_id = built.iot_ids.get(key)?;
            let verdict = built.verdicts.get(&ObjectRef::new(Kind::Device, &key.0, &key.1))?;
            let is_mapped = verdict.findings().is_empty() && built.tenants.contains_key(&tenant);
            is_mapped.then(|| (entry, tenant, shard_of(iot_id, MAX_SHARDS)))
        }) else {
            self.waiting.remove(key);
            return;
        };
        let is_same = |waiting: &Waiting| {
            waiting.uid == entry.uid && waiting.generation == entry.generation && waiting.tenant == tenant
        };
        if self.waiting.get(key).is_some_and(is_same) {
            return;
        }
        // What an operator before this one said stays until there is something else to say.
        let not_served = Reason::NotServed.to_string();
        let said = entry.status.conditions.iter().find(|condition| {
            condition.reason == not_served && condition.observed_generation == Some(entry.generation)
        });
        let waiting = Waiting {
            uid: entry.uid.clone(),
            generation: entry.generation,
            tenant,
            place,
            needs: None,
            since: now,
            confirmed: None,
            said: said.map(|condition| (now, condition.message.as_str().into())),
        };
        self.waiting.insert(key.clone(), waiting);
    }

    /// Compares what the pods serve with what is stored. Answers what has to be said anew.
    pub fn look(&mut self, built: &Built, now: Instant) -> News {
        let mut news = News::default();
        self.next = None;
        if self.service.is_none() {
            return news;
        }
        let Self { service: _, slices, heard, ledger, waiting, behind, next } = self;
        let ready = slices.ready();
        let mut look = Look { ready, heard, ledger, floors: BTreeMap::new(), texts: BTreeMap::new(), next };
        for (key, waiting) in waiting.iter_mut().filter(|(_, waiting)| waiting.confirmed.is_none()) {
            if look.at(waiting, built, now) {
                news.devices.push(key.clone());
            }
        }
        if let Ok(ready) = ready {
            let (tenants, pods, wake) = behind.look(heard, ledger, ready, now);
            news.tenants = tenants;
            news.pods = pods;
            *next = earliest(*next, wake);
        }
        news
    }

    /// Whether a Device is served that was not Ready so far.
    #[must_use]
    pub fn device(&self, key: &Key) -> Answer {
        if self.service.is_none() {
            return Answer::Ready(MAPPED);
        }
        match self.waiting.get(key) {
            None => Answer::Wait,
            Some(Waiting { confirmed: Some(words), .. }) => Answer::Ready(words),
            Some(Waiting { said: Some((_, text)), .. }) => Answer::Late(text.clone()),
            Some(_) => Answer::Wait,
        }
    }

    /// What is to be said of a Device that is Ready: what was said when it became so.
    #[must_use]
    pub fn words(said: &str) -> &'static str {
        [SERVED, NOBODY].into_iter().find(|words| *words == said).unwrap_or(MAPPED)
    }

    /// What is to be said of a Tenant whose pods have lagged for long. `said` are the conditions that it has:
    /// what an operator before this one said stays until it is known whether it is over.
    #[must_use]
    pub fn tenant(&self, tenant: &TenantName, said: &[Condition]) -> Option<Finding> {
        self.service.as_ref()?;
        if let Some(text) = self.behind.told(tenant) {
            return Some(Finding::new(Reason::NotServed, "", text));
        }
        let is_known = self.heard.connected && self.slices.ready().is_ok() && !self.behind.may_follow(tenant);
        let said = ready(said).filter(|said| !is_known && said.reason == Reason::NotServed.to_string())?;
        Some(Finding::new(Reason::NotServed, "", said.message.as_str()))
    }
}

/// One look at all that wait.
struct Look<'a> {
    ready: Result<&'a BTreeSet<String>, bool>,
    heard: &'a Heard,
    ledger: &'a Ledger,
    floors: BTreeMap<TenantName, Floors>,
    /// What is said of those that wait for one revision; a revision has one number.
    texts: BTreeMap<u64, Arc<str>>,
    next: &'a mut Option<Instant>,
}

impl Look<'_> {
    /// Looks at one Device. Answers whether something else is to be said of it.
    fn at(&mut self, waiting: &mut Waiting, built: &Built, now: Instant) -> bool {
        if waiting.needs.is_none() {
            waiting.needs = self.stored(waiting, built);
        }
        if let (Some(needs), Ok(ready)) = (&waiting.needs, self.ready) {
            let confirmed = match ready.is_empty() {
                true => Some(NOBODY),
                false => {
                    self.floors(&waiting.tenant, ready).confirm(waiting.place, needs.number).then_some(SERVED)
                }
            };
            if confirmed.is_some() {
                waiting.confirmed = confirmed;
                return true;
            }
        }
        // Without NATS no pod can confirm, and the conditions say so already.
        if !self.heard.connected || (waiting.needs.is_none() && waiting.said.is_none()) {
            waiting.since = now;
            return false;
        }
        let due = match &waiting.said {
            None => waiting.since + HOLD,
            Some((at, _)) => *at + SAY_AGAIN,
        };
        if now < due {
            *self.next = earliest(*self.next, Some(due));
            return false;
        }
        let text = self.text(waiting);
        let is_new = waiting.said.as_ref().is_none_or(|(_, said)| *said != text);
        waiting.said = Some((now, text));
        is_new
    }

    fn floors(&mut self, tenant: &TenantName, ready: &BTreeSet<String>) -> &Floors {
        let (heard, ledger) = (self.heard, self.ledger);
        self.floors.entry(tenant.clone()).or_insert_with(|| Floors::new(heard, ledger, ready, tenant))
    }

    /// What holds a Device, if the API server has it.
    fn stored(&self, waiting: &Waiting, built: &Built) -> Option<Numbered> {
        let shards = &built.tenants.get(&waiting.tenant)?.shards;
        let shard = shard(waiting.place, shards.len());
        let stored = self.ledger.current(&waiting.tenant, shard)?;
        (*stored.revision == shards.get(shard)?.revision).then(|| stored.clone())
    }

    fn text(&mut self, waiting: &Waiting) -> Arc<str> {
        let Some(needs) = waiting.needs.clone() else {
            return "the mapping that holds it is not stored yet".into();
        };
        if let Some(text) = self.texts.get(&needs.number) {
            return text.clone();
        }
        let text: Arc<str> = match self.ready {
            Err(true) => "the operator may not see which data-plane pods are ready (EndpointSlices in its namespace); grant it as in manifests/operator/rbac.yaml".into(),
            Err(false) => "which data-plane pods are ready is not known yet".into(),
            Ok(ready) => {
                let shards = self.ledger.tenants().find(|(name, _)| **name == waiting.tenant);
                let shard = shard(waiting.place, shards.map_or(1, |(_, shards)| shards.len()));
                let shard = file_name(&waiting.tenant, u32::try_from(shard).unwrap_or_default());
                let document = shard.trim_end_matches(".yaml");
                let laggards = self.floors(&waiting.tenant, ready).laggards(waiting.place, needs.number);
                let revision = &needs.revision;
                format!("not every ready data-plane pod serves revision {revision} of {document} or a later one: {laggards}").into()
            }
        };
        self.texts.insert(needs.number, text.clone());
        text
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
