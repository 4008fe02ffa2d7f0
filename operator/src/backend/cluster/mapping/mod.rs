//! The fourth step: the mapping as ConfigMaps and the access document as a Secret, in the operator's own
//! namespace.
//!
//! By server-side apply, only what differs from what the API server holds. What somebody else changes or
//! deletes is put right, since the watch tells of it; less and less often if he keeps on doing so. ConfigMaps
//! of tenants that went are deleted.

mod metrics;
pub(crate) mod objects;
pub(crate) mod observed;
mod repairs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flutecast_contract::document::{AccessDocument, ShardDocument};
use flutecast_contract::object::ACCESS_SECRET;
use flutecast_kube::Right;
use flutecast_kube::fault::{brief, is_refusal};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tokio::time::Instant;

pub(crate) use self::metrics::MappingMetrics;
use self::metrics::RepairedKind;
pub(crate) use self::objects::SHARD_SELECTOR;
use self::objects::{Print, print_of_map, print_of_secret, print_of_shard, print_of_text};
use self::observed::Stored;
use self::repairs::{Repairs, Turn};
use crate::api_server::ApiWrite;
use crate::api_server::MANAGER;
use crate::controller::apply::documents::Documents;
use crate::controller::backend::Applied;
use crate::controller::status::write_failures::WriteFailure;
use crate::metrics::CallResult;
use crate::watch::Event;

/// The rights that keeping the mapping needs, in the operator's own namespace.
pub(crate) const RIGHTS: &[Right] = &[
    Right {
        group: "",
        resources: &["configmaps"],
        names: &[],
        verbs: &["list", "watch", "create", "patch", "delete"],
        why: "",
    },
    Right {
        group: "",
        resources: &["secrets"],
        names: &[ACCESS_SECRET],
        verbs: &["list", "watch", "create", "patch"],
        why: "",
    },
];

/// How many are written at once.
const AT_ONCE: usize = 8;
/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// What the API server holds of the mapping, and how it is changed.
pub(crate) struct Mapping {
    client: Client,
    namespace: String,
    metrics: MappingMetrics,
    shards: Stored,
    access: Stored,
    /// The prints of the documents that were looked at last, by name, with the revision that tells whether
    /// they still hold.
    prints: BTreeMap<String, (String, Print)>,
    /// The prints of what was written last, or was there as it should be. If that is still wanted and
    /// something else is there, somebody else changed it.
    written: BTreeMap<String, Print>,
    repairs: Repairs,
}

enum Job<'a> {
    Put(&'a ShardDocument),
    Access(&'a AccessDocument),
    Delete(String),
}

enum Answer {
    Shard(Box<ConfigMap>),
    Access(Box<Secret>),
    Deleted(String),
}

/// WriteFailure something was not written.
enum Failure {
    Refused(String),
    Troubled(String),
    Away(String),
}

impl Failure {
    /// In words and without.
    fn about(self, name: &str) -> (String, WriteFailure) {
        let (Self::Refused(error) | Self::Troubled(error) | Self::Away(error)) = &self;
        let words = format!("{name}: {error}");
        let why = match self {
            Self::Refused(_) => WriteFailure::Refused(words.clone()),
            Self::Troubled(_) => WriteFailure::Troubled(words.clone()),
            Self::Away(_) => WriteFailure::Away,
        };
        (words, why)
    }
}

impl Mapping {
    /// The mapping in `namespace`; nothing is known of it yet.
    #[must_use]
    pub(crate) fn new(client: Client, namespace: String, metrics: MappingMetrics) -> Self {
        Self {
            client,
            namespace,
            metrics,
            shards: Stored::default(),
            access: Stored::default(),
            prints: BTreeMap::new(),
            written: BTreeMap::new(),
            repairs: Repairs::default(),
        }
    }

    /// Whether everything was told in full, since this turn has begun; in turn 0, at least once.
    #[must_use]
    pub(crate) fn is_complete(&self, turn: u64) -> bool {
        self.shards.is_complete(turn) && self.access.is_complete(turn)
    }

    /// What tells this installation from all others: the uid of its access Secret; none until it is there.
    #[must_use]
    pub(crate) fn realm(&self) -> Option<String> {
        self.access.uid(ACCESS_SECRET)
    }

    /// Whether the API server holds a document as it was written last.
    #[must_use]
    pub(crate) fn holds(&self, document: &ShardDocument) -> bool {
        let name = objects::name(document);
        let known = self.prints.get(&name).filter(|(revision, _)| *revision == document.revision);
        known.is_some_and(|(_, print)| self.shards.print(&name) == Some(*print))
    }

    /// When something that somebody else keeps on changing is put right again, if anything waits for that.
    #[must_use]
    pub(crate) fn next_repair(&self) -> Option<Instant> {
        self.repairs.next()
    }

    /// Another operator's turn: nothing waits here any longer.
    pub(crate) fn stop(&mut self) {
        self.repairs = Repairs::default();
        self.written.clear();
        self.metrics.set_repairs_waiting(0);
    }

    /// Takes in what happened to a ConfigMap. Answers whether that is news.
    pub(crate) fn shard(&mut self, event: Event<ConfigMap>) -> bool {
        self.shards.take(event, print_of_map)
    }

    /// Takes in what happened to the access Secret. Answers whether that is news.
    pub(crate) fn access(&mut self, event: Event<Secret>) -> bool {
        self.access.take(event, print_of_secret)
    }

    /// Writes what differs. Without `with_access` the access document stays as it is.
    pub(crate) async fn write(&mut self, wanted: &Documents, with_access: bool) -> Applied {
        let mut applied = Applied::default();
        // Access goes first, so that a door that was closed is closed before anything new is behind it.
        if with_access && self.access_differs(&wanted.access) {
            let (job, ended) = self.run(Job::Access(&wanted.access)).await;
            self.note(&job, ended, wanted, &mut applied);
        }
        let documents = wanted.all_shards();
        let puts: Vec<_> =
            documents.filter(|document| self.differs(document)).map(|one| Job::Put(one)).collect();
        self.run_all(puts, wanted, &mut applied).await;
        let names: BTreeSet<String> = wanted.all_shards().map(|shard| objects::name(shard)).collect();
        let leaving = self.shards.names().filter(|name| !names.contains(*name)).map(str::to_owned);
        let deletes: Vec<_> = leaving.map(Job::Delete).collect();
        self.run_all(deletes, wanted, &mut applied).await;
        let is_there = |name: &str| name == ACCESS_SECRET || names.contains(name);
        self.prints.retain(|name, _| is_there(name));
        self.written.retain(|name, _| is_there(name));
        self.repairs.keep(is_there);
        self.metrics.set_repairs_waiting(self.repairs.waiting());
        applied
    }

    async fn run_all(&mut self, jobs: Vec<Job<'_>>, wanted: &Documents, applied: &mut Applied) {
        let this = &*self;
        let work: Vec<_> = jobs.into_iter().map(|job| this.run(job)).collect();
        let ended: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        for (job, ended) in ended {
            self.note(&job, ended, wanted, applied);
        }
    }

    fn access_differs(&mut self, document: &AccessDocument) -> bool {
        // It is small: its text is made each time.
        let Some(wanted) = document.to_yaml().ok().map(|text| print_of_text(&text)) else { return true };
        self.prints.insert(ACCESS_SECRET.to_owned(), (String::new(), wanted));
        let (held, editor) = (self.access.print(ACCESS_SECRET), self.access.editor(ACCESS_SECRET));
        is_due(&mut self.repairs, &mut self.written, ACCESS_SECRET, wanted, held, editor)
    }

    fn differs(&mut self, document: &ShardDocument) -> bool {
        let name = objects::name(document);
        let known = self.prints.get(&name).filter(|(revision, _)| *revision == document.revision);
        let wanted = match known {
            Some((_, print)) => Some(*print),
            None => print_of_shard(document),
        };
        let Some(wanted) = wanted else { return true };
        self.prints.insert(name.clone(), (document.revision.clone(), wanted));
        let (held, editor) = (self.shards.print(&name), self.shards.editor(&name));
        is_due(&mut self.repairs, &mut self.written, &name, wanted, held, editor)
    }

    /// Takes in that a document was written: because it was another one, or because somebody else had changed
    /// it.
    fn was_written(&mut self, name: &str, kind: RepairedKind) {
        let Some((_, wanted)) = self.prints.get(name) else { return };
        if self.written.insert(name.to_owned(), *wanted) == Some(*wanted) {
            tracing::info!(name, "somebody else had changed or deleted it; it is put right");
            self.metrics.count_repair(kind);
            self.repairs.made(name, Instant::now());
        } else {
            self.repairs.is_right(name);
        }
    }

    async fn run<'a>(&self, job: Job<'a>) -> (Job<'a>, Result<Answer, Failure>) {
        let ended = tokio::time::timeout(DEADLINE, self.try_run(&job)).await;
        (job, ended.unwrap_or_else(|_| Err(Failure::Away(format!("no answer within {DEADLINE:?}")))))
    }

    async fn try_run(&self, job: &Job<'_>) -> Result<Answer, Failure> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = PatchParams::apply(MANAGER).force();
        match job {
            Job::Put(document) => {
                let map = objects::config_map(document, &self.namespace).map_err(Failure::Refused)?;
                let put = maps.patch(&objects::name(document), &parameters, &Patch::Apply(&map)).await;
                Ok(Answer::Shard(Box::new(put.map_err(failure)?)))
            }
            Job::Access(document) => {
                let secret = objects::secret(document, &self.namespace).map_err(Failure::Refused)?;
                let put = secrets.patch(ACCESS_SECRET, &parameters, &Patch::Apply(&secret)).await;
                Ok(Answer::Access(Box::new(put.map_err(failure)?)))
            }
            Job::Delete(name) => {
                let preconditions = Preconditions { uid: self.shards.uid(name), resource_version: None };
                let parameters = DeleteParams::default().preconditions(preconditions);
                match maps.delete(name, &parameters).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => {}
                    Err(error) => return Err(failure(error)),
                }
                Ok(Answer::Deleted(name.clone()))
            }
        }
    }

    fn note(
        &mut self,
        job: &Job<'_>,
        ended: Result<Answer, Failure>,
        wanted: &Documents,
        applied: &mut Applied,
    ) {
        let (name, what) = match job {
            Job::Put(document) => (objects::name(document), ApiWrite::Shard),
            Job::Access(_) => (ACCESS_SECRET.to_owned(), ApiWrite::Access),
            Job::Delete(name) => (name.clone(), ApiWrite::ShardDeleted),
        };
        self.metrics.writes.count(what, if ended.is_ok() { CallResult::Done } else { CallResult::Failed });
        match ended {
            Ok(Answer::Shard(map)) => {
                self.shards.put(&map.metadata, print_of_map(&map));
                self.was_written(&name, RepairedKind::ConfigMap);
                applied.changed.push(name);
            }
            Ok(Answer::Access(secret)) => {
                self.access.put(&secret.metadata, print_of_secret(&secret));
                self.was_written(&name, RepairedKind::Secret);
                applied.changed.push(name);
            }
            Ok(Answer::Deleted(name)) => {
                self.shards.remove(&name);
                applied.changed.push(name);
            }
            Err(failure) => {
                let (error, why) = failure.about(&name);
                match job {
                    Job::Put(document) => drop(applied.failures.insert(document.tenant.clone(), why)),
                    Job::Access(_) => {
                        let tenants = wanted.access.tenants.keys();
                        applied.failures.extend(tenants.map(|tenant| (tenant.clone(), why.clone())));
                    }
                    Job::Delete(_) => {}
                }
                applied.error = Some(error);
            }
        }
    }
}

/// Whether a document is written now: it is another one than is held, and if it was written before as it is
/// wanted, so that somebody else changed it, it is its turn.
fn is_due(
    repairs: &mut Repairs,
    written: &mut BTreeMap<String, Print>,
    name: &str,
    wanted: Print,
    held: Option<Print>,
    editor: Option<&str>,
) -> bool {
    if held == Some(wanted) {
        written.insert(name.to_owned(), wanted);
        repairs.is_right(name);
        return false;
    }
    if written.get(name) != Some(&wanted) {
        return true;
    }
    match repairs.turn(name, Instant::now()) {
        Turn::Now => true,
        Turn::Later(wait, is_first) => {
            if is_first {
                tracing::warn!(name, editor, ?wait, "somebody keeps on changing it; it is put right later");
            }
            false
        }
    }
}

fn failure(error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(answer) if is_refusal(&answer) => Failure::Refused(answer.message),
        kube::Error::Api(answer) => Failure::Troubled(answer.message),
        error => Failure::Away(brief(&error)),
    }
}
