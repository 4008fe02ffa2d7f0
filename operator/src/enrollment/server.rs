//! The task of one tenant, which receives its requests and replies to them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message};
use flutecast_contract::enrollment::EnrollmentRequest;
use flutecast_contract::name::{DeviceCode, TenantName};
use flutecast_contract::subject;
use flutecast_process::backoff::jittered;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Decision, unavailable};
use super::creator::{Creation, DeviceCreator, NameHolder};
use super::directory::{Directory, DirectoryReceiver, TenantDirectory};
use super::metrics::{EnrollmentMetrics, RequestResult};
use super::permission::ForbiddenNamespaces;
use super::policy::Template;
use super::reply::{Reason, Refusal, Reply, encode};
use super::reply_subject::reply_subject;
use super::template;
use crate::rate_limit::{Rate, TokenBucket};

/// The queue group: of several operators one gets a request, also while one takes over from another.
const QUEUE: &str = "flutecast-enrolment";
/// The longest wait of a request for its new Device to be in the mapping.
const MAPPING_DEADLINE: Duration = Duration::from_secs(5);
/// Timeout for handing a reply to the connection.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);
/// The wait before a tenant whose subscription ended is served again.
const RETRY: Duration = Duration::from_secs(2);
/// The rate at which failures to create Devices are logged.
const FAILURE_LOG: Rate = Rate { interval: Duration::from_secs(60), burst: 1 };

/// The state that the servers of all tenants share.
#[derive(Clone)]
pub(crate) struct ServerContext {
    pub(crate) client: Client,
    pub(crate) directory: DirectoryReceiver,
    pub(crate) forbidden: watch::Receiver<ForbiddenNamespaces>,
    /// `None` where Devices come from a folder.
    pub(crate) creator: Option<DeviceCreator>,
    pub(crate) metrics: Arc<EnrollmentMetrics>,
}

/// Serves a tenant until `cancel` is cancelled.
pub(super) async fn serve(tenant: TenantName, context: ServerContext, cancel: CancellationToken) {
    let forever = async {
        loop {
            TenantServer::new(tenant.clone(), context.clone()).run().await;
            tokio::time::sleep(jittered(RETRY)).await;
        }
    };
    let _cancelled: Option<()> = cancel.run_until_cancelled(forever).await;
}

struct TenantServer {
    tenant: TenantName,
    admission: Admission,
    context: ServerContext,
    creations: JoinSet<EndedCreation>,
    failure_log: TokenBucket,
}

struct EndedCreation {
    code: DeviceCode,
    reply: Reply,
    result: RequestResult,
    /// The error for the log.
    failure: Option<String>,
}

impl TenantServer {
    fn new(tenant: TenantName, context: ServerContext) -> Self {
        Self {
            admission: Admission::new(tenant.clone(), Instant::now()),
            tenant,
            context,
            creations: JoinSet::new(),
            failure_log: TokenBucket::new(FAILURE_LOG, Instant::now()),
        }
    }

    async fn run(mut self) {
        let subject = subject::enroll(&self.tenant);
        let mut requests = match self.context.client.queue_subscribe(subject, QUEUE.to_owned()).await {
            Ok(requests) => requests,
            Err(error) => {
                let tenant = &self.tenant;
                tracing::warn!(%tenant, %error, "enrollment requests can't be heard; trying again");
                return;
            }
        };
        loop {
            tokio::select! {
                Some(ended) = self.creations.join_next() => match ended {
                    Ok(ended) => self.creation_ended(ended).await,
                    Err(error) => {
                        tracing::error!(tenant = %self.tenant, %error, "a task that created a Device failed");
                        return;
                    }
                },
                request = requests.next() => match request {
                    Some(request) => self.handle(request).await,
                    None => return,
                },
            }
        }
    }

    async fn handle(&mut self, message: Message) {
        let directory =
            self.context.directory.borrow().as_ref().and_then(|all| all.get(&self.tenant).cloned());
        let Some(directory) = directory else { return };
        let request = EnrollmentRequest::parse(&message.payload);
        let reply = message.reply.as_ref().map(|reply| reply.as_str());
        let reply_subject = reply_subject(&self.tenant, reply, request.token.as_ref());
        let is_forbidden = self.context.forbidden.borrow().contains(&directory.namespace);
        let may_create = self.context.creator.is_some() && !is_forbidden;
        match self.admission.decide(&directory, request, reply_subject, may_create, Instant::now()) {
            Decision::Reply { reply_subject, code, reply } => {
                self.reply(reply_subject, code.as_ref(), &reply, RequestResult::from(&reply)).await;
            }
            Decision::Create { code, template } => self.create(code, &template, &directory),
            Decision::Wait => {}
            Decision::Drop => self.context.metrics.count_request(RequestResult::Dropped),
        }
    }

    async fn reply(&self, subject: String, code: Option<&DeviceCode>, reply: &Reply, result: RequestResult) {
        self.context.metrics.count_request(result);
        let payload = encode(&self.tenant, code, reply, jittered);
        let publish = self.context.client.publish(subject, payload.into());
        if !matches!(tokio::time::timeout(PUBLISH_DEADLINE, publish).await, Ok(Ok(()))) {
            tracing::debug!(tenant = %self.tenant, "an answer to a device is lost");
        }
    }

    fn create(&mut self, code: DeviceCode, template: &Template, directory: &TenantDirectory) {
        let Some(creator) = self.context.creator.clone() else { return };
        let device = template::device(&self.tenant, &directory.namespace, &code, template);
        let (tenant, directory) = (self.tenant.clone(), self.context.directory.clone());
        self.creations.spawn(async move {
            let creation = creator.create(&device).await;
            let name = device.metadata.name.unwrap_or_default();
            if creation == Creation::Created {
                let code = code.as_str();
                tracing::info!(%tenant, code, device = name, "a device enrolled: its Device was created");
            }
            let reply = match &creation {
                Creation::Created | Creation::Exists => {
                    wait_until_mapped(&tenant, &code, &name, directory).await
                }
                creation => Err(refusal_of(creation, &tenant, &code, &name)),
            };
            let result = match &creation {
                Creation::Created if reply.is_ok() => RequestResult::Created,
                _ => RequestResult::from(&reply),
            };
            EndedCreation { code, reply, result, failure: creation.into_failure(&name) }
        });
    }

    async fn creation_ended(&mut self, ended: EndedCreation) {
        let EndedCreation { code, reply, result, failure } = ended;
        if let Some(error) = failure
            && self.failure_log.take(Instant::now())
        {
            tracing::warn!(tenant = %self.tenant, code = code.as_str(), error, "a Device can't be created");
        }
        for reply_subject in self.admission.creation_ended(&code) {
            self.reply(reply_subject, Some(&code), &reply, result).await;
        }
    }
}

fn refusal_of(creation: &Creation, tenant: &TenantName, code: &DeviceCode, name: &str) -> Refusal {
    match creation {
        Creation::NameTaken(holder) => name_taken(tenant, code, name, holder),
        Creation::QuotaExceeded => {
            let message =
                format!("the namespace of tenant {tenant} has no room for another Device (ResourceQuota)");
            Refusal::new(Reason::QuotaExceeded, message)
        }
        Creation::Created | Creation::Exists | Creation::Failed(_) => unavailable(tenant),
    }
}

/// A Device of another tenant is not described to devices.
fn name_taken(tenant: &TenantName, code: &DeviceCode, name: &str, holder: &NameHolder) -> Refusal {
    let by = if holder.tenant == tenant.as_str() {
        format!("a Device with spec.deviceCode {:?}", holder.code)
    } else {
        "a Device of another tenant".to_owned()
    };
    let code = code.as_str();
    let message = format!(
        "metadata.name: {name:?}, which a Device for {code:?} would be called, is taken by {by}; rename or \
         delete that one, or apply a Device with spec.tenant {:?} and spec.deviceCode {code:?} under another \
         name",
        tenant.as_str()
    );
    Refusal::new(Reason::NameTaken, message)
}

/// Waits until a Device that was created is in the mapping.
async fn wait_until_mapped(
    tenant: &TenantName,
    code: &DeviceCode,
    name: &str,
    mut directory: DirectoryReceiver,
) -> Reply {
    let admission = Admission::new(tenant.clone(), Instant::now());
    let lookup = |all: &Option<Arc<Directory>>| admission.lookup(all.as_ref()?.get(tenant)?, code);
    let is_final = |reply: &Option<Reply>| match reply {
        Some(Ok(_)) => true,
        Some(Err(refusal)) => refusal.reason != Reason::Pending,
        None => false,
    };
    let wait = directory.wait_for(|directory| is_final(&lookup(directory)));
    let reply = match tokio::time::timeout(MAPPING_DEADLINE, wait).await {
        Ok(Ok(directory)) => lookup(&directory),
        Ok(Err(_)) | Err(_) => None,
    };
    let reply = reply.or_else(|| lookup(&directory.borrow()));
    reply.unwrap_or_else(|| {
        let message = format!("Device {name} was created and is about to be in force");
        Err(Refusal::new(Reason::Pending, message))
    })
}
